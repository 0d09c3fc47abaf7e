"""What a reading must be to be stored, and how it is packed and unpacked."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from models.telemetry import (
    MEASUREMENT_NAMES,
    MEASUREMENTS,
    SECONDS_PER_DAY,
    Reading,
    Telemetry,
)

from .errors import ReadingRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK_TOLERANCE_S = SECONDS_PER_DAY

_PACKED = struct.Struct(f"<{len(MEASUREMENTS)}f")
PACKED_BYTES = _PACKED.size
_MEASURED = attrgetter(*MEASUREMENT_NAMES)
_RANGES = tuple((measurement.low, measurement.high) for measurement in MEASUREMENTS)


def checked_reading(
    reading: Reading, *, at_s: float, now_s: float, made_at_s: float
) -> bytes | ReadingRefusedError:
    """Return a reading as it is stored, or the first rule that it breaks.

    Args:
        reading: what the gauge said.
        at_s: its time, seconds since the Unix epoch.
        now_s: the device's time.
        made_at_s: when the device was made.
    """
    values, measured = [], False
    for value, (low, high) in zip(_MEASURED(reading), _RANGES, strict=True):
        if value is None:
            values.append(math.nan)
            continue
        if low <= value <= high:
            measured = True
        elif not math.isnan(value):
            return _out_of_range(len(values), value)
        values.append(value)
    if not measured:
        return ReadingRefusedError(
            "nothing_measured", "no measurement has a value; give one or more"
        )
    if at_s > now_s + CLOCK_TOLERANCE_S:
        return ReadingRefusedError(
            "in_the_future",
            f"at {reading.at.isoformat()} is more than a day after now, {_iso(now_s)};"
            " check the clock, or give the device's time as --now",
        )
    if at_s < made_at_s - CLOCK_TOLERANCE_S:
        return ReadingRefusedError(
            "before_manufacture",
            f"at {reading.at.isoformat()} is before the device was made, {_iso(made_at_s)};"
            " check the clock, and manufactured_at of the profile",
        )
    return _PACKED.pack(*values)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


def _out_of_range(column: int, value: float) -> ReadingRefusedError:
    measurement = MEASUREMENTS[column]
    return ReadingRefusedError(
        f"out_of_range:{measurement.name}",
        f"{measurement.name} must be {measurement.low:g} to {measurement.high:g}"
        f" {measurement.unit}, got {value:g}; correct it, or leave it out",
    )


def readings_of(telemetry: Telemetry) -> Iterator[Reading]:
    """Return a table's readings one by one, in its order, NaN as None.

    Args:
        telemetry: readings of one device; a table of several mixes them.
    """
    for at_s, row in zip(telemetry.at_s.tolist(), telemetry.values.tolist(), strict=True):
        values = {
            name: None if math.isnan(value) else value
            for name, value in zip(MEASUREMENT_NAMES, row, strict=True)
        }
        yield Reading(at=datetime.fromtimestamp(at_s, UTC), **values)
