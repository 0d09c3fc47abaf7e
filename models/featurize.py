"""Readings -> features: the one implementation, for the device, training and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .arithmetic import ARRAYS
from .daily_grid import DAY_VALUES, DailyGrid, daily_grid
from .feature_formulas import (
    LINE_DAYS,
    SUM_DAYS,
    Device,
    Statistics,
    feature_values,
    status_of,
)
from .feature_spec import FEATURE_NAMES, FEATURES
from .prediction import STATUSES, Status
from .rolling import line_sums, sorted_median, sums_and_counts, window_max, window_median
from .telemetry import COLUMN, SECONDS_PER_DAY, DeviceProfiles, Telemetry, day_of
from .telemetry_audit import AuditedTelemetry, AuditReport, audit

if TYPE_CHECKING:
    from numpy.typing import NDArray


REFERENCE_READINGS = 10


@dataclass(frozen=True, slots=True)
class PackReferences:
    """What a device remembers of its pack's first days, for longer than its readings are kept.

    Attributes:
        capacity_mah: median of the first 10 valid capacities, NaN = not known.
        charge_duration_min: median of the first 10 valid charge durations.
        resistance_mohm: median of the first 10 valid resistances.
        since_s: first reading of the pack, seconds since the epoch.
    """

    capacity_mah: float
    charge_duration_min: float
    resistance_mohm: float
    since_s: int


class FeatureTable(NamedTuple):
    """Features of many devices and days.

    Attributes:
        device: int, shape (n,): index of the device.
        as_of_s: int64, shape (n,): only readings at or before it were used.
        features: float32, shape (n, n_features), raw values in `FEATURES` order; NaN = missing.
        status: int, shape (n,): index into `prediction.STATUSES`.
        pack: int, shape (n,): 0 for a device's first pack, 1 for the next, ...
        capacity_mah: float64, shape (n,): C, the pack's latest known where the last week has none.
        capacity_reference_mah: float64, shape (n,).
        charge_reference_min: float64, shape (n,).
        resistance_reference_mohm: float64, shape (n,).
        pack_since_s: int64, shape (n,): first day of the pack in use.
        audited: the readings that were used, and what was refused on the way; None where most of
            them were looked at before (`models.feature_window`).
    """

    device: NDArray[np.intp]
    as_of_s: NDArray[np.int64]
    features: NDArray[np.float32]
    status: NDArray[np.intp]
    pack: NDArray[np.intp]
    capacity_mah: NDArray[np.float64]
    capacity_reference_mah: NDArray[np.float64]
    charge_reference_min: NDArray[np.float64]
    resistance_reference_mohm: NDArray[np.float64]
    pack_since_s: NDArray[np.int64]
    audited: AuditedTelemetry | None

    @property
    def audit(self) -> AuditReport:
        """What was refused on the way.

        Raises:
            ValueError: the features come from a window; those of all readings tell it.
        """
        if self.audited is None:
            raise ValueError("features from a window of closed days have no audit of all readings")
        return self.audited.report

    def is_ok(self) -> NDArray[np.bool_]:
        """Return which rows can be predicted."""
        ok: NDArray[np.bool_] = self.status == STATUSES.index(Status.OK)
        return ok


def featurize(
    telemetry: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int | None = None,
    every_days: int = 1,
    references: PackReferences | None = None,
) -> FeatureTable:
    """Compute the features of every device at every UTC midnight that its readings reach.

    Args:
        telemetry: readings in recorded order, devices in the order of `profiles`.
        profiles: one a device.
        now_s: readings more than a day later are refused as lying in the future.
        every_days: keep only each n-th midnight of a device.
        references: kept from earlier for the first pack (one device only).
    """
    audited = audit(telemetry, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    grid = daily_grid(audited, profiles.design_capacity_mah)
    within = (grid.as_of_s > grid.first_at_s) & (grid.as_of_s <= _last_reading(grid))
    ordinal = np.cumsum(within) - 1
    first = np.maximum(np.arange(len(grid)) - grid.device_start, 0)
    offset = ordinal[grid.device_start] if len(grid) else first
    keep = within & ((ordinal - offset - (~within[grid.device_start])) % every_days == 0)
    return features_at(audited, grid, profiles, np.flatnonzero(keep), references)


def featurize_now(
    telemetry: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int,
    references: PackReferences | None = None,
) -> FeatureTable:
    """Compute the features of each device at one moment, `now_s`; devices without readings lack.

    The last day is the one that runs: from the last midnight to `now_s`. At a midnight the features
    are those of `featurize`.
    """
    timely = telemetry.rows(telemetry.at_s <= now_s)
    audited = audit(timely, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    grid = daily_grid(audited, profiles.design_capacity_mah, until_s=now_s)
    return features_at(audited, grid, profiles, np.flatnonzero(grid.as_of_s == now_s), references)


def _last_reading(grid: DailyGrid) -> NDArray[np.int64]:
    ends = np.flatnonzero(np.diff(grid.device, append=-1))
    lengths = np.diff(ends, prepend=-1)
    return np.repeat(grid.last_at_s[ends], lengths)


def features_at(
    audited: AuditedTelemetry,
    grid: DailyGrid,
    profiles: DeviceProfiles,
    keep: NDArray[np.intp],
    kept_references: PackReferences | None,
) -> FeatureTable:
    """Compute the features at some rows of a grid.

    Args:
        audited: the readings.
        grid: their days.
        profiles: one a device.
        keep: int, shape (n,): rows of the grid at whose ends features are wanted.
        kept_references: kept from earlier for the first pack (one device only).
    """
    pack = _pack_number(grid)[keep]
    start, device = grid.pack_start[keep], grid.device[keep]
    references = [
        _reference(audited, grid, name)[keep]
        for name in ("full_charge_capacity_mah", "charge_duration_min", "internal_resistance_mohm")
    ]
    day_before = (day_of(grid.as_of_s) - 1) * SECONDS_PER_DAY
    since = np.where(pack == 0, grid.first_at_s[keep], day_before[start])
    if kept_references is not None:
        kept = (
            kept_references.capacity_mah,
            kept_references.charge_duration_min,
            kept_references.resistance_mohm,
        )
        references = [
            np.where((pack == 0) & np.isfinite(old), old, new)
            for old, new in zip(kept, references, strict=True)
        ]
        since = np.where(pack == 0, np.minimum(since, kept_references.since_s), since)
    made_at_s = profiles.manufactured_at_s[device]
    moments = Moments(
        rows=keep,
        device=device,
        as_of_s=grid.as_of_s[keep],
        last_at_s=grid.last_at_s[keep],
        pack=pack,
        pack_since_s=since,
        born_at_s=np.where(pack == 0, made_at_s, since),
        cycle_count=grid.cycle_count[keep],
        references=np.stack(references),
    )
    return feature_table(grid.values, grid.device, grid.pack_start, moments, profiles, audited)


class Moments(NamedTuple):
    """The moments for which features are wanted, and what is known of the pack in use then.

    Attributes:
        rows: int, shape (n,): row of the day that ends, or runs, at each moment.
        device: int, shape (n,).
        as_of_s: int64, shape (n,).
        last_at_s: int64, shape (n,): latest reading.
        pack: int, shape (n,): 0 for a device's first pack.
        pack_since_s: int64, shape (n,).
        born_at_s: int64, shape (n,): manufacture, or the change to the pack in use.
        cycle_count: float64, shape (n,): cycles since the pack was new.
        references: float64, shape (3, n): capacity (mAh), charge duration (min), resistance (mΩ).
    """

    rows: NDArray[np.intp]
    device: NDArray[np.intp]
    as_of_s: NDArray[np.int64]
    last_at_s: NDArray[np.int64]
    pack: NDArray[np.intp]
    pack_since_s: NDArray[np.int64]
    born_at_s: NDArray[np.int64]
    cycle_count: NDArray[np.float64]
    references: NDArray[np.float64]


def feature_table(
    days: NDArray[np.float64],
    device: NDArray[np.intp],
    pack_start: NDArray[np.intp],
    moments: Moments,
    profiles: DeviceProfiles,
    audited: AuditedTelemetry,
) -> FeatureTable:
    """Compute the features at some moments from daily values.

    Args:
        days: shape (n_values, n_rows), in the order of `daily_grid.DAY_VALUES`.
        device: int, shape (n_rows,): index of each row's device.
        pack_start: int, shape (n_rows,): first row of the pack that a row belongs to.
        moments: for which the features are wanted.
        profiles: by `moments.device`.
        audited: the readings behind the daily values.
    """
    found = _statistics(
        days, days[_CAPACITY] / profiles.design_capacity_mah[device] - 1.0, pack_start, moments.rows
    )
    capacity_reference, charge_reference, resistance_reference = moments.references
    columns = feature_values(
        found,
        Device(
            design=profiles.design_capacity_mah[moments.device],
            end_of_life=profiles.end_of_life_capacity_mah[moments.device],
            capacity=capacity_reference,
            charge=charge_reference,
            resistance=resistance_reference,
            cycles=moments.cycle_count,
            age_days=(moments.as_of_s - moments.born_at_s) / SECONDS_PER_DAY,
        ),
        ARRAYS,
    )
    status = status_of(
        found,
        age_s=moments.as_of_s - moments.pack_since_s,
        silence_s=moments.as_of_s - moments.last_at_s,
        m=ARRAYS,
    )
    table = np.array([columns[name] for name in FEATURE_NAMES]).T
    return FeatureTable(
        device=moments.device,
        as_of_s=moments.as_of_s,
        features=np.minimum(np.maximum(table, LIMITS[0]), LIMITS[1]).astype(np.float32),
        status=status,
        pack=moments.pack,
        capacity_mah=found.known_capacity,
        capacity_reference_mah=capacity_reference,
        charge_reference_min=charge_reference,
        resistance_reference_mohm=resistance_reference,
        pack_since_s=moments.pack_since_s,
        audited=audited,
    )


def _statistics(
    days: NDArray[np.float64],
    fade: NDArray[np.float64],
    pack_start: NDArray[np.intp],
    rows: NDArray[np.intp],
) -> Statistics:
    capacity = days[_CAPACITY]
    measured = np.maximum.accumulate(np.where(np.isfinite(capacity), np.arange(len(capacity)), -1))
    latest = measured[rows]
    week = np.minimum(rows, np.maximum(latest, 0) + 6)
    median = window_median(capacity, pack_start, 7, week)
    known = np.where(latest >= pack_start[rows], median, np.nan)
    fitted = {"fade": fade, "charge": days[_CHARGE], "resistance": days[_RESISTANCE]}
    summed = {name: days[DAY_VALUES.index(of)] for name, of in SUMMED.items()}
    summed["spread"] = days[_TEMP_MAX] - days[_TEMP_AVG]
    return Statistics(
        lines={
            (name, length): sums
            for name, values in fitted.items()
            for length, sums in line_sums(values, pack_start, LINE_DAYS[name], rows).items()
        },
        totals={
            (name, length): sums
            for name, values in summed.items()
            for length, sums in sums_and_counts(values, pack_start, SUM_DAYS[name], rows).items()
        },
        known_capacity=known,
        capacity=np.where(week == rows, known, np.nan),
        resistance=window_median(days[_RESISTANCE], pack_start, 7, rows),
        temp_max=window_max(days[_TEMP_MAX], pack_start, 30, rows),
    )


_CAPACITY, _CHARGE, _TEMP_MAX, _TEMP_AVG, _RESISTANCE = (
    DAY_VALUES.index(name)
    for name in (
        "capacity_mah",
        "charge_duration_min",
        "temp_max_c",
        "temp_avg_c",
        "resistance_mohm",
    )
)
SUMMED = {
    "charge": "charge_duration_min",
    "temp_avg": "temp_avg_c",
    "shutdowns": "shutdowns",
    "usage": "usage_hours",
    "usage_days": "usage_covered_days",
    "cycles": "cycles",
    "cycles_days": "cycles_covered_days",
    "valid": "num_capacities",
    "refused": "num_capacities_refused",
}
"""Daily values that are summed up, by channel; the spread of temperatures is one channel more."""
LIMITS = np.array([(feature.low, feature.high) for feature in FEATURES]).T
"""Least and greatest meaningful value of each feature, shape (2, n_features)."""


def _pack_number(grid: DailyGrid) -> NDArray[np.intp]:
    rows = np.arange(len(grid))
    changes = np.cumsum((grid.pack_start == rows) & (grid.device_start != rows))
    return changes - changes[grid.device_start] if len(rows) else rows


def _reference(audited: AuditedTelemetry, grid: DailyGrid, name: str) -> NDArray[np.float64]:
    """Return the median of a pack's first 10 valid readings seen up to each row's day."""
    values = audited.telemetry.values[:, COLUMN[name]].astype(np.float64)
    readings = np.flatnonzero(np.isfinite(values))
    reading_row = grid.row_of_reading[readings]
    run = grid.pack_start[reading_row]
    is_first = np.diff(run, prepend=-1) != 0
    run_of_reading = np.cumsum(is_first) - 1
    rank = np.arange(len(readings)) - np.flatnonzero(is_first)[run_of_reading]
    early = rank < REFERENCE_READINGS
    first = np.full((int(is_first.sum()), REFERENCE_READINGS), np.nan)
    first[run_of_reading[early], rank[early]] = values[readings[early]]
    so_far = np.stack(
        [sorted_median(first[:, : count + 1]) for count in range(REFERENCE_READINGS)], axis=1
    )
    run_of_row = np.full(len(grid), -1)
    run_of_row[run[is_first]] = np.arange(len(first))
    run_of_row = run_of_row[grid.pack_start] if len(grid) else run_of_row
    counts = np.concatenate([[0], np.cumsum(np.bincount(reading_row, minlength=len(grid)))])
    seen = counts[1:] - counts[grid.pack_start]
    known = (run_of_row >= 0) & (seen > 0)
    picked = np.clip(seen, 1, REFERENCE_READINGS) - 1
    reference = np.full(len(grid), np.nan)
    reference[known] = so_far[run_of_row[known], picked[known]]
    return reference
