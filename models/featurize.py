"""Readings -> features: the one implementation, for the device, training and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .daily_grid import DAY_VALUES, DailyGrid, daily_grid, day_of
from .feature_spec import FEATURE_NAMES, FEATURES
from .prediction import STATUSES, Status
from .rolling import (
    Channels,
    Lines,
    Windows,
    running_totals,
    sorted_median,
    window_max,
    window_table,
)
from .telemetry import COLUMN, SECONDS_PER_DAY, DeviceProfiles, Telemetry
from .telemetry_audit import AuditedTelemetry, AuditReport, audit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .rolling import Line

REFERENCE_READINGS = 10
LEAST_HISTORY_DAYS = 28
LEAST_CAPACITIES = 5
STALE_DAYS = 7
LEAST_SPAN_OF_DESIGN = 0.02
NEVER_DAYS = 3650.0
LEAST_COVERED_DAYS = 1.0 - 1e-6
MONTH = 30.0


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
        audited: the readings that were used, and what was refused on the way.
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
    audited: AuditedTelemetry

    @property
    def audit(self) -> AuditReport:
        """What was refused on the way."""
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
    design = profiles.design_capacity_mah[moments.device]
    end_of_life = profiles.end_of_life_capacity_mah[moments.device]
    floor = LEAST_SPAN_OF_DESIGN * design
    span = np.maximum(moments.references[0] - end_of_life, floor)
    rows = moments.rows
    known_capacity, capacity, resistance = _weekly_medians(days, pack_start, rows)
    fade = days[_CAPACITY] / profiles.design_capacity_mah[device] - 1.0
    lines = Lines(np.stack([fade, days[_CHARGE], days[_RESISTANCE]]), pack_start).over(
        Windows(pack_start, _LINE_DAYS, rows), least_span=_LEAST_SPAN
    )
    _, charge_reference, resistance_reference = moments.references
    columns = _capacity_columns(lines, design, end_of_life, span)
    columns |= {
        "charge_capacity_remaining": capacity / design,
        "health_margin": (capacity - end_of_life) / span,
        "health_margin_design": (capacity - end_of_life) / np.maximum(design - end_of_life, floor),
        "charge_time_trend": MONTH * lines.slope[1, 1] / charge_reference,
        "resistance_trend_90d": MONTH * lines.slope[2, 3] / resistance_reference,
        "resistance_ratio": resistance / resistance_reference,
        "battery_temp_max": window_max(days[_TEMP_MAX], pack_start, 30, rows),
    }
    columns |= _use_columns(days, Windows(pack_start, _SUM_DAYS, rows), charge_reference)
    columns["charge_cycle_count"] = moments.cycle_count
    columns["days_since_manufacture"] = (moments.as_of_s - moments.born_at_s) / SECONDS_PER_DAY
    table = np.array([columns[name] for name in FEATURE_NAMES]).T
    return FeatureTable(
        device=moments.device,
        as_of_s=moments.as_of_s,
        features=np.minimum(np.maximum(table, _LIMITS[0]), _LIMITS[1]).astype(np.float32),
        status=_status(days, pack_start, moments),
        pack=moments.pack,
        capacity_mah=known_capacity,
        capacity_reference_mah=moments.references[0],
        charge_reference_min=moments.references[1],
        resistance_reference_mohm=moments.references[2],
        pack_since_s=moments.pack_since_s,
        audited=audited,
    )


def _weekly_medians(
    days: NDArray[np.float64], pack_start: NDArray[np.intp], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pack's latest known weekly capacity, this week's, and this week's resistance."""
    capacity = days[_CAPACITY]
    measured = np.maximum.accumulate(np.where(np.isfinite(capacity), np.arange(len(capacity)), -1))
    latest = measured[rows]
    week = np.minimum(rows, np.maximum(latest, 0) + 6)
    tables = [
        window_table(capacity, pack_start, 7, week),
        window_table(days[_RESISTANCE], pack_start, 7, rows),
    ]
    median = sorted_median(np.concatenate(tables))
    known = np.where(latest >= pack_start[rows], median[: len(rows)], np.nan)
    return known, np.where(week == rows, known, np.nan), median[len(rows) :]


