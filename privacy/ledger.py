"""Append-only, hash-chained entries and their verification; no storage.

An entry is one line of canonical JSON. Its hash is SHA-256 over the canonical JSON of all its other
fields, and each entry holds the hash of the one before, so no entry can be altered, reordered or
removed from the middle unnoticed. Removal at the end is found by comparing with a head that is
known from elsewhere (a receipt, a checkpoint, a model card).

Canonical JSON: keys sorted, no blanks, ASCII with escapes, floats in Python's shortest repr that
reads back to the same value, no NaN and no infinities.

Verification covers every field that was stored, known to this version or not; what an event means
is decided only when it is accounted for. So yesterday's ledgers verify for ever.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from .canonical_json import canonical_json
from .errors import LedgerBrokenError
from .events import ENTRY_KINDS, EntryKind, Event, event_from_json, event_to_json

SCHEMA_VERSION: Final = 1
GENESIS_HASH: Final = "0" * 64
"""What the first entry holds as the hash of the one before."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry: the fields as stored, and their hash.

    Attributes:
        fields: Every stored field except the hash.
        hash: SHA-256 of the canonical JSON of `fields`, in hexadecimal.
    """

    fields: Mapping[str, Any]
    hash: str

    @property
    def index(self) -> int:
        """Position in the ledger, counted from 0."""
        return int(self.fields["index"])

    @property
    def kind(self) -> EntryKind:
        """Where the entry stands: public, simulated, comparison or stream."""
        return cast("EntryKind", self.fields["kind"])

    @property
    def at(self) -> datetime:
        """When the entry was made, UTC."""
        return datetime.fromisoformat(self.fields["at"])

    @property
    def previous_hash(self) -> str:
        """Hash of the entry before, or `GENESIS_HASH`."""
        return str(self.fields["previous_hash"])

    @property
    def event(self) -> Event:
        """The mechanism that ran.

        Raises:
            UnsupportedEventError: This version does not know the event.
        """
        return event_from_json(self.fields["event"])

    def reference(self) -> dict[str, Any]:
        """Index, kind and hash: what a model card quotes."""
        return {"index": self.index, "kind": self.kind, "hash": self.hash}

    def to_line(self) -> str:
        """The entry as one line of canonical JSON, without a line end."""
        return canonical_json({**self.fields, "hash": self.hash})


def next_entry(
    previous: LedgerEntry | None, event: Event, *, kind: EntryKind, at: datetime
) -> LedgerEntry:
    """Make the entry that follows; the caller stores it durably before anything leaves.

    Args:
        previous: The ledger's last entry, or None for the first.
        event: The mechanism about to run.
        kind: Where the entry stands.
        at: Now, timezone-aware.

    Returns:
        The chained entry.

    Raises:
        ValueError: `at` is naive or `kind` is unknown.
    """
    if at.utcoffset() is None:
        raise ValueError(f"at must be timezone-aware, got {at!r}")
    if kind not in ENTRY_KINDS:
        raise ValueError(f"kind must be one of {', '.join(ENTRY_KINDS)}, got {kind!r}")
    fields = {
        "schema_version": SCHEMA_VERSION,
        "index": 0 if previous is None else previous.index + 1,
        "kind": kind,
        "at": at.astimezone(UTC).isoformat(),
        "event": event_to_json(event),
        "previous_hash": GENESIS_HASH if previous is None else previous.hash,
    }
    return LedgerEntry(fields=fields, hash=_hash(fields))


def entry_from_line(line: str, *, index: int) -> LedgerEntry:
    """Read one line; the chain is checked by `verify_ledger`.

    Args:
        line: Canonical JSON as `LedgerEntry.to_line` writes it.
        index: Position of the line, for the error.

    Returns:
        The entry.

    Raises:
        LedgerBrokenError: The line is not a JSON object with a hash.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise LedgerBrokenError(index=index, reason="the line is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("hash"), str):
        raise LedgerBrokenError(index=index, reason="the line is not an object with a hash")
    stored_hash = value.pop("hash")
    return LedgerEntry(fields=value, hash=stored_hash)


def read_ledger(text: str, *, head: str | None = None) -> tuple[LedgerEntry, ...]:
    """Read and verify a ledger written one entry a line.

    Args:
        text: The whole file.
        head: Hash of the last entry, where it is known from elsewhere.

    Returns:
        All entries, oldest first.

    Raises:
        LedgerBrokenError: A line cannot be read, the chain does not verify, the last line has no
            line end (a torn write), or the head differs.
    """
    lines = text.split("\n")
    if lines.pop() != "":
        raise LedgerBrokenError(index=len(lines), reason="the last line is torn")
    entries = tuple(entry_from_line(line, index=index) for index, line in enumerate(lines))
    verify_ledger(entries, head=head)
    return entries


def verify_ledger(entries: Sequence[LedgerEntry], *, head: str | None = None) -> None:
    """Check every hash, every link and every index.

    Args:
        entries: All entries, oldest first.
        head: Hash of the last entry, where it is known from elsewhere.

    Raises:
        LedgerBrokenError: At the first entry that does not fit, or when the head differs.
    """
    previous_hash = GENESIS_HASH
    for index, entry in enumerate(entries):
        reason = _misfit(entry, index=index, previous_hash=previous_hash)
        if reason is not None:
            raise LedgerBrokenError(index=index, reason=reason)
        previous_hash = entry.hash
    if head is not None and head != previous_hash:
        raise LedgerBrokenError(index=len(entries), reason="entries are missing at the end")


def events_of(entries: Iterable[LedgerEntry]) -> tuple[Event, ...]:
    """The mechanisms that ran, oldest first.

    Raises:
        UnsupportedEventError: An event that this version cannot account for.
    """
    return tuple(entry.event for entry in entries)


def entries_of_stream(entries: Iterable[LedgerEntry], stream: str) -> tuple[LedgerEntry, ...]:
    """The entries of one stream's steps, oldest first; no event is read."""
    return tuple(entry for entry in entries if entry.fields["event"].get("stream") == stream)


def _misfit(entry: LedgerEntry, *, index: int, previous_hash: str) -> str | None:
    fields = entry.fields
    if not isinstance(fields.get("event"), dict):
        return "it has no event"
    if fields.get("kind") not in ENTRY_KINDS:
        return f"its kind is {fields.get('kind')!r}"
    if not _is_utc_time(fields.get("at")):
        return "its time is not UTC"
    if fields.get("index") != index:
        return f"its index is {fields.get('index')!r}"
    if fields.get("previous_hash") != previous_hash:
        return "it does not follow the entry before"
    if _hash(fields) != entry.hash:
        return "its hash does not match its content"
    return None


def _is_utc_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


def _hash(fields: Mapping[str, Any]) -> str:
    try:
        content = canonical_json(fields)
    except ValueError:
        return ""
    return hashlib.sha256(content.encode("ascii")).hexdigest()
