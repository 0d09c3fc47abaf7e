"""Erasing a device: everything that is the owner's goes, the privacy ledger stays.

The ledger (`<store>.ledger`, and its head in `<store>.ledger.head`) accounts for what has left for
ever and must outlive the data. That there was an erasure stands in a file of its own,
`<store>.erased.json`: an entry of the ledger is a mechanism that ran, and an erasure is none. Where
that file is, nothing is ever trained or counted again: `edge_client.privacy.participation`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from glob import escape
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder, write_durably

from ..errors import StoreBusyError, StoreError, StoreForeignError, StoreMissingError
from .access import APPLICATION_ID, JOURNALS, named_errors
from .profile_copy import copy_path, read_profile_copy
from .quarantine import FORMER, files_of, folder_lock, quarantined
from .sqlite_file import ASIDE

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_FORMAT = "fedcell-erasures"
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_APPLICATION_ID_AT = slice(68, 72)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is left of an erased store.

    Attributes:
        device_hash: hex SHA-256 of the device's identifier, None where it could not be known.
        erased_at: when, ISO 8601, UTC.
        ledger_head: hash of the privacy ledger's last entry, None where there is no ledger, or
            where it does not verify.
    """

    device_hash: str | None
    erased_at: str
    ledger_head: str | None


def erase_device(store: Path, *, now: datetime) -> tuple[Path, ...]:
    """Remove a store with all that belongs to it; no key is needed.

    What goes: the store, its journals, damaged stores that were set aside, stores of devices before
    this one, the copy of the profile, the installed models, the server's receipts. What stays: the
    privacy ledgers with their heads, the device's identity, and the lists of erasures; this
    device's gets one entry more. After a crash on the way it can be called again.

    Args:
        store: path of the store.
        now: aware time.

    This process must not have the store open elsewhere.

    Returns:
        What was removed.

    Raises:
        StoreError: there is nothing of ours at `store`; nothing was removed.
        StoreBusyError: its agent or its node runs, or the folder cannot be written.
    """
    copy = read_profile_copy(store)
    if copy is None and not quarantined(store) and not _of_former_devices(store):
        _refuse_foreign_file(store)
    tombstone = Tombstone(
        device_hash=_device_hash(store) if copy is None else copy.device_hash,
        erased_at=now.isoformat(),
        ledger_head=_ledger_head(store),
    )
    from ..link.agent_lock import no_agent
    from ..rounds_node.node_folder import refuse_running_node

    refuse_running_node(store)
    with no_agent(store), folder_lock(store), named_errors(store):
        removed = _remove(_belongings(store))
        _append(store, tombstone)
        # It is what a second call knows the device by.
        removed += _remove([copy_path(store)])
        sync_folder(store.parent)
    return tuple(removed)


def tombstones(store: Path) -> tuple[Tombstone, ...]:
    """Return the erasures at a store's path, the earliest first."""
    try:
        content = json.loads(tombstone_path(store).read_bytes())
        return tuple(Tombstone(**erasure) for erasure in content["erasures"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def tombstone_path(store: Path) -> Path:
    """Return where the list of erasures of a store is."""
    return store.with_name(store.name + ".erased.json")


def ledger_path(store: Path) -> Path:
    """Return where the privacy ledger of a store's device is."""
    return store.with_name(store.name + ".ledger")


def head_path(store: Path) -> Path:
    """Return where the head of the privacy ledger is kept a second time."""
    return store.with_name(store.name + ".ledger.head")


def receipts_path(store: Path) -> Path:
    """Return where the server's receipts for the steps of a store's device are."""
    return store.with_name(store.name + ".receipts.jsonl")


def _refuse_foreign_file(store: Path) -> None:
    """Look at the file's first bytes, without SQLite: it cannot open a store on a full disk."""
    try:
        is_file = store.is_file()
        header = store.read_bytes()[:_HEADER_BYTES] if is_file else b""
    except OSError as error:
        raise StoreBusyError(store, f"cannot be read: {error.strerror}", "check it") from None
    if not is_file and not store.exists():
        raise StoreMissingError(store, "there is no store here", "nothing was removed")
    what = "is the database of another program"
    if not header.startswith(_MAGIC):
        what = "is no SQLite database" if is_file else "is no regular file"
    elif int.from_bytes(header[_APPLICATION_ID_AT], "big") == APPLICATION_ID:
        return
    raise StoreForeignError(store, what, "nothing was removed")


def _belongings(store: Path) -> list[Path]:
    from ..model_store import ModelStore
    from ..provisioning.membership import membership_folder
    from ..rounds_node.node_folder import node_folder

    endings = ("", *JOURNALS, "-journal")
    names = [store.name + middle + ending for middle in ("", ASIDE) for ending in endings]
    damaged = [file for found in quarantined(store) for file in files_of(found)]
    # A process that was killed while it wrote leaves what it had.
    halves = [
        half
        for whole in (
            copy_path(store),
            tombstone_path(store),
            receipts_path(store),
            ledger_path(store),
            head_path(store),
        )
        for half in store.parent.glob(f".{escape(whole.name)}.*.part")
    ]
    former = _of_former_devices(store)
    return [
        *map(store.with_name, names),
        *damaged,
        *halves,
        *former,
        ModelStore.beside(store).folder,
        membership_folder(store),
        node_folder(store),
        receipts_path(store),
    ]


def _of_former_devices(store: Path) -> list[Path]:
    """Return what `init --new-device` has set aside, without ledgers and lists of erasures."""
    stays = {file(store).name for file in (ledger_path, head_path, tombstone_path)}
    found = []
    for folder in sorted(store.parent.glob(f"{escape(store.name)}{FORMER}*")):
        if not folder.is_dir():
            continue
        kept = stays & {file.name for file in folder.iterdir()}
        found += [file for file in folder.iterdir() if file.name not in kept] if kept else [folder]
    return found


def _remove(paths: list[Path]) -> list[Path]:
    removed = []
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        removed.append(path)
    return removed


def _append(store: Path, tombstone: Tombstone) -> None:
    erasures: list[dict[str, Any]] = [asdict(said) for said in (*tombstones(store), tombstone)]
    content = {"format": _FORMAT, "version": 1, "erasures": erasures}
    write_durably(tombstone_path(store), f"{json.dumps(content, indent=1)}\n".encode())


def _device_hash(store: Path) -> str | None:
    """Read the device's identifier from a store that is older than the copies of profiles."""
    from ..telemetry_store import TelemetryStore
    from .profile_copy import hash_of_device

    try:
        with TelemetryStore(store) as found:
            return hash_of_device(found.profile.device_id)
    except StoreError:
        return None


def _ledger_head(store: Path) -> str | None:
    from privacy.errors import LedgerBrokenError
    from privacy.ledger import read_ledger

    try:
        entries = read_ledger(ledger_path(store).read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError, LedgerBrokenError):
        return None
    return entries[-1].hash if entries else None
