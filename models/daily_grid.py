"""Readings of any cadence, gathered into one row a device and day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .rolling import sorted_median, window_median
from .telemetry import COLUMN, SECONDS_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .telemetry_audit import AuditedTelemetry

NEW_PACK_RISE = 0.08
NEW_PACK_RISE_WITHOUT_COUNTER = 0.20
NEW_PACK_COUNTER_SHARE = 0.5
MEMORY_DAYS = 7
MOST_A_DAY_IN_A_TABLE = 32


@dataclass(frozen=True, slots=True)
class DailyGrid:
    """One row a device and day, from its first to its last day; NaN = nothing measured.

    A day is the 24 hours that end at the row's `as_of_s`, its end included. All arrays have
    shape (n_rows,) and, unless said otherwise, dtype float64.

    Attributes:
        device: int, index of the device.
        as_of_s: int64, end of the day, seconds since the epoch.
        pack_start: int, first row of the battery pack that the row belongs to.
        device_start: int, first row of the device.
        first_at_s: int64, first reading of the device.
        last_at_s: int64, latest reading at or before `as_of_s`.
        num_readings: readings in the day.
        num_capacities: valid capacities in the day.
        num_capacities_refused: capacities out of range in the day.
        capacity_mah: median.
        charge_duration_min: mean.
        temp_max_c: maximum.
        temp_avg_c: mean.
        resistance_mohm: median.
        usage_hours: sum.
        usage_covered_days: days covered by the readings that tell usage, each at most one.
        cycles: growth of the cycle counter.
        cycles_covered_days: days in which it grew, since the counter was read before.
        cycle_count: growth of the cycle counter since the pack was new.
        shutdowns: growth of the shutdown counter.
    """

    device: NDArray[np.intp]
    as_of_s: NDArray[np.int64]
    pack_start: NDArray[np.intp]
    device_start: NDArray[np.intp]
    first_at_s: NDArray[np.int64]
    last_at_s: NDArray[np.int64]
    num_readings: NDArray[np.float64]
    num_capacities: NDArray[np.float64]
    num_capacities_refused: NDArray[np.float64]
    capacity_mah: NDArray[np.float64]
    charge_duration_min: NDArray[np.float64]
    temp_max_c: NDArray[np.float64]
    temp_avg_c: NDArray[np.float64]
    resistance_mohm: NDArray[np.float64]
    usage_hours: NDArray[np.float64]
    usage_covered_days: NDArray[np.float64]
    cycles: NDArray[np.float64]
    cycles_covered_days: NDArray[np.float64]
    cycle_count: NDArray[np.float64]
    shutdowns: NDArray[np.float64]
    row_of_reading: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.device)


def daily_grid(
    audited: AuditedTelemetry,
    design_capacity_mah: NDArray[np.float64],
    *,
    day_ends_at_s: int = 0,
    until_s: int | None = None,
) -> DailyGrid:
    """Gather readings into days.

    Args:
        audited: readings that passed the audit.
        design_capacity_mah: shape (n_devices,), mAh.
        day_ends_at_s: any moment at which a day ends; 0 means UTC midnight.
        until_s: rows go on to this moment; None ends each device at its last reading.
    """
    telemetry = audited.telemetry
    device = telemetry.device_of_row()
    day = -((day_ends_at_s - telemetry.at_s) // SECONDS_PER_DAY)
    lasting = np.flatnonzero(np.diff(telemetry.offsets))
    first_reading = telemetry.offsets[:-1][lasting]
    final_reading = telemetry.offsets[1:][lasting] - 1
    first_day, last_day = day[first_reading], day[final_reading]
    if until_s is not None:
        last_day = np.maximum(last_day, -((day_ends_at_s - until_s) // SECONDS_PER_DAY))
    length = last_day - first_day + 1
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.intp)
    num_rows = int(start[-1])
    row_device = np.repeat(lasting, length)
    device_start = np.repeat(start[:-1], length)
    as_of_s = (
        np.arange(num_rows) - device_start + np.repeat(first_day, length)
    ) * SECONDS_PER_DAY + day_ends_at_s

    start_of_device = np.zeros(len(telemetry.device_ids), np.intp)
    first_of_device = np.zeros(len(telemetry.device_ids), np.int64)
    start_of_device[lasting], first_of_device[lasting] = start[:-1], first_day
    row = (start_of_device[device] + day - first_of_device[device]).astype(np.intp)

    def column(name: str) -> NDArray[np.float64]:
        return telemetry.values[:, COLUMN[name]].astype(np.float64)

    def grown(name: str) -> NDArray[np.float64]:
        return audited.growth[:, COLUMN[name]].astype(np.float64)

    covered = np.minimum(_days_since_previous(telemetry.at_s, device), 1.0)
    usage = np.where(np.isfinite(covered), column("usage_hours"), np.nan)
    capacity, counted = column("full_charge_capacity_mah"), column("charge_cycle_count")
    capacity_by_day = _daily_median(row, capacity, num_rows)
    counter = _last_of_day(row, counted, num_rows)
    pack_start = _pack_starts(
        capacity_by_day / design_capacity_mah[row_device], counter, device_start
    )
    cycles_by_day = _daily_sum(row, grown("charge_cycle_count"), num_rows)
    has_count = np.flatnonzero(np.isfinite(counted))
    counted_days = np.full(len(row), np.nan)
    counted_days[has_count] = _days_since_previous(telemetry.at_s[has_count], device[has_count])
    reading_rows = np.searchsorted(row, np.arange(num_rows), side="right")
    return DailyGrid(
        device=row_device,
        as_of_s=as_of_s.astype(np.int64),
        pack_start=pack_start,
        device_start=device_start,
        first_at_s=np.repeat(telemetry.at_s[first_reading], length),
        last_at_s=telemetry.at_s[np.maximum(reading_rows - 1, 0)] if len(row) else as_of_s,
        num_readings=_daily_count(row, np.ones(len(row), bool), num_rows),
        num_capacities=_daily_count(row, np.isfinite(capacity), num_rows),
        num_capacities_refused=_daily_count(row, audited.capacity_refused, num_rows),
        capacity_mah=capacity_by_day,
        charge_duration_min=_daily_mean(row, column("charge_duration_min"), num_rows),
        temp_max_c=_daily_max(row, column("battery_temp_max_c"), num_rows),
        temp_avg_c=_daily_mean(row, column("battery_temp_avg_c"), num_rows),
        resistance_mohm=_daily_median(row, column("internal_resistance_mohm"), num_rows),
        usage_hours=_daily_sum(row, usage, num_rows),
        usage_covered_days=_daily_sum(row, np.where(np.isfinite(usage), covered, np.nan), num_rows),
        cycles=cycles_by_day,
        cycles_covered_days=_daily_sum(row, counted_days, num_rows),
        cycle_count=_cycles_since_new(counter, cycles_by_day, pack_start, device_start),
        shutdowns=_daily_sum(row, grown("unexpected_shutdown_count"), num_rows),
        row_of_reading=row,
    )


def _days_since_previous(at_s: NDArray[np.int64], device: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the days since the device's reading before; NaN at its first."""
    interval = np.diff(at_s, prepend=at_s[:1] if len(at_s) else 0).astype(float)
    interval[np.diff(device, prepend=-1) != 0] = np.nan
    days: NDArray[np.float64] = interval / SECONDS_PER_DAY
    return days


