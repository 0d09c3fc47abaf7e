"""The server's ledger of releases as a file: appended to, synced, verified; never rewritten.

Lines are those of `privacy.ledger`, as runs wrote them from the first version on.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.durable_file import sync_folder
from privacy import LedgerBrokenError, LedgerEntry, next_entry, read_ledger

from .privacy_errors import HomeBrokenError, HomeUnavailableError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from privacy import EntryKind, Event

LEDGER_FILE: Final = "ledger.jsonl"


def read_ledger_file(path: Path) -> tuple[LedgerEntry, ...]:
    """Read and verify a ledger.

    Raises:
        HomeBrokenError: its chain does not verify, or its last line is torn.
        HomeUnavailableError: it cannot be read.
    """
    try:
        text = path.read_bytes().decode("ascii", errors="replace")
    except FileNotFoundError:
        return ()
    except OSError as error:
        remedy = "check the path and its owner"
        raise HomeUnavailableError(path, f"cannot be read ({error.strerror})", remedy) from error
    try:
        return read_ledger(text)
    except LedgerBrokenError as error:
        is_torn = not text.endswith("\n")
        remedy = "put the newest whole copy back; nothing is released on top of a broken ledger"
        if is_torn:
            remedy = "a crash while writing does that: fedcell privacy ledger --home DIR --repair"
        raise HomeBrokenError(path, str(error), remedy) from error


@dataclass(slots=True)
class LedgerFile:
    """A ledger that is appended to; whoever does holds the home's lock.

    Attributes:
        path: of the file.
        entries: as last read, oldest first.
    """

    path: Path
    entries: tuple[LedgerEntry, ...] = ()
    _seen: tuple[int, int, int] | None = field(default=None, init=False)

    @property
    def head(self) -> LedgerEntry | None:
        """The last entry, None while there is none."""
        return self.entries[-1] if self.entries else None

    def catch_up(self) -> None:
        """Read what others have appended meanwhile, and verify the whole chain.

        Raises:
            HomeBrokenError: it does not verify, or an entry that was there is gone.
        """
        state = self._state()
        if state == self._seen:
            return
        before = self.entries
        found = read_ledger_file(self.path)
        if before and (len(found) < len(before) or found[len(before) - 1].hash != before[-1].hash):
            remedy = "put the newest copy back, and open a new stream"
            raise HomeBrokenError(self.path, "lost entries that it had", remedy)
        self.entries, self._seen = found, self._state()

    def append(self, event: Event, *, kind: EntryKind, at: datetime) -> LedgerEntry:
        """Append an entry and return once it is durable; only then may anything leave.

        Raises:
            HomeUnavailableError: the disk refuses; the file is as it was before.
        """
        entry = next_entry(self.head, event, kind=kind, at=at)
        line = (entry.to_line() + "\n").encode("ascii")
        is_new = not self.path.exists()
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            size = os.fstat(handle).st_size
            try:
                _write_whole(handle, line)
                os.fsync(handle)
            except OSError as error:
                # Nothing has left yet, so what is half there may go.
                os.ftruncate(handle, size)
                os.fsync(handle)
                raise _unwritable(self.path, error) from error
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self.path.parent)
        self.entries, self._seen = (*self.entries, entry), self._state()
        return entry

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def torn_tail(path: Path) -> bytes:
    """Return what stands behind the last line end of a ledger; empty for a whole one, or none."""
    content = path.read_bytes() if path.exists() else b""
    return content[content.rfind(b"\n") + 1 :]


def _write_whole(handle: int, line: bytes) -> None:
    """Write a line in one call, so that a process that is killed leaves all of it or nothing."""
    written = os.write(handle, line)
    if written != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(path: Path, error: OSError) -> HomeUnavailableError:
    what = f"cannot be written ({error.strerror})"
    return HomeUnavailableError(path, what, "free space or check its owner, then try again")
