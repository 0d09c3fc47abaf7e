"""A device's ledger and erasures beside another store of the same folder.

What a device has spent is spent wherever its next store is made: a store of another name does not
begin a new account. Another folder, disk or identifier is not seen from here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..store.erasure import head_path, tombstone_path, tombstones
from ..store.profile_copy import read_profile_copy
from ..store.quarantine import FORMER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = ".ledger.head"
_ERASED = ".erased.json"


def ledger_elsewhere(path: Path) -> Path | None:
    """Return the head of a ledger of the same device beside another store, None where none is.

    Args:
        path: of the device's store.
    """
    device_hash = _device_hash(path)
    if device_hash is None:
        return None
    others = (file for file in _beside(path, _HEAD) if file != head_path(path))
    return next((file for file in others if _hash_in_head(file) == device_hash), None)


def erasure_of(path: Path) -> Path | None:
    """Return the list in which an erasure of the device stands, None where it was never erased.

    Args:
        path: of the device's store; a list beside it holds whoever it names.
    """
    own = tombstone_path(path)
    if own.exists():
        return own
    device_hash = _device_hash(path)
    if device_hash is None:
        return None
    for file in _beside(path, _ERASED):
        said = tombstones(file.with_name(file.name.removesuffix(_ERASED)))
        if any(one.device_hash == device_hash for one in said):
            return file
    return None


def _beside(path: Path, ending: str) -> Iterator[Path]:
    yield from sorted(path.parent.glob(f"*{ending}"))
    yield from sorted(path.parent.glob(f"*{FORMER}*/*{ending}"))


def _device_hash(path: Path) -> str | None:
    copy = read_profile_copy(path)
    return None if copy is None else copy.device_hash


def _hash_in_head(file: Path) -> str | None:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    said = value.get("device_hash") if isinstance(value, dict) else None
    return said if isinstance(said, str) else None
