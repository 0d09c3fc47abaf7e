"""Readings of any cadence, gathered into one row a device and day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .rolling import sorted_median, window_median
from .telemetry import COLUMN, SECONDS_PER_DAY, day_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .telemetry_audit import AuditedTelemetry

NEW_PACK_RISE = 0.08
NEW_PACK_RISE_WITHOUT_COUNTER = 0.20
NEW_PACK_COUNTER_SHARE = 0.5
MEMORY_DAYS = 7
MOST_A_DAY_IN_A_TABLE = 32


DAY_VALUES = (
    "num_capacities",
    "num_capacities_refused",
    "capacity_mah",
    "charge_duration_min",
    "temp_max_c",
    "temp_avg_c",
    "resistance_mohm",
    "usage_hours",
    "usage_covered_days",
    "cycles",
    "cycles_covered_days",
    "shutdowns",
    "cycle_counter",
)
"""What one device's day comes to, in the order of `DailyGrid.values`."""


@dataclass(frozen=True, slots=True, eq=False)
class DailyGrid:
    """One row a device and day, from its first to its last day; NaN = nothing measured.

    A day is a UTC day: the 24 hours up to a midnight, its end included. Row arrays have shape
    (n_rows,).

    Attributes:
        device: int, index of the device.
        as_of_s: int64, end of the day, seconds since the epoch; of a day that still runs: now.
        pack_start: int, first row of the battery pack that the row belongs to.
        device_start: int, first row of the device.
        first_at_s: int64, first reading of the device.
        last_at_s: int64, latest reading at or before `as_of_s`.
        values: float64, shape (n_values, n_rows), in the order of `DAY_VALUES`: valid capacities
            and those out of range in the day (counts), capacity (median, mAh), charge duration
            (mean, min), highest and mean temperature (°C), resistance (median, mΩ), usage hours
            (sum) and the days covered by the readings that tell them (each at most one), growth of
            the cycle counter and the days since it was read before, growth of the shutdown counter,
            and what the cycle counter showed last.
        cycle_count: float64, growth of the cycle counter since the pack was new.
        row_of_reading: int, shape (n_readings,).
    """

    device: NDArray[np.intp]
    as_of_s: NDArray[np.int64]
    pack_start: NDArray[np.intp]
    device_start: NDArray[np.intp]
    first_at_s: NDArray[np.int64]
    last_at_s: NDArray[np.int64]
    values: NDArray[np.float64]
    cycle_count: NDArray[np.float64]
    row_of_reading: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.device)

    @property
    def capacity_mah(self) -> NDArray[np.float64]:
        """Median capacity of each day, mAh."""
        return _row(self.values, "capacity_mah")

    @property
    def resistance_mohm(self) -> NDArray[np.float64]:
        """Median resistance of each day, milliohm."""
        return _row(self.values, "resistance_mohm")

    @property
    def shutdowns(self) -> NDArray[np.float64]:
        """Growth of the shutdown counter on each day."""
        return _row(self.values, "shutdowns")


