"""Whether a folder of files is the one where they were made, or a copy put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .privacy_errors import HomeBrokenError

if TYPE_CHECKING:
    from pathlib import Path

PUT_BACK: Final = "put the newest copy of the whole folder back"


def anchor_of(path: Path) -> str:
    """Return what tells a file that is not touched again from every copy of it.

    Neither number can be set: a copy, a restored backup or an unpacked archive has others.

    Raises:
        HomeBrokenError: it is gone.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise HomeBrokenError(path, "is gone", PUT_BACK) from None
    return f"{found.st_ino}:{found.st_ctime_ns}"


def inode_of(path: Path) -> str:
    """Return what SQLite keeps of a file that it writes, and a file put in its place differs in."""
    return str(path.stat().st_ino)
