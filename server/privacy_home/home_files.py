"""The files of a privacy home: how they are made, and whether they are its own and agree.

The counts are made first and know a name that `home.json` is then to bear; it is written last, once
and never again. So where it stands the counts were there, and are lost if they are not.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

from models.durable_file import sync_folder, write_durably

from . import counts_file
from .counted_answers import has_answers, series_of
from .folder_origin import PUT_BACK, anchor_of, inode_of
from .ledger_file import LEDGER_FILE
from .participation_counts import steps_of
from .privacy_errors import HomeBrokenError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import LedgerEntry

COUNTS_FILE: Final = "participations.db"
HOME_FILE: Final = "home.json"
ANCHOR_FACT: Final = "anchor"
WORST_CASE_FACT: Final = "legacy_entries"
HEAD_FACT: Final = "head"
INODE_FACT: Final = "inode"
_NAME_FACT: Final = "home"
_COUNTED: Final = frozenset({"correlated_release", "count_release"})
REBUILD: Final = (
    f"{PUT_BACK}, or: fedcell privacy ledger --home DIR --rebuild-counts --head HASH; a folder "
    "from which nothing was ever released can be left for a new one"
)


def make_counts(path: Path, entries: Sequence[LedgerEntry]) -> None:
    """Make the counts of a home whose ledger was kept without any, whose counts are lost, or new.

    Args:
        path: the folder; its lock is held.
        entries: of its ledger: every device is charged the worst case of these.
    """
    facts = {
        "schema_version": str(counts_file.SCHEMA_VERSION),
        _NAME_FACT: secrets.token_hex(16),
        ANCHOR_FACT: anchor_of(path / HOME_FILE) if (path / HOME_FILE).exists() else "",
        WORST_CASE_FACT: str(len(entries)),
        HEAD_FACT: head_fact(entries),
    }
    counts_file.create_counts(path / COUNTS_FILE, facts)
    sync_folder(path)


def require_no_loss(path: Path, entries: Sequence[LedgerEntry]) -> None:
    """Refuse a folder without counts that had some: what was spent would be forgotten.

    Args:
        path: the folder.
        entries: of its ledger.

    Raises:
        HomeBrokenError: it had.
    """
    if (path / HOME_FILE).exists() or any(_type_of(entry) in _COUNTED for entry in entries):
        raise HomeBrokenError(path / COUNTS_FILE, "is gone", REBUILD)


def is_home(path: Path) -> bool:
    """Whether a folder holds what only a home does; an empty ledger may be anybody's."""
    ledger = path / LEDGER_FILE
    has_entries = ledger.exists() and ledger.stat().st_size > 0
    return has_entries or any((path / name).exists() for name in (COUNTS_FILE, HOME_FILE))


def require_own_folder(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a folder that is a copy, after the making of a new one has come to its end.

    Raises:
        HomeBrokenError: it was copied, moved or put back, or lacks its `home.json`.
    """
    if not counts_file.fact(connection, ANCHOR_FACT):
        _finish(path, connection)
    known, here = counts_file.fact(connection, INODE_FACT), inode_of(path / COUNTS_FILE)
    is_own = counts_file.fact(connection, ANCHOR_FACT) == anchor_of(path / HOME_FILE)
    if is_own and not known:
        counts_file.keep_fact(connection, INODE_FACT, here)
    elif not is_own or known != here:
        what = "was copied, moved between disks or put back from a backup, and may lack releases"
        remedy = (
            f"{PUT_BACK}; where this surely is the newest: fedcell privacy ledger --home DIR "
            "--accept-moved --head HASH"
        )
        raise HomeBrokenError(path, what, remedy)


def _finish(path: Path, connection: sqlite3.Connection) -> None:
    """Write `home.json` under the name that the new counts know, and note what it is."""
    name = counts_file.fact(connection, _NAME_FACT)
    mark = (json.dumps({"schema_version": 1, "home": name}) + "\n").encode()
    if not (path / HOME_FILE).exists():
        write_durably(path / HOME_FILE, mark)
    if (path / HOME_FILE).read_bytes() == mark:
        counts_file.keep_fact(connection, ANCHOR_FACT, anchor_of(path / HOME_FILE))


def is_behind(path: Path, entries: Sequence[LedgerEntry], connection: sqlite3.Connection) -> bool:
    """Tell whether the counts have yet to note the ledger's last entry, as a crash leaves them.

    Args:
        path: of the ledger.
        entries: of the ledger.
        connection: to the counts.

    Raises:
        HomeBrokenError: the ledger is older than the counts, or the counts are older than it.
    """
    number, _, known = counts_file.fact(connection, HEAD_FACT).partition(":")
    expected = int(number)
    if len(entries) < expected or (expected and entries[expected - 1].hash != known):
        what = f"lacks the entry {expected - 1} that the counts beside it have seen"
        raise HomeBrokenError(path, what, f"{PUT_BACK}; it is older than what was released")
    later = entries[expected:]
    if len(later) > 1 or not all(_is_counted(entry, connection) for entry in later):
        what = f"holds entries from {expected} on that the counts beside it do not know"
        raise HomeBrokenError(path, what, REBUILD)
    return bool(later)


def _is_counted(entry: LedgerEntry, connection: sqlite3.Connection) -> bool:
    """Whether the counts hold what was counted, and made durable, before an entry was written."""
    event = entry.fields["event"]
    if "stream" in event:
        steps = steps_of(connection, event["stream"])
        index = event["index"]
        return index < len(steps) and steps[index].aggregate_digest is not None
    if "channel" in event:
        series = series_of(event["policy_digest"], event["channel"])
        return has_answers(connection, series, event["index"])
    return _type_of(entry) == "public_data"


def head_fact(entries: Sequence[LedgerEntry]) -> str:
    """How far the ledger has come, as the counts note it."""
    return f"{len(entries)}:{entries[-1].hash if entries else ''}"


def _type_of(entry: LedgerEntry) -> str:
    return str(entry.fields["event"].get("type"))
