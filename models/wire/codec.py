"""Messages to and from canonical JSON, driven by what is declared about their fields.

Canonical: UTF-8, keys sorted, no spaces, fields that are None left out. A device's messages are
then padded with spaces to the size of their kind, so that their length says nothing.
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from ..telemetry import DeviceId
from .errors import MessageTooLargeError, WireError
from .fields import Consent, Declared, JsonObject, Moment, Personal, Text, Whole
from .topics import MAX_DEVICE_ID_BYTES, Down, Up, checked_device_id

SCHEMA_VERSION = 1
MAX_PAYLOAD_BYTES = 4096
"""What firmware can be asked to hold in memory at once."""

SEQUENCE_TOLERANCE = timedelta(days=1)
"""How far a device's sequence numbers, which are seconds since the epoch or little more, may be
ahead of the clock of whoever makes or hears them."""

MESSAGE_ID = Text("[0-9a-f]{32}", 32)
ADDRESSING = "to whom it belongs, in which order, and whether it was seen before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One JSON object of declared fields; they are checked whenever one is made.

    Raises:
        WireError: `bad_field`: a value that the contract does not allow.
    """

    TYPE: ClassVar[str] = ""
    PADDED_BYTES: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Check every field against what is declared about it, then all of them together."""
        for name, (spec, required) in specification(type(self)).items():
            value = getattr(self, name)
            if value is None and not required:
                continue
            try:
                spec.kind.to_json(value)
            except (TypeError, ValueError) as error:
                raise WireError("bad_field", f"{self.TYPE}.{name} {error}") from None
        self.check_address()
        complaint = self.inconsistency()
        if complaint is not None:
            raise WireError("bad_field", f"{self.TYPE}: {complaint}")

    def check_address(self) -> None:
        """Check to whom it belongs, where it belongs to one device.

        Raises:
            WireError: no device can be called so.
        """

    def inconsistency(self) -> str | None:
        """Say what contradicts itself across fields, None where nothing does."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Payload):
    """What every message from or to one device carries."""

    TOPIC: ClassVar[Up | Down]
    PURPOSE: ClassVar[str] = ""
    CONSENT: ClassVar[Consent] = Consent.LINK

    schema_version: Annotated[
        int,
        Declared(
            kind=Whole(1, 1_000_000),
            what="version of the schema; a reader accepts later ones, and fields unknown to it",
            purpose=ADDRESSING,
        ),
    ] = SCHEMA_VERSION
    id: Annotated[
        str,
        Declared(kind=MESSAGE_ID, what="128 random bits that name the message", purpose=ADDRESSING),
    ]
    device: Annotated[
        DeviceId,
        Declared(
            kind=Text("[^+#/]+", MAX_DEVICE_ID_BYTES),
            what="id of the device that sends or receives it",
            purpose=ADDRESSING,
            personal=Personal.PSEUDONYM,
        ),
    ]
    sequence: Annotated[
        int,
        Declared(
            kind=Whole(0, 2**53 - 1),
            what="grows with each message of this type to or from this device; "
            "the authority against replay",
            purpose=ADDRESSING,
        ),
    ]
    issued: Annotated[
        datetime,
        Declared(
            kind=Moment(),
            what="time of the sender's clock, UTC; it may be wrong",
            purpose=ADDRESSING,
        ),
    ]

    def check_address(self) -> None:
        """Check the name of the device."""
        checked_device_id(self.device)


P = TypeVar("P", bound=Payload)


_SPECIFICATIONS: dict[type[Payload], dict[str, tuple[Declared, bool]]] = {}


def specification(message: type[Payload]) -> dict[str, tuple[Declared, bool]]:
    """Return what is declared about each field, and whether it must be present."""
    found = _SPECIFICATIONS.get(message)
    if found is None:
        found = {}
        for entry in fields(message):
            declared = next(fact for fact in get_args(entry.type) if isinstance(fact, Declared))
            found[entry.name] = (declared, entry.default is not None)
        _SPECIFICATIONS[message] = found
    return found


def encode(message: Payload) -> bytes:
    """Return the canonical bytes of a message, padded to the size of its kind.

    Raises:
        MessageTooLargeError: it is larger than a device can be asked to hold.
    """
    body: JsonObject = {"type": message.TYPE}
    for name, (spec, _) in specification(type(message)).items():
        value = getattr(message, name)
        if value is not None:
            body[name] = spec.kind.to_json(value)
    payload = canonical_json(body).ljust(message.PADDED_BYTES)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(size=len(payload), limit=MAX_PAYLOAD_BYTES)
    return payload


def decode(payload: bytes, expected: type[P]) -> P:
    """Return the message that a payload holds; fields unknown to this version are left out.

    Raises:
        WireError: whatever is wrong with it; the only error that this raises.
    """
    return of_object(parse_object(payload), expected)


def of_object(body: JsonObject, expected: type[P]) -> P:
    """Return the message that a JSON object is.

    Raises:
        WireError: whatever is wrong with it.
    """
    if body.get("type") != expected.TYPE:
        found = str(body.get("type"))[:40]
        raise WireError("wrong_type", f"expected {expected.TYPE}, got {found!r}")
    values: dict[str, Any] = {}
    for name, (spec, required) in specification(expected).items():
        if name not in body:
            if required:
                raise WireError("missing_field", f"{expected.TYPE}.{name} is missing")
            continue
        try:
            values[name] = spec.kind.from_json(body[name])
        except (TypeError, ValueError) as error:
            raise WireError("bad_field", f"{expected.TYPE}.{name} {error}") from None
    return expected(**values)


def canonical_json(body: JsonObject) -> bytes:
    """Return UTF-8 JSON with sorted keys and without spaces."""
    return json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse_object(payload: bytes, *, limit: int = MAX_PAYLOAD_BYTES) -> JsonObject:
    """Return the JSON object that a payload holds.

    Raises:
        WireError: `oversize`, `not_json`, or `not_an_object`; also for a key that stands twice.
    """
    if len(payload) > limit:
        raise MessageTooLargeError(size=len(payload), limit=limit)
    try:
        body = json.loads(
            payload.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise WireError("not_json", f"{type(error).__name__}: {str(error)[:120]}") from None
    if not isinstance(body, dict):
        raise WireError("not_an_object", f"a message is a JSON object, got {type(body).__name__}")
    return body


def schema(message: type[Payload]) -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of one kind of message."""
    properties: JsonObject = {"type": {"const": message.TYPE}}
    required = ["type"]
    for name, (spec, is_required) in specification(message).items():
        properties[name] = {"description": spec.what, **spec.kind.schema()}
        if is_required:
            required.append(name)
    summary = (message.__doc__ or "").strip().splitlines()[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fedcell:v1:{message.TYPE}",
        "title": message.TYPE,
        "description": summary,
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": True,
    }


def unknown_fields(body: JsonObject, message: type[Message]) -> tuple[str, ...]:
    """Return the keys of a JSON object that are not declared: what a tap on the wire looks for."""
    return tuple(sorted(set(body) - set(specification(message)) - {"type"}))


def _unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key stands twice")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
