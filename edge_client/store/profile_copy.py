"""A small file beside a store, with what a fresh store would begin with if this one were damaged.

It is written when the store is made and when one of its values changes, aside and renamed. It says
by itself whether it is whole; beside a sealed store its values are sealed under the same key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.durable_file import write_durably

from ..errors import StoreDamagedError
from .access import named_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .row_cipher import Rows

COPIED = ("profile", "language", "quiet_hours", "retention_days", "max_store_bytes")
"""The named values that are copied."""

_FORMAT = "fedcell-store-profile"
_PLACE = "profile_copy"


@dataclass(frozen=True, slots=True)
class ProfileCopy:
    """The file as it was read.

    Attributes:
        device_hash: hex SHA-256 of the device's identifier.
        is_sealed: whether the values are sealed.
        content: the values as the file keeps them.
        proof: what proves them, None where they are sealed.
    """

    device_hash: str
    is_sealed: bool
    content: str
    proof: object

    def facts(self, rows: Rows) -> dict[str, Any] | None:
        """Return the named values, None where the file is damaged or sealed under another key.

        Args:
            rows: of the store that it belongs to.
        """
        if rows.is_sealed is not self.is_sealed:
            return None
        try:
            if self.is_sealed:
                text = rows.open_text(bytes.fromhex(self.content), _PLACE)
            else:
                text = self.content
                rows.check(self.proof, _PLACE, text)
            facts = json.loads(text)
        except (StoreDamagedError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None


def copy_path(store: Path) -> Path:
    """Return where the copy of a store's profile is."""
    return store.with_name(store.name + ".profile.json")


def hash_of_device(device_id: str) -> str:
    """Return what stands for a device's identifier where no key can be asked for."""
    import hashlib

    return hashlib.sha256(device_id.encode()).hexdigest()


def write_profile_copy(store: Path, facts: Mapping[str, Any], rows: Rows) -> None:
    """Write the copy durably; the one before is there until the new one is whole.

    Args:
        store: path of the store.
        facts: its named values; those in `COPIED` are kept.
        rows: how the store keeps its rows.

    Raises:
        StoreBusyError: the folder cannot be written.
    """
    text = json.dumps({name: facts[name] for name in COPIED if name in facts})
    sealed = rows.seal_text(text, _PLACE)
    content = {
        "format": _FORMAT,
        "version": 1,
        "device_hash": hash_of_device(facts["profile"]["device_id"]),
        "sealed": rows.is_sealed,
        "facts": sealed.hex() if isinstance(sealed, bytes) else sealed,
        "proof": None if rows.is_sealed else rows.proof(_PLACE, text),
    }
    with named_errors(store):
        write_durably(copy_path(store), f"{json.dumps(content)}\n".encode())
        copy_path(store).chmod(0o600)


def read_profile_copy(store: Path) -> ProfileCopy | None:
    """Read the copy beside a store, None where there is none that could be read."""
    try:
        value = json.loads(copy_path(store).read_bytes())
        if value["format"] != _FORMAT:
            return None
        return ProfileCopy(
            device_hash=str(value["device_hash"]),
            is_sealed=bool(value["sealed"]),
            content=str(value["facts"]),
            proof=value["proof"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
