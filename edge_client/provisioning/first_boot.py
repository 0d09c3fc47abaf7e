"""A device's first minutes: its keys, its store, and what is done with those of another device.

A factory flashes one image to all devices. What makes a device one of its kind is made here, at
first boot: it may be asked for at every boot, and a crash at any point leaves nothing half-made.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from models.durable_file import sync_folder

from ..errors import IdentityError, StoreBusyError, StoreError
from ..link.agent_lock import lock_path, no_agent
from ..privacy.ledger_file import enrol, owner_of_ledger
from ..rounds_node.node_folder import node_folder, refuse_running_node
from ..store.erasure import head_path, ledger_path, tombstone_path, tombstones
from ..store.profile_copy import hash_of_device, read_profile_copy
from ..store.quarantine import FORMER
from ..telemetry_store import TelemetryStore
from .identity import (
    IDENTITY_FACT,
    hardware_hash,
    identity_path,
    make_identity,
    own_identity,
    read_identity,
    require_hardware,
)
from .membership import membership_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from models.telemetry import DeviceProfile

    from ..store.row_cipher import KeySource


def boot_first(
    path: Path,
    profile: DeviceProfile,
    *,
    hardware_id: bytes | None,
    make_store: Callable[[], TelemetryStore],
    now: datetime,
    key: KeySource | None = None,
    may_exist: bool = False,
) -> bool:
    """Make identity, store and privacy ledger of a new device; what is there already is kept.

    Args:
        path: of the store.
        profile: of the device.
        hardware_id: from `read_hardware_id`.
        make_store: makes the store, and opens it.
        now: aware time.
        key: the store is sealed under, where it exists.
        may_exist: whether a store of the same profile is fine.

    Returns:
        Whether the store was made now.

    Raises:
        CloneError: store or identity come from another device.
        IdentityError: the identity cannot be made or read.
        StoreError: there is a store already, or it is another device's.
        LedgerUnwritableError: the disk refuses the ledger; a first consent to training makes it.
    """
    _sweep(path)
    if path.exists():
        _require_same(path, profile, hardware_id=hardware_id, key=key, may_exist=may_exist)
        return False
    # First the keys: a store without an identity is one from before there were any.
    make_identity(path, device_id=profile.device_id, hardware_id=hardware_id)
    with make_store() as store:
        own_identity(store, device_id=profile.device_id, hardware_id=hardware_id)
        enrol(store, now=now)
    return True


def add_identity(store: TelemetryStore, *, hardware_id: bytes | None) -> bool:
    """Give an existing store an identity, and tell whether it was made now.

    Raises:
        CloneError: store or identity come from another device.
        IdentityError: it had one that is missing, or the new one cannot be written.
    """
    device_id = store.profile.device_id
    if own_identity(store, device_id=device_id, hardware_id=hardware_id) is not None:
        return False
    identity, made = make_identity(store.path, device_id=device_id, hardware_id=hardware_id)
    store.keep_fact(IDENTITY_FACT, identity.key_id)
    return made


def is_made_here(path: Path, *, hardware_id: bytes | None, may_exist: bool) -> bool:
    """Tell whether the identity at a store's path was made on this very hardware.

    Args:
        path: of the store.
        hardware_id: from `read_hardware_id`.
        may_exist: whether a store that was made here is fine.

    Returns:
        False where it is another device's, or nothing says whose it is: it can be retired.

    Raises:
        StoreError: store and identity were made here, and `may_exist` is false.
    """
    with suppress(IdentityError):
        identity = read_identity(path)
        if identity is None or identity.hardware is None or hardware_id is None:
            return False
        if identity.hardware != hardware_hash(hardware_id):
            return False
        if path.exists() and not may_exist:
            remedy = "leave --new-device out; to empty it: fedcell-device erase --yes"
            raise StoreError(path, "was made on this hardware: this is no new device", remedy)
        return True
    return False


def retire(path: Path, *, device_id: str, erase: bool) -> Path | None:
    """Take store and identity of another device away, so that a new one begins afresh.

    The other device's keys are removed in any case: they are not this device's to keep. A privacy
    ledger and a list of erasures stay where they are unless they are known to be of another device
    than the new one: what a device has spent is spent. May be asked for again after a crash.

    Args:
        path: of the store.
        device_id: of the new device.
        erase: whether the rest is removed, too, instead of set aside.

    Returns:
        The folder of what was set aside, None where nothing was.

    Raises:
        StoreBusyError: its agent runs, or the folder cannot be written.
    """
    refuse_running_node(path)
    with no_agent(path):
        return _retire(path, device_id=device_id, erase=erase)


def _retire(path: Path, *, device_id: str, erase: bool) -> Path | None:
    stays = {ledger_path(path), head_path(path), tombstone_path(path)}
    kept = set() if _is_of_another(path, device_id) else stays
    try:
        identity_path(path).unlink(missing_ok=True)
        shutil.rmtree(membership_folder(path), ignore_errors=True)
        shutil.rmtree(node_folder(path), ignore_errors=True)
        _close_journal(path)
        belongings = [one for one in _belongings(path) if one not in kept]
        if not belongings:
            return None
        folder = None if erase else _new_folder(path)
        for one in belongings:
            if folder is not None:
                one.rename(folder / one.name)
            elif one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink()
        sync_folder(path.parent)
    except OSError as error:
        what = f"cannot be taken away: {error.strerror}"
        raise StoreBusyError(path, what, "check the folder and the disk") from error
    return folder


def _require_same(
    path: Path,
    profile: DeviceProfile,
    *,
    hardware_id: bytes | None,
    key: KeySource | None,
    may_exist: bool,
) -> None:
    identity = read_identity(path)
    if identity is not None:
        require_hardware(identity, identity_path(path), hardware_id=hardware_id)
    if not may_exist:
        remedy = "choose another path, or remove it first; --first-boot accepts it"
        raise StoreError(path, "exists already", remedy)
    with TelemetryStore(path, key=key) as store:
        kept, wanted = asdict(store.profile), asdict(profile)
        other = ", ".join(name for name in wanted if kept[name] != wanted[name])
        if other:
            remedy = "give the profile that it was made with, or --new-device"
            raise StoreError(path, f"belongs to another profile ({other})", remedy)
        own_identity(store, device_id=profile.device_id, hardware_id=hardware_id)


def _is_of_another(path: Path, device_id: str) -> bool:
    # Ledger and list go before the copy of the profile: also after a crash it tells whose they are.
    copy, erasures = read_profile_copy(path), tombstones(path)
    said = {copy and copy.device_hash, *(erasure.device_hash for erasure in erasures)}
    said = (said | {owner_of_ledger(path)}) - {None}
    return bool(said) and hash_of_device(device_id) not in said


def _belongings(path: Path) -> list[Path]:
    """Return the store's files, journals first: a journal must not outlive its database."""
    beside = [
        *path.parent.glob(f"{path.name}-*"),
        *path.parent.glob(f"{path.name}.*"),
        *path.parent.glob(f".{path.name}.*.part"),
    ]
    stays = (path.name + FORMER, lock_path(path).name)
    kept = [one for one in sorted(beside) if not one.name.startswith(stays)]
    return kept + ([path] if path.exists() or path.is_symlink() else [])


def _sweep(path: Path) -> None:
    """Remove halves of files that a crash has left; the files themselves are whole or not there."""
    with suppress(OSError):
        for half in path.parent.glob(f".{path.name}.*.part"):
            half.unlink(missing_ok=True)


def _new_folder(path: Path) -> Path:
    number = 1
    while (folder := path.with_name(f"{path.name}{FORMER}{number}")).exists():
        number += 1
    folder.mkdir(mode=0o700)
    return folder


def _close_journal(path: Path) -> None:
    """Bring the journal into the database where it is one; a damaged one is taken as it is."""
    if not path.is_file():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def identity_line(path: Path) -> dict[str, dict[str, str]]:
    """Return the public halves of a store's identity, as the server's file takes them.

    Raises:
        IdentityError: there is none.
    """
    identity = read_identity(path)
    if identity is None:
        remedy = "make one: fedcell-device init --identity"
        raise IdentityError(identity_path(path), "there is no identity", remedy)
    return identity.public()
