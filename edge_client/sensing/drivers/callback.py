"""A gauge that firmware reads itself: a function that returns named measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ReadingRefusedError, SensorError
from ...sensors import reading_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from models.telemetry import Reading

WHERE = "the sensor's function"


class CallbackSensor:
    """Asks a function for each reading.

    Args:
        measure: returns measurements by name, as `fedcell-device record` takes them, and `at` where
            the gauge has a clock of its own; None where there is nothing to tell now.
    """

    def __init__(self, measure: Callable[[], Mapping[str, object] | None]) -> None:
        self._measure = measure

    def read(self, now: datetime) -> Reading | None:
        """Return what the function gives, dated `now` where it says nothing else.

        Raises:
            SensorError: the function failed, or what it gave is no reading.
            ReadingRefusedError: its time has no zone.
        """
        try:
            fields = self._measure()
        except Exception as error:
            what = f"failed with {type(error).__name__}: {error}"
            raise SensorError(WHERE, what, "see the driver") from error
        if fields is None:
            return None
        made = reading_of({"at": now.isoformat()} | dict(fields), where=WHERE)
        if isinstance(made, ReadingRefusedError):
            raise made
        return made