def _capacity_columns(
    lines: Line,
    design: NDArray[np.float64],
    end_of_life: NDArray[np.float64],
    span: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Return what the lines through the fade, the first channel, tell."""
    ten, month, two_months, quarter = lines.slope[0] * (MONTH * design / span)
    margins = ((lines.level[0, 1::2] + 1.0) * design - end_of_life) / span
    fall = np.stack([month, quarter]) / -MONTH
    ahead = np.divide(
        np.maximum(margins, 0.0), fall, out=np.full_like(fall, NEVER_DAYS), where=fall > 0
    )
    crossing = np.where(margins <= 0, 0.0, np.minimum(ahead, NEVER_DAYS))
    crossing[np.isnan(margins)] = np.nan
    return {
        "health_margin_fitted_30d": margins[0],
        "health_margin_fitted_90d": margins[1],
        "capacity_slope_10d": ten,
        "capacity_slope_30d": month,
        "capacity_slope_60d": two_months,
        "capacity_slope_90d": quarter,
        "fade_acceleration": month - quarter,
        "capacity_scatter_30d": lines.scatter[0, 1] * design / span,
        "days_to_eol_linear_30d": crossing[0],
        "days_to_eol_linear_90d": crossing[1],
    }


def _use_columns(
    days: NDArray[np.float64], windows: Windows, charge_reference: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    spread = days[_TEMP_MAX] - days[_TEMP_AVG]
    total, count = Channels(np.vstack([days[_SUMMED], spread])).sum_and_count(windows)
    missing = np.full_like(total, np.nan)
    mean = np.divide(total, count, out=missing.copy(), where=count > 0)
    counted = np.where(count[_SHUTDOWNS] > 0, total[_SHUTDOWNS], np.nan)
    amount, covered = total[_AMOUNTS], total[_COVERED]
    long_enough = covered >= LEAST_COVERED_DAYS
    rate = np.divide(amount, covered, out=missing[: len(amount)].copy(), where=long_enough)
    (use_7d, use_30d, use_90d), (_, cycles_30d, _) = rate
    change = np.divide(use_7d, use_90d, out=np.full_like(use_7d, np.nan), where=use_90d > 0)
    return {
        "avg_charge_time": mean[_CHARGE_MEAN, 1],
        "battery_temp_avg": mean[_TEMP_MEAN, 1],
        "unexpected_shutdowns": counted[1],
        "usage_intensity": use_30d,
        "charge_time_ratio": mean[_CHARGE_MEAN, 0] / charge_reference,
        "temp_spread": mean[_SPREAD, 1],
        "unexpected_shutdowns_7d": counted[0],
        "usage_change": change,
        "cycles_per_day": cycles_30d,
    }


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
_SUMMED = np.array(
    [
        DAY_VALUES.index(name)
        for name in (
            "charge_duration_min",
            "temp_avg_c",
            "shutdowns",
            "usage_hours",
            "usage_covered_days",
            "cycles",
            "cycles_covered_days",
        )
    ]
)
_CHARGE_MEAN, _TEMP_MEAN, _SHUTDOWNS, _SPREAD = 0, 1, 2, 7
_AMOUNTS, _COVERED = [3, 5], [4, 6]
_LINE_DAYS = (10, 30, 60, 90)
_LEAST_SPAN = np.array([0.6, 0.6, 0.3])
"""Of the lines through fade, charge duration and resistance, as a share of their windows."""
_SUM_DAYS = (7, 30, 90)
_COUNTS = [DAY_VALUES.index(name) for name in ("num_capacities", "num_capacities_refused")]
_LIMITS = np.array([(feature.low, feature.high) for feature in FEATURES]).T


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


def _status(
    days: NDArray[np.float64], pack_start: NDArray[np.intp], moments: Moments
) -> NDArray[np.intp]:
    month = Windows(pack_start, (30,), moments.rows)
    (valid,), (refused,) = month.sum(running_totals(days[_COUNTS]))
    age_s = moments.as_of_s - moments.pack_since_s
    silence_s = moments.as_of_s - moments.last_at_s
    few = valid < LEAST_CAPACITIES
    unusable = np.where(valid + refused >= LEAST_CAPACITIES, _INVALID, _YOUNG)
    status = np.where(few, unusable, _OK)
    status[silence_s > STALE_DAYS * SECONDS_PER_DAY] = _STALE
    status[age_s < LEAST_HISTORY_DAYS * SECONDS_PER_DAY] = _YOUNG
    return status


_OK, _YOUNG, _STALE, _INVALID = (
    STATUSES.index(status)
    for status in (
        Status.OK,
        Status.INSUFFICIENT_HISTORY,
        Status.STALE,
        Status.INVALID_DATA,
    )
)
