"""The kinds of value that a message may hold, and the facts that are declared about each field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

JsonObject = dict[str, Any]

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Consent(StrEnum):
    """What the owner must have agreed to before a field leaves the device."""

    LINK = "link"
    SUMMARIES = "summaries"
    NOTICES = "notices"
    TRAINING = "training"


class Personal(StrEnum):
    """What a field says about a person."""

    NO = "no"
    PSEUDONYM = "pseudonym"
    INDIRECT = "indirect"


class Kind(Protocol):
    """How one kind of value looks in Python, in JSON and in a JSON Schema.

    `to_json` and `from_json` raise `ValueError` or `TypeError` with a text that follows the
    field's name.
    """

    def schema(self) -> JsonObject:
        """Return the JSON Schema (draft 2020-12) of the value."""
        ...

    def to_json(self, value: Any) -> Any:
        """Return the JSON value of a Python value."""
        ...

    def from_json(self, value: Any) -> Any:
        """Return the Python value of a JSON value."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A string that matches a pattern as a whole."""

    pattern: str
    max_length: int

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the string."""
        return {"type": "string", "maxLength": self.max_length, "pattern": f"^(?:{self.pattern})$"}

    def to_json(self, value: Any) -> str:
        """Return the string unchanged, checked."""
        if not isinstance(value, str):
            raise TypeError(f"must be a string, got {_short(value)}")
        if len(value) > self.max_length:
            raise ValueError(f"must have at most {self.max_length} characters, got {len(value)}")
        if re.fullmatch(self.pattern, value) is None:
            raise ValueError(f"must match {self.pattern}, got {_short(value)}")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("must be text that UTF-8 can hold")
        return value

    from_json = to_json


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds, both included."""

    low: int
    high: int

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the number."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def to_json(self, value: Any) -> int:
        """Return the number unchanged, checked."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"must be a whole number, got {_short(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must lie in {self.low} to {self.high}, got {_short(value)}")
        return value

    from_json = to_json


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the flag."""
        return {"type": "boolean"}

    def to_json(self, value: Any) -> bool:
        """Return the flag unchanged, checked."""
        if not isinstance(value, bool):
            raise TypeError(f"must be true or false, got {_short(value)}")
        return value

    from_json = to_json


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: aware UTC in Python, `YYYY-MM-DDTHH:MM:SSZ` in JSON, whole seconds."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the time."""
        return {"type": "string", "format": "date-time", "pattern": f"^{_MOMENT.pattern}$"}

    def to_json(self, value: Any) -> str:
        """Return the time as text."""
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"must be an aware time, got {_short(value)}")
        if value.microsecond or value < _EARLIEST:
            raise TypeError(f"must be a whole second since 1970, got {value.isoformat()}")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def from_json(self, value: Any) -> datetime:
        """Return the aware time that a text names."""
        if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
            raise ValueError(f"must look like 2026-01-31T08:00:00Z, got {_short(value)}")
        moment = datetime.fromisoformat(value)
        if moment < _EARLIEST:
            raise ValueError(f"must not lie before 1970, got {value}")
        return moment


@dataclass(frozen=True, slots=True)
class Choice:
    """One member of an enumeration of strings, or of a part of it."""

    members: Iterable[StrEnum]

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the enumeration."""
        return {"enum": [member.value for member in self.members]}

    def to_json(self, value: Any) -> str:
        """Return the member's text."""
        return self.from_json(value).value

    def from_json(self, value: Any) -> StrEnum:
        """Return the member that a text names."""
        for member in self.members:
            if value == member:
                return member
        names = ", ".join(member.value for member in self.members)
        raise ValueError(f"must be one of {names}, got {_short(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is declared about one field of a message, beside its type.

    Attributes:
        kind: which values it may hold.
        what: the field in words, with its unit or its bands.
        purpose: why it is sent; None = the purpose of its message.
        consent: which agreement covers it; None = the consent of its message.
        accounted: whether the privacy ledger is charged for it.
        personal: what it says about a person.
    """

    kind: Kind
    what: str
    purpose: str | None = None
    consent: Consent | None = None
    accounted: bool = False
    personal: Personal = Personal.NO


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