def daily_grid(
    audited: AuditedTelemetry,
    design_capacity_mah: NDArray[np.float64],
    *,
    until_s: int | None = None,
) -> DailyGrid:
    """Gather readings into days.

    Args:
        audited: readings that passed the audit.
        design_capacity_mah: shape (n_devices,), mAh.
        until_s: rows go on to the day of this moment, the last one up to it; None ends each device
            with the day of its last reading.
    """
    telemetry = audited.telemetry
    device = telemetry.device_of_row()
    day = day_of(telemetry.at_s)
    lasting = np.flatnonzero(np.diff(telemetry.offsets))
    first_reading = telemetry.offsets[:-1][lasting]
    final_reading = telemetry.offsets[1:][lasting] - 1
    first_day, last_day = day[first_reading], day[final_reading]
    if until_s is not None:
        last_day = np.maximum(last_day, day_of(until_s))
    length = last_day - first_day + 1
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.intp)
    num_rows = int(start[-1])
    row_device = np.repeat(lasting, length)
    device_start = np.repeat(start[:-1], length)
    as_of_s = (np.arange(num_rows) - device_start + np.repeat(first_day, length)) * SECONDS_PER_DAY
    if until_s is not None:
        as_of_s = np.minimum(as_of_s, until_s)

    start_of_device = np.zeros(len(telemetry.device_ids), np.intp)
    first_of_device = np.zeros(len(telemetry.device_ids), np.int64)
    start_of_device[lasting], first_of_device[lasting] = start[:-1], first_day
    row = (start_of_device[device] + day - first_of_device[device]).astype(np.intp)
    values = day_values(audited, device, row, num_rows)
    counter = values[DAY_VALUES.index("cycle_counter")]
    capacity = values[DAY_VALUES.index("capacity_mah")] / design_capacity_mah[row_device]
    pack_start = pack_starts(capacity, counter, device_start)
    reading_rows = np.searchsorted(row, np.arange(num_rows), side="right")
    return DailyGrid(
        device=row_device,
        as_of_s=as_of_s.astype(np.int64),
        pack_start=pack_start,
        device_start=device_start,
        first_at_s=np.repeat(telemetry.at_s[first_reading], length),
        last_at_s=telemetry.at_s[np.maximum(reading_rows - 1, 0)] if len(row) else as_of_s,
        values=values,
        cycle_count=_cycles_since_new(
            counter, values[DAY_VALUES.index("cycles")], pack_start, device_start
        ),
        row_of_reading=row,
    )


