"""What an operator may do about a privacy home that refuses: three ways, none of which forgets.

A torn last line is cut off only where the counts show that its entry was never finished; counts
that are gone are made anew with everybody charged the worst case, from a ledger that is shown to be
the newest; a folder that was moved is taken over on the operator's word that it is the newest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from models.durable_file import sync_folder, write_durably
from privacy import read_ledger

from . import counts_file
from .folder_origin import anchor_of, inode_of
from .home_lock import locked_home
from .ledger_file import LEDGER_FILE, read_ledger_file, torn_tail
from .privacy_errors import HomeBrokenError
from .privacy_ledger import (
    ANCHOR_FACT,
    COUNTS_FILE,
    HEAD_FACT,
    HOME_FILE,
    INODE_FACT,
    make_counts,
)

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

LEAST_HEAD_DIGITS: Final = 16


def cut_torn_line(home: Path, *, now: datetime) -> int:
    """Cut off a last line that a crash left half written, and keep it in a file beside.

    Args:
        home: the folder.
        now: aware time, for the name of the file that keeps what was cut.

    Returns:
        Number of bytes cut; 0 for a ledger that ends whole.

    Raises:
        HomeBrokenError: the rest does not verify, or the counts have seen the entry: it was
            finished, and something may have left on the strength of it.
    """
    path = home / LEDGER_FILE
    with locked_home(home):
        tail = torn_tail(path)
        if not tail:
            return 0
        whole = path.read_bytes()[: -len(tail)]
        entries = read_ledger(whole.decode("ascii", errors="replace"))
        if (home / COUNTS_FILE).exists():
            with counts_file.transaction(home / COUNTS_FILE) as connection:
                seen = int(counts_file.fact(connection, HEAD_FACT).partition(":")[0])
            if seen > len(entries):
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

    Streams that were open end: nobody knows any more who was invited. The counts alone knew how far
    the ledger had come, so whoever has lost them must say it from elsewhere: an older ledger lacks
    releases, and every figure made from it would be too low.

    Args:
        home: the folder.
        head: hash of the newest entry, or its first 16 digits or more, from what was kept
            elsewhere: the newest run's `run.json`, a model card, a device's receipt.

    Returns:
        Number of ledger entries that every device is charged for.

    Raises:
        HomeBrokenError: the ledger does not verify, or does not end with that entry; nothing was
            changed.
    """
    path = home / LEDGER_FILE
    with locked_home(home):
        entries = read_ledger_file(path)
        if not entries or len(head) < LEAST_HEAD_DIGITS or not entries[-1].hash.startswith(head):
            what = f"does not end with an entry {head!r}"
            remedy = "put the newest copy of the ledger back, and name the hash of its last entry"
            raise HomeBrokenError(path, what, remedy)
        (home / COUNTS_FILE).unlink(missing_ok=True)
        make_counts(home, entries)
        return len(entries)


def take_over(home: Path) -> None:
    """Accept a home that was moved, on the word that no newer copy of it exists.

    Its streams end: only their next steps could show whether a later copy released them.

    Raises:
        HomeBrokenError: ledger and counts do not agree.
    """
    with locked_home(home):
        if not (home / HOME_FILE).exists():
            write_durably(home / HOME_FILE, b'{"schema_version": 1}\n')
            sync_folder(home)
        with counts_file.transaction(home / COUNTS_FILE) as connection:
            counts_file.keep_fact(connection, ANCHOR_FACT, anchor_of(home / HOME_FILE))
            inode = inode_of(home / COUNTS_FILE)
            counts_file.keep_fact(connection, INODE_FACT, inode)
