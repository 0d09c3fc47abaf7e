"""Files that appear whole or not at all, and that a power cut does not take back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .errors import PlaceRefusedError

if TYPE_CHECKING:
    from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file aside, sync it, rename it into place, and sync the folder.

    Raises:
        PlaceRefusedError: something that is no regular file is at `path`.
        OSError: the folder or the disk refuses; what was at `path` before is still there.
    """
    refuse_special_file(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def refuse_special_file(path: Path) -> None:
    """Refuse a place that a rename would take from a device, a pipe, a socket or a folder.

    Raises:
        PlaceRefusedError: something that is no regular file is there.
    """
    if path.exists() and not path.is_file():
        what = f"cannot be written (it is {'a folder' if path.is_dir() else 'no regular file'})"
        raise PlaceRefusedError(path, what, "choose another place")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: files that were made, renamed or removed there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