def _row(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values[DAY_VALUES.index(name)]
    return found


def day_values(
    audited: AuditedTelemetry, device: NDArray[np.intp], row: NDArray[np.intp], num_rows: int
) -> NDArray[np.float64]:
    """Gather what readings say into rows.

    Args:
        audited: readings that passed the audit.
        device: shape (n_readings,), index of the device of each reading.
        row: shape (n_readings,), row of each reading, growing.
        num_rows: rows to fill; one without readings is NaN, its counts 0.

    Returns:
        Shape (n_values, num_rows), in the order of `DAY_VALUES`.
    """
    measured = audited.telemetry.values.T.astype(np.float64)
    capacity, counter, charge, temp_max, temp_avg, _, usage, resistance = measured
    covered = np.minimum(_days_since_previous(audited.telemetry.at_s, device), 1.0)
    usage = np.where(np.isfinite(covered), usage, np.nan)
    has_counter = np.isfinite(counter)
    read = np.flatnonzero(has_counter)
    counted_days = np.full(len(row), np.nan)
    counted_days[read] = _days_since_previous(audited.telemetry.at_s[read], device[read])
    summed = np.stack(
        [
            np.isfinite(capacity),
            audited.capacity_refused,
            charge,
            temp_avg,
            usage,
            np.where(np.isfinite(usage), covered, np.nan),
            audited.growth[:, COLUMN["charge_cycle_count"]],
            counted_days,
            audited.growth[:, COLUMN["unexpected_shutdown_count"]],
        ]
    )
    begins = np.concatenate([_ZERO, np.flatnonzero(row[1:] != row[:-1]) + 1])[: len(row)]
    filled = row[begins]
    found = np.full((len(DAY_VALUES), num_rows), np.nan)
    found[:2] = 0.0
    if len(begins):
        present = np.isfinite(summed)
        total = np.add.reduceat(np.where(present, summed, 0.0), begins, axis=1)
        number = np.add.reduceat(present, begins, axis=1, dtype=np.float64)
        total[number == 0] = np.nan
        mean = total[2:4] / np.maximum(number[2:4], 1)
        highest = np.fmax.reduceat(temp_max, begins)
        found[:2, filled] = total[:2]
        found[_SUMMED[:, None], filled] = total[4:]
        found[_MEAN[:, None], filled] = mean
        found[DAY_VALUES.index("temp_max_c"), filled] = highest
    both = np.concatenate([row, row + num_rows])
    medians = _daily_median(both, np.concatenate([capacity, resistance]), 2 * num_rows)
    found[_MEDIAN] = medians.reshape(2, num_rows)
    found[DAY_VALUES.index("cycle_counter"), row[read]] = counter[read]
    return found


_MEDIAN = [DAY_VALUES.index(name) for name in ("capacity_mah", "resistance_mohm")]
_ZERO = np.zeros(1, np.intp)
_MEAN = np.array([DAY_VALUES.index(name) for name in ("charge_duration_min", "temp_avg_c")])
_SUMMED = np.array(
    [
        DAY_VALUES.index(name)
        for name in (
            "usage_hours",
            "usage_covered_days",
            "cycles",
            "cycles_covered_days",
            "shutdowns",
        )
    ]
)


def _days_since_previous(at_s: NDArray[np.int64], device: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the days since the device's reading before; NaN at its first."""
    days = np.full(len(at_s), np.nan)
    days[1:] = (at_s[1:] - at_s[:-1]) / SECONDS_PER_DAY
    days[1:][device[1:] != device[:-1]] = np.nan
    return days


def _daily_median(
    row: NDArray[np.intp], values: NDArray[np.float64], num_rows: int
) -> NDArray[np.float64]:
    present = np.isfinite(values)
    rows, kept = row[present], values[present]
    count = np.bincount(rows, minlength=num_rows)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    most = int(count.max(initial=0))
    if most <= MOST_A_DAY_IN_A_TABLE:
        table = np.full((num_rows, most), np.nan)
        table[rows, np.arange(len(rows)) - first[rows]] = kept
        return sorted_median(table) if most else np.full(num_rows, np.nan)
    ordered = kept[np.lexsort((kept, rows))]
    median = np.full(num_rows, np.nan)
    has = count > 0
    low = first[has] + (count[has] - 1) // 2
    high = first[has] + count[has] // 2
    median[has] = (ordered[low] + ordered[high]) / 2
    return median


def pack_starts(
    capacity: NDArray[np.float64], counter: NDArray[np.float64], device_start: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Find the day on which a new pack was put in, from that day and the days before alone.

    Capacity rises by 8 % of design above the median of the week before, or of the last week with
    readings before an outage, while the cycle counter falls below half; where cycles are not
    counted, by 20 %. In the week after, while its median is still the old pack's, there is no
    second one.
    """
    rows = np.arange(len(capacity))
    earlier = np.maximum(rows - 1, device_start)
    week = window_median(capacity, device_start, MEMORY_DAYS)
    known = np.maximum.accumulate(np.where(np.isfinite(week), rows, -1))[earlier]
    has_week = (known >= device_start) & (rows > device_start)
    rise = np.where(has_week, capacity - week[np.maximum(known, 0)], np.nan)
    seen = np.maximum.accumulate(np.where(np.isfinite(counter), rows, -1))
    previous = seen[earlier]
    has_previous = (previous >= device_start) & (rows > device_start)
    counted = np.where(has_previous, counter[np.maximum(previous, 0)], np.nan)
    with np.errstate(invalid="ignore"):
        counter_fell = counter < NEW_PACK_COUNTER_SHARE * counted
        uncounted = ~np.isfinite(counter) & ~np.isfinite(counted)
        new = (rise > NEW_PACK_RISE) & counter_fell
        new |= (rise > NEW_PACK_RISE_WITHOUT_COUNTER) & uncounted
    found = np.flatnonzero(new)
    again = (np.diff(found) < MEMORY_DAYS) & (np.diff(device_start[found]) == 0)
    new[found[1:][again]] = False
    begins = np.where(new | (rows == device_start), rows, 0)
    starts: NDArray[np.intp] = np.maximum.accumulate(begins)
    return starts


def _cycles_since_new(
    counter: NDArray[np.float64],
    cycles: NDArray[np.float64],
    pack_start: NDArray[np.intp],
    device_start: NDArray[np.intp],
) -> NDArray[np.float64]:
    rows = np.arange(len(counter))
    first_seen = np.minimum.accumulate(np.where(np.isfinite(counter), rows, len(rows))[::-1])[::-1]
    grown: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(np.nan_to_num(cycles))])
    origin = first_seen[device_start] if len(rows) else rows
    known = origin <= rows
    base = np.where(known, np.append(counter, np.nan)[origin], np.nan)
    since_first = grown[1:] - grown[np.minimum(origin + 1, len(rows))]
    since_pack = grown[1:] - grown[pack_start]
    since_new: NDArray[np.float64] = np.where(
        pack_start == device_start, base + since_first, since_pack
    )
    return since_new
