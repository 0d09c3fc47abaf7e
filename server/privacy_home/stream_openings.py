"""Whether a stream may still be opened and stepped, as the counts of a privacy home know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .counts_file import fact, keep_fact
from .privacy_errors import StreamRefusedError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_OPENING_FACT: Final = "opening of "
_ENDED_FACT: Final = "ended "


def opening_of(connection: sqlite3.Connection, stream: str) -> str:
    """Return what was noted of a stream's last opening for writing; empty if nothing was."""
    return fact(connection, _OPENING_FACT + stream)


def keep_opening(connection: sqlite3.Connection, stream: str, opening: str) -> None:
    """Keep how a stream is opened for writing."""
    keep_fact(connection, _OPENING_FACT + stream, opening)


def end_streams(connection: sqlite3.Connection) -> int:
    """End every stream that is known: none is opened again, and none takes another step.

    Returns:
        How many had not ended before.
    """
    streams = [row[0] for row in connection.execute("SELECT stream FROM streams")]
    still_open = [stream for stream in streams if not fact(connection, _ENDED_FACT + stream)]
    for stream in still_open:
        keep_fact(connection, _ENDED_FACT + stream, "taken over")
        connection.execute("DELETE FROM facts WHERE name = ?", (_OPENING_FACT + stream,))
    connection.execute("UPDATE streams SET anchor = ''")
    return len(still_open)


def require_open(connection: sqlite3.Connection, stream: str, *, where: Path) -> None:
    """Refuse a stream that ended when its home was taken over.

    Raises:
        StreamRefusedError: it did.
    """
    if fact(connection, _ENDED_FACT + stream):
        what = f"was taken over, and ended stream {stream!r} with it"
        raise StreamRefusedError(where, what, "open a new stream")
