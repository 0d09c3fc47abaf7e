"""Who is enrolled in each stream, kept in the privacy home from the stream's beginning on.

The record is written once, before the first invitation, and never changed: who can be reached later
decides nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from .counts_file import fact, keep_fact
from .participation_counts import invited_devices, stream_record

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

_RECORD_FACT: Final = "enrolment of "
_SOURCE_FACT: Final = "enrolment source of "
_BINDINGS_FACT: Final = "enrolment bindings of "


class EnrolmentSource(StrEnum):
    """What says who is enrolled in a stream."""

    FILE = "file"
    FLEET = "fleet"
    FIRST_ROSTER = "first_roster"
    """Who could be reached when the stream began: an assumption beside its ε names it."""


@dataclass(frozen=True, slots=True)
class KeptEnrolment:
    """Who is enrolled in a stream.

    Attributes:
        device_ids: sorted.
        source: what said so when the stream began.
        sha256: of the identifiers, one a line.
    """

    device_ids: tuple[str, ...]
    source: EnrolmentSource
    sha256: str


def keep_enrolment(
    connection: sqlite3.Connection,
    stream: str,
    device_ids: Iterable[str],
    source: EnrolmentSource,
) -> KeptEnrolment:
    """Keep who is enrolled before a stream is opened; afterwards return what was kept.

    A stream from before enrolments were kept takes what it is resumed with and whom it has invited.

    Args:
        connection: to the counts.
        stream: its name.
        device_ids: who is enrolled now.
        source: what says so.
    """
    kept = kept_enrolment(connection, stream)
    if kept is not None and stream_record(connection, stream) is not None:
        return kept
    enrolled = tuple(sorted({*device_ids, *invited_devices(connection, stream)}))
    digest = hashlib.sha256("\n".join(enrolled).encode()).hexdigest()
    text = json.dumps({"sha256": digest, "devices": enrolled}, separators=(",", ":"))
    keep_fact(connection, _RECORD_FACT + stream, text)
    keep_fact(connection, _SOURCE_FACT + stream, source)
    return KeptEnrolment(enrolled, source, digest)


def kept_enrolment(connection: sqlite3.Connection, stream: str) -> KeptEnrolment | None:
    """Return who is enrolled in a stream; None where nobody kept it.

    Args:
        connection: to the counts.
        stream: its name.
    """
    text = fact(connection, _RECORD_FACT + stream)
    if not text:
        return None
    record = json.loads(text)
    source = EnrolmentSource(fact(connection, _SOURCE_FACT + stream))
    return KeptEnrolment(tuple(record["devices"]), source, record["sha256"])


def keep_bindings(
    connection: sqlite3.Connection, stream: str, nodes: Mapping[str, int | None]
) -> None:
    """Keep which node each device is bound to: what is said now, and else what was said before.

    Args:
        connection: to the counts.
        stream: its name.
        nodes: of each device; None says nothing.
    """
    before = kept_bindings(connection, stream)
    after = before | {device: node for device, node in nodes.items() if node is not None}
    if after != before:
        text = json.dumps(after, sort_keys=True, separators=(",", ":"))
        keep_fact(connection, _BINDINGS_FACT + stream, text)


def kept_bindings(connection: sqlite3.Connection, stream: str) -> dict[str, int]:
    """Return the node of each device of a stream that is bound to one.

    Args:
        connection: to the counts.
        stream: its name.
    """
    text = fact(connection, _BINDINGS_FACT + stream)
    return {str(device): int(node) for device, node in json.loads(text or "{}").items()}


def knows_enrolment(connection: sqlite3.Connection, stream: str = "") -> bool:
    """Whether a record, not who was there, said who is enrolled in a stream; unnamed: in each.

    Of a stream from before enrolments were kept nobody knows it.
    """
    row = connection.execute(
        "SELECT 1 FROM steps WHERE (?1 = '' OR stream = ?1) AND NOT EXISTS (SELECT 1 FROM facts "
        "WHERE name = ?2 || stream AND value IN (?3, ?4)) LIMIT 1",
        (stream, _SOURCE_FACT, EnrolmentSource.FILE, EnrolmentSource.FLEET),
    ).fetchone()
    return row is None
