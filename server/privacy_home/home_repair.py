"""What an operator may do about a privacy home that refuses: three ways, none of which forgets.

A torn last line is cut off only where the counts show that its entry was never finished; counts
that are gone are made anew with everybody charged the worst case and held to every promise so far;
a folder that was moved is taken over, and its streams end. Where the counts cannot tell how far the
ledger had come, the operator shows it from what was kept elsewhere: the hash of the newest entry.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from models.durable_file import sync_folder, write_durably
from privacy import LedgerBrokenError, read_ledger

from . import counts_file
from .device_words import begin_words_anew
from .folder_origin import PUT_BACK, anchor_of, inode_of
from .home_files import (
    ANCHOR_FACT,
    COUNTS_FILE,
    HEAD_FACT,
    HOME_FILE,
    INODE_FACT,
    is_behind,
    make_counts,
)
from .home_lock import locked_home
from .ledger_file import LEDGER_FILE, read_ledger_file, torn_tail
from .privacy_errors import HomeBrokenError
from .stream_openings import end_streams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from privacy import LedgerEntry

LEAST_HEAD_DIGITS: Final = 16


def cut_torn_line(home: Path, *, now: datetime, head: str = "") -> int:
    """Cut off a last line that a crash left half written, and keep it in a file beside.

    Args:
        home: the folder.
        now: aware time, for the name of the file that keeps what was cut.
        head: hash of the newest entry, as `charge_everyone` takes it; needed where the counts,
            which know it, are gone or damaged.

    Returns:
        Number of bytes cut; 0 for a ledger that ends whole.

    Raises:
        HomeBrokenError: the rest does not verify, or the entry may have been finished, so that
            something may have left on the strength of it.
    """
    path = home / LEDGER_FILE
    with locked_home(home):
        tail = torn_tail(path)
        if not tail:
            return 0
        whole = path.read_bytes()[: -len(tail)]
        try:
            entries = read_ledger(whole.decode("ascii", errors="replace"))
        except LedgerBrokenError as error:
            raise HomeBrokenError(path, str(error), "put the newest whole copy back") from error
        seen = _entries_seen(home)
        if seen is None:
            require_newest(path, entries, head)
        elif seen > len(entries):
            what = f"the torn entry {len(entries)} was whole once, and may have been released"
            raise HomeBrokenError(path, what, "put the newest whole copy back")
        kept = path.with_name(f"{path.name}.torn-{now:%Y%m%dT%H%M%S}")
        write_durably(kept, tail)
        handle = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(handle, len(whole))
            os.fsync(handle)
        finally:
            os.close(handle)
        return len(tail)


def charge_everyone(home: Path, *, head: str) -> int:
    """Make counts anew that are gone or damaged: every device is charged the worst case.

    Every device is held to the least limits of all policies so far, too. Streams that were open
    end: nobody knows any more who was invited. An older ledger lacks releases, and every figure
    made from it would be too low.

    Args:
        home: the folder.
        head: hash of the newest entry, or its first 16 digits or more, from what was kept
            elsewhere: `home_head` in the `run.json` that was written last. A card or a receipt
            names a step, after which counts may have been released.

    Returns:
        Number of ledger entries that every device is charged for.

    Raises:
        HomeBrokenError: the ledger does not verify, or does not end with that entry; nothing was
            changed.
    """
    path = home / LEDGER_FILE
    with locked_home(home):
        entries = read_ledger_file(path)
        require_newest(path, entries, head)
        make_counts(home, entries)
        return len(entries)


def take_over(home: Path, *, head: str) -> int:
    """Accept a home that was moved, where it is shown to hold the newest entry.

    Its streams end: only their next steps could show whether a later copy released them. How far
    devices are ahead of its counts is taken as it is from their next word on.

    Args:
        home: the folder.
        head: hash of the newest entry, as `charge_everyone` takes it.

    Returns:
        Number of streams that ended.

    Raises:
        HomeBrokenError: ledger and counts do not agree, or the ledger does not end with that entry;
            nothing was changed.
    """
    path = home / LEDGER_FILE
    with locked_home(home), counts_file.transaction(home / COUNTS_FILE) as connection:
        entries = read_ledger_file(path)
        require_newest(path, entries, head)
        is_behind(path, entries, connection)
        ended = end_streams(connection)
        begin_words_anew(connection)
        if not (home / HOME_FILE).exists():
            write_durably(home / HOME_FILE, b'{"schema_version": 1}\n')
            sync_folder(home)
        counts_file.keep_fact(connection, ANCHOR_FACT, anchor_of(home / HOME_FILE))
        counts_file.keep_fact(connection, INODE_FACT, inode_of(home / COUNTS_FILE))
        return ended


def _entries_seen(home: Path) -> int | None:
    """How many entries the counts have seen; None where they are gone or damaged."""
    try:
        with counts_file.transaction(home / COUNTS_FILE) as connection:
            return int(counts_file.fact(connection, HEAD_FACT).partition(":")[0])
    except HomeBrokenError:
        return None


def require_newest(path: Path, entries: Sequence[LedgerEntry], head: str) -> None:
    """Refuse a ledger that does not end with the entry that is known to be the newest."""
    if not entries or len(head) < LEAST_HEAD_DIGITS or not entries[-1].hash.startswith(head):
        what = f"does not end with an entry {head!r}"
        remedy = (
            f"{PUT_BACK}, and name the hash of its last entry with --head; from a home without any "
            "entry nothing was released: begin a new one"
        )
        raise HomeBrokenError(path, what, remedy)
