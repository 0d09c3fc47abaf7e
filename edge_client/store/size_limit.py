"""A store that stays below a size: the readings recorded first make room, whatever the clock says.

Near the limit a few readings leave with each transaction, and the pages that they free are used
again. Where one transaction grows past the limit, as many leave as it takes, and the file shrinks
in the same transaction. The write-ahead log counts: room for it is kept free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

LEAST_STORE_BYTES = 262_144
"""The smallest limit: the empty tables, the log, a year of 6-hourly readings (sealed 10 months)."""

_SLACK_PAGES = 4
_RESERVE_PAGES = 2
_FEW_READINGS = 8
_MORE_READINGS = 64
_JOURNAL_PAGES = 64
_JOURNAL_SHARE = 8
_LARGE_WRITE_PAGES = 8
_JOURNAL_BYTES_PER_PAGE = 1.02
"""A page in the log has a header of 24 bytes."""


def limit_journal(connection: sqlite3.Connection, *, max_bytes: int | None) -> None:
    """Have the write-ahead log moved into the file after 0.3 MB, not after 4 MB.

    Args:
        connection: to the store.
        max_bytes: size that file and log stay below together: the log gets an eighth of it at most.
    """
    page_size = _pragma(connection, "page_size")
    pages = _journal_pages(None if max_bytes is None else max_bytes // page_size)
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
    # What one large transaction has written is given back.
    most = int(pages * page_size * _JOURNAL_BYTES_PER_PAGE)
    connection.execute(f"PRAGMA journal_size_limit = {most}").fetchall()


def make_shrinkable(connection: sqlite3.Connection) -> None:
    """Let a file of schema version 1 give pages back: it is rewritten once."""
    if _pragma(connection, "auto_vacuum") == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")


def stay_below(connection: sqlite3.Connection, max_bytes: int) -> bool:
    """Let readings, then waiting messages go until the file fits; call it before a commit.

    Args:
        connection: in a transaction.
        max_bytes: size that the file and its log shall not pass.

    Returns:
        False where nothing more can go and the file is still too large.
    """
    most = max_bytes // _pragma(connection, "page_size")
    most -= _journal_pages(most) + _LARGE_WRITE_PAGES
    pages = _pragma(connection, "page_count")
    if pages <= most:
        is_near = pages > most - _SLACK_PAGES
        if is_near and _pragma(connection, "freelist_count") < _RESERVE_PAGES:
            _let_go(connection, _FEW_READINGS)
        return True
    while pages - _pragma(connection, "freelist_count") > most:
        if not _let_go(connection, _MORE_READINGS):
            return False
    for _ in range(pages - most):
        # Python's sqlite3 takes one step of it a call, and one page leaves a step.
        connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
    return _pragma(connection, "page_count") <= most


def _journal_pages(most: int | None) -> int:
    return _JOURNAL_PAGES if most is None else min(_JOURNAL_PAGES, most // _JOURNAL_SHARE)


def _let_go(connection: sqlite3.Connection, count: int) -> bool:
    for table, key in (("reading", "sequence"), ("outbox", "number")):
        done = connection.execute(
            # The last row stays: its number must not be used again.
            f"DELETE FROM {table} WHERE {key} IN"  # noqa: S608 - names of ours
            f" (SELECT {key} FROM {table} ORDER BY {key} LIMIT ?)"
            f" AND {key} < (SELECT max({key}) FROM {table})",
            (count,),
        )
        if done.rowcount:
            return True
    return False


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
