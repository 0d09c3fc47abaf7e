"""A recording played back: each reading comes when its time has come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ...errors import ReadingRefusedError
from ...sensors import numbered_readings_in

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from models.telemetry import Reading

NO_SHIFT = timedelta(0)


class CsvReplay:
    """Gives the readings of a file (CSV or JSON lines), in its order, one a call.

    Args:
        path: the file, as `fedcell-device record FILE` takes it.
        device_id: whose readings these must be; None takes any.
        shift: added to the time of each reading, to play an old recording today.

    Raises:
        InputMissingError: there is no such file.
        InputError: it is empty.
    """

    def __init__(
        self, path: Path, *, device_id: str | None = None, shift: timedelta = NO_SHIFT
    ) -> None:
        self._rows = numbered_readings_in(path, device_id=device_id)
        self._shift = shift
        self._next: Reading | ReadingRefusedError | None = None
        self._advance()

    @property
    def has_ended(self) -> bool:
        """Whether every reading was given."""
        return self._next is None

    def read(self, now: datetime) -> Reading | None:
        """Return the next reading, None where its time lies ahead or the file is at its end.

        Raises:
            ReadingRefusedError: its time has no zone; the next call goes on behind it.
            InputError: a line of the file cannot be read.
        """
        due = self._next
        if due is None:
            return None
        if isinstance(due, ReadingRefusedError):
            self._advance()
            raise due
        if due.at + self._shift > now:
            return None
        self._advance()
        return replace(due, at=due.at + self._shift)

    def _advance(self) -> None:
        self._next = next((reading for _, reading in self._rows), None)
