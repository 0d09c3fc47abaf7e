"""What a reading must be to be stored, and how it is packed and unpacked."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from operator import attrgetter, le
from typing import TYPE_CHECKING
from zlib import crc32

from models.telemetry import (
    MEASUREMENT_NAMES,
    MEASUREMENTS,
    SECONDS_PER_DAY,
    Reading,
    Telemetry,
)

from ..errors import ReadingRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK_TOLERANCE_S = SECONDS_PER_DAY

_CLOCK_TOLERANCE = timedelta(seconds=CLOCK_TOLERANCE_S)
_PACKED = struct.Struct(f"<{len(MEASUREMENTS)}f")
PACKED_BYTES = _PACKED.size
_CHECKSUM = struct.Struct("<I")
_CRC_MASK = 0xFFFFFFFF
_MEASURED = attrgetter(*MEASUREMENT_NAMES)
_LOWS = tuple(measurement.low for measurement in MEASUREMENTS)
_HIGHS = tuple(measurement.high for measurement in MEASUREMENTS)


def checked_reading(
    reading: Reading, *, now: datetime, made_at: datetime
) -> bytes | ReadingRefusedError:
    """Return a reading as it is stored, or the first rule that it breaks.

    Args:
        reading: what the gauge said.
        now: the device's time.
        made_at: when the device was made.
    """
    packed = packed_values(reading)
    if not isinstance(packed, bytes):
        return packed
    if reading.at > now + _CLOCK_TOLERANCE:
        return ReadingRefusedError(
            "in_the_future",
            f"at {reading.at.isoformat()} is more than a day after now, {now.isoformat()};"
            " check the clock, or give the device's time as --now",
        )
    if reading.at < made_at - _CLOCK_TOLERANCE:
        return ReadingRefusedError(
            "before_manufacture",
            f"at {reading.at.isoformat()} is before the device was made, {made_at.isoformat()};"
            " check the clock, and manufactured_at of the profile",
        )
    return packed


def packed_values(reading: Reading) -> bytes | ReadingRefusedError:
    """Return what was measured as it is stored, or the first rule that it breaks."""
    found = _MEASURED(reading)
    # Most readings are whole, and a loop in Python takes as long as SQLite's part of the write.
    if None not in found and all(map(le, _LOWS, found)) and all(map(le, found, _HIGHS)):
        return _PACKED.pack(*found)
    values = [math.nan if value is None else value for value in found]
    for column, value in enumerate(values):
        if not (_LOWS[column] <= value <= _HIGHS[column] or math.isnan(value)):
            return _out_of_range(column, value)
    if all(map(math.isnan, values)):
        return ReadingRefusedError(
            "nothing_measured", "no measurement has a value; give one or more"
        )
    return _PACKED.pack(*values)


def with_checksum(packed: bytes, at_s: int) -> bytes:
    """Return packed values as a store in the clear keeps them: with a CRC-32 of time and values."""
    return packed + _CHECKSUM.pack(crc32(packed, at_s & _CRC_MASK))


def without_checksum(stored: bytes, at_s: int) -> bytes:
    """Return the packed values behind what a store in the clear keeps.

    Rows from before there were checksums prove nothing, and are taken as they are.

    Args:
        stored: from the store.
        at_s: when the reading was made, as it stands beside them.

    Returns:
        Nothing, b"", where they are not what was kept.
    """
    packed = stored[:PACKED_BYTES]
    checksum = stored[PACKED_BYTES:]
    if checksum and checksum != _CHECKSUM.pack(crc32(packed, at_s & _CRC_MASK)):
        return b""
    return packed


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