def _daily_count(
    row: NDArray[np.intp], counted: NDArray[np.bool_], num_rows: int
) -> NDArray[np.float64]:
    return np.bincount(row[counted], minlength=num_rows).astype(np.float64)


def _daily_sum(
    row: NDArray[np.intp], values: NDArray[np.float64], num_rows: int
) -> NDArray[np.float64]:
    present = np.isfinite(values)
    total = np.bincount(row[present], values[present], minlength=num_rows)
    count = np.bincount(row[present], minlength=num_rows)
    return np.where(count > 0, total, np.nan)


def _daily_mean(
    row: NDArray[np.intp], values: NDArray[np.float64], num_rows: int
) -> NDArray[np.float64]:
    count = np.bincount(row[np.isfinite(values)], minlength=num_rows)
    return _daily_sum(row, values, num_rows) / np.maximum(count, 1)


def _daily_max(
    row: NDArray[np.intp], values: NDArray[np.float64], num_rows: int
) -> NDArray[np.float64]:
    best = np.full(num_rows, -np.inf)
    present = np.isfinite(values)
    np.maximum.at(best, row[present], values[present])
    return np.where(np.isfinite(best), best, np.nan)


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


def _last_of_day(
    row: NDArray[np.intp], values: NDArray[np.float64], num_rows: int
) -> NDArray[np.float64]:
    last = np.full(num_rows, np.nan)
    present = np.isfinite(values)
    last[row[present]] = values[present]
    return last


def _pack_starts(
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
