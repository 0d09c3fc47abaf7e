"""What operators ask of a running engine: pause and cancel, as files in the run's folder.

`pause.request` and `cancel.request` say who asked, when and why. The engine reads them between
messages and between steps; a pause holds before the next invitation, a cancel ends the stream for
good. A lifted pause leaves its file, with who lifted it; a cancel cannot be taken back. Whoever may
write into the folder may ask, so the folder belongs to its operators alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from ..engine.rounds import RoundsError

if TYPE_CHECKING:
    from pathlib import Path

PAUSE_FILE: Final = "pause.request"
CANCEL_FILE: Final = "cancel.request"
_UNREADABLE: Final = "a request that cannot be read"
_FILES: Final = (PAUSE_FILE, CANCEL_FILE)


class Wish(StrEnum):
    """What operators want of a run."""

    GO = "go"
    HOLD = "hold"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that somebody asked.

    Attributes:
        asked_by: account and host.
        asked_at: aware UTC.
        reason: in their words; may be empty.
        is_lifted: whether it no longer holds.
    """

    asked_by: str
    asked_at: datetime
    reason: str = ""
    is_lifted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain fields."""
        return {
            "asked_by": self.asked_by,
            "asked_at": self.asked_at.isoformat(),
            "reason": self.reason,
            "is_lifted": self.is_lifted,
        }

    def __str__(self) -> str:
        """Say who, when and why."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.asked_by} at {self.asked_at:%Y-%m-%d %H:%M:%S} UTC{why}"


class RunCancelledError(RoundsError):
    """Somebody asked that the run end; nothing more is charged, and its key is destroyed.

    Attributes:
        request: who asked, and when.
    """

    def __init__(self, request: Request) -> None:
        """Say who asked."""
        self.request = request
        super().__init__(
            f"the run was cancelled by {request}; what was released stays in the ledger, nothing "
            "more is charged, and the stream's key is destroyed; start a new run with another --out"
        )


class RequestUnclearError(RoundsError):
    """Nobody can tell what is asked of a run, so that it goes on holding.

    Attributes:
        where: the file.
    """

    exit_code = 3

    def __init__(self, where: object) -> None:
        """Say which file, and what to do."""
        self.where = str(where)
        super().__init__(
            f"{where}: cannot be read, and the run holds until it can; if nobody wants the run to "
            "end, remove the file and resume again, else ask anew with fedcell rounds cancel"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What has been asked of a run so far.

    Attributes:
        pause: the last pause, lifted or not; None for none.
        cancel: None for none.
        unreadable: names of files that are there and cannot be read: the run then waits for a
            person.
    """

    pause: Request | None = None
    cancel: Request | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def wish(self) -> Wish:
        """What they come to: a cancel outweighs a pause; what is unclear destroys nothing."""
        if self.cancel is not None:
            return Wish.CANCEL
        if self.unreadable or (self.pause is not None and not self.pause.is_lifted):
            return Wish.HOLD
        return Wish.GO

    @property
    def holder(self) -> str:
        """Who holds the run, in words; empty where nobody does."""
        if self.wish is not Wish.HOLD:
            return ""
        if self.unreadable or self.pause is None:
            return f"{_UNREADABLE} ({', '.join(self.unreadable)})"
        return str(self.pause)


def read_requests(folder: Path) -> Requests:
    """Read what has been asked of a run."""
    found = {name: _read(folder / name) for name in _FILES}
    return Requests(
        pause=found[PAUSE_FILE][0],
        cancel=found[CANCEL_FILE][0],
        unreadable=tuple(name for name, (_, is_clear) in found.items() if not is_clear),
    )


def ask_pause(folder: Path, request: Request) -> None:
    """Ask a run to hold before its next invitation; asked twice, the first one stands.

    Raises:
        RequestUnclearError: something else stands where the request belongs.
    """
    before = read_requests(folder)
    if before.pause is None or before.pause.is_lifted:
        _write(folder / PAUSE_FILE, request)


def lift_pause(folder: Path, request: Request) -> bool:
    """Lift a run's pause, if it has one.

    Args:
        folder: of the run.
        request: who lifts it, and when.

    Returns:
        Whether there was a pause to lift.

    Raises:
        RequestUnclearError: the run holds still, for a file that nobody can read.
    """
    if read_requests(folder).wish is not Wish.HOLD:
        return False
    _write(folder / PAUSE_FILE, replace(request, is_lifted=True))
    after = read_requests(folder)
    if after.unreadable:
        raise RequestUnclearError(folder / after.unreadable[0])
    return True


def ask_cancel(folder: Path, request: Request) -> None:
    """Ask that a run end for good; asked twice, the first one stands.

    Raises:
        RequestUnclearError: something else stands where the request belongs.
    """
    if read_requests(folder).cancel is None:
        _write(folder / CANCEL_FILE, request)


def withdraw_cancel(folder: Path) -> None:
    """Take back a cancel that came too late: the run had come to its own end."""
    (folder / CANCEL_FILE).unlink(missing_ok=True)


def clear_requests(folder: Path) -> None:
    """Forget what was asked of a run that was here before; a new one begins."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


@dataclass(slots=True)
class RequestWatch:
    """Reads a run's requests again where a file has changed, so that a look costs two stats.

    Attributes:
        folder: of the run.
        now: as last read.
    """

    folder: Path
    now: Requests = field(init=False, default=Requests())
    _seen: tuple[object, ...] = field(init=False, default=())

    def look(self) -> Requests:
        """Return what has been asked so far."""
        seen = tuple(_mark_of(self.folder / name) for name in _FILES)
        if seen != self._seen:
            self.now, self._seen = read_requests(self.folder), seen
        return self.now


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno or 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> tuple[Request | None, bool]:
    """Return the request in a file, and whether what is there can be read."""
    try:
        fields = json.loads(path.read_bytes())
        at = datetime.fromisoformat(fields["asked_at"])
        return (
            Request(
                asked_by=str(fields["asked_by"]),
                asked_at=at,
                reason=str(fields.get("reason", "")),
                is_lifted=bool(fields.get("is_lifted", False)),
            ),
            True,
        )
    except FileNotFoundError:
        return None, True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, False


def _write(path: Path, request: Request) -> None:
    fields = {"schema_version": 1, **request.to_json()}
    try:
        write_durably(path, (json.dumps(fields, ensure_ascii=False) + "\n").encode())
    except IsADirectoryError:
        raise RequestUnclearError(path) from None
