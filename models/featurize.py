"""Readings -> features: the one implementation, for the device, training and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .daily_grid import DailyGrid, daily_grid
from .feature_spec import FEATURE_NAMES, FEATURES
from .prediction import STATUSES, Status
from .rolling import (
    sorted_median,
    window_count,
    window_line,
    window_max,
    window_mean,
    window_median,
    window_sum,
)
from .telemetry import COLUMN, SECONDS_PER_DAY, DeviceProfiles, Telemetry
from .telemetry_audit import AuditedTelemetry, AuditReport, audit

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class FeatureTable:
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
        audit: what was refused on the way.
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
    audit: AuditReport

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
    return _features(audited, grid, profiles, np.flatnonzero(keep), references)


def featurize_now(
    telemetry: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int,
    references: PackReferences | None = None,
) -> FeatureTable:
    """Compute the features of each device at one moment, `now_s`; devices without readings lack.

    Days are the 24 hours before `now_s`, the 24 hours before those, and so on.
    """
    timely = telemetry.rows(telemetry.at_s <= now_s)
    audited = audit(timely, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    grid = daily_grid(audited, profiles.design_capacity_mah, day_ends_at_s=now_s, until_s=now_s)
    return _features(audited, grid, profiles, np.flatnonzero(grid.as_of_s == now_s), references)


def _last_reading(grid: DailyGrid) -> NDArray[np.int64]:
    ends = np.flatnonzero(np.diff(grid.device, append=-1))
    lengths = np.diff(ends, prepend=-1)
    return np.repeat(grid.last_at_s[ends], lengths)


def _features(
    audited: AuditedTelemetry,
    grid: DailyGrid,
    profiles: DeviceProfiles,
    keep: NDArray[np.intp],
    kept_references: PackReferences | None,
) -> FeatureTable:
    start = grid.pack_start
    design = profiles.design_capacity_mah[grid.device]
    end_of_life = profiles.end_of_life_capacity_mah[grid.device]
    pack = _pack_number(grid)
    references = [
        _reference(audited, grid, "full_charge_capacity_mah"),
        _reference(audited, grid, "charge_duration_min"),
        _reference(audited, grid, "internal_resistance_mohm"),
    ]
    since = grid.as_of_s[start] - SECONDS_PER_DAY if len(grid) else grid.as_of_s
    since = np.where(pack == 0, grid.first_at_s, since)
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
    capacity_reference, charge_reference, resistance_reference = references
    floor = LEAST_SPAN_OF_DESIGN * design
    span = np.maximum(capacity_reference - end_of_life, floor)
    capacity = window_median(grid.capacity_mah, start, 7)

    columns = _capacity_columns(grid, design, end_of_life, span, capacity)
    columns |= _use_columns(grid, charge_reference, resistance_reference)
    columns["charge_cycle_count"] = grid.cycle_count
    age_s = grid.as_of_s - profiles.manufactured_at_s[grid.device]
    columns["days_since_manufacture"] = np.where(pack == 0, age_s, grid.as_of_s - since) / (
        SECONDS_PER_DAY
    )
    table = np.stack([columns[name][keep] for name in FEATURE_NAMES], axis=1)
    limits = np.array([(feature.low, feature.high) for feature in FEATURES])
    return FeatureTable(
        device=grid.device[keep],
        as_of_s=grid.as_of_s[keep],
        features=np.clip(table, limits[:, 0], limits[:, 1]).astype(np.float32),
        status=_status(grid, since)[keep],
        pack=pack[keep],
        capacity_mah=_latest_known(capacity, start)[keep],
        capacity_reference_mah=capacity_reference[keep],
        charge_reference_min=charge_reference[keep],
        resistance_reference_mohm=resistance_reference[keep],
        pack_since_s=since[keep],
        audit=audited.report,
    )


def _latest_known(values: NDArray[np.float64], start: NDArray[np.intp]) -> NDArray[np.float64]:
    known = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return np.where(known >= start, values[np.maximum(known, 0)], np.nan)


def _capacity_columns(
    grid: DailyGrid,
    design: NDArray[np.float64],
    end_of_life: NDArray[np.float64],
    span: NDArray[np.float64],
    capacity: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    start = grid.pack_start
    fraction = grid.capacity_mah / design - 1.0
    lines = {days: window_line(fraction, start, days) for days in (10, 30, 60, 90)}

    def margin_at_end(days: int) -> NDArray[np.float64]:
        result: NDArray[np.float64] = ((lines[days].level + 1.0) * design - end_of_life) / span
        return result

    def slope(days: int) -> NDArray[np.float64]:
        result: NDArray[np.float64] = MONTH * lines[days].slope * design / span
        return result

    def crossing(days: int) -> NDArray[np.float64]:
        margin, fall = margin_at_end(days), -slope(days) / MONTH
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(fall > 0, np.maximum(margin, 0) / fall, NEVER_DAYS)
        ahead = np.where(margin <= 0, 0.0, ahead)
        return np.where(np.isfinite(margin), np.minimum(ahead, NEVER_DAYS), np.nan)

    floor = LEAST_SPAN_OF_DESIGN * design
    return {
        "charge_capacity_remaining": capacity / design,
        "health_margin": (capacity - end_of_life) / span,
        "health_margin_design": (capacity - end_of_life) / np.maximum(design - end_of_life, floor),
        "health_margin_fitted_30d": margin_at_end(30),
        "health_margin_fitted_90d": margin_at_end(90),
        "capacity_slope_10d": slope(10),
        "capacity_slope_30d": slope(30),
        "capacity_slope_60d": slope(60),
        "capacity_slope_90d": slope(90),
        "fade_acceleration": slope(30) - slope(90),
        "capacity_scatter_30d": lines[30].scatter * design / span,
        "days_to_eol_linear_30d": crossing(30),
        "days_to_eol_linear_90d": crossing(90),
    }


def _use_columns(
    grid: DailyGrid,
    charge_reference: NDArray[np.float64],
    resistance_reference: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    start = grid.pack_start
    charge = grid.charge_duration_min

    def rate(
        amount: NDArray[np.float64], covered: NDArray[np.float64], days: int
    ) -> NDArray[np.float64]:
        total, time = window_sum(amount, start, days), window_sum(covered, start, days)
        return np.where(time >= LEAST_COVERED_DAYS, total / np.maximum(time, 1e-3), np.nan)

    def counted(days: int) -> NDArray[np.float64]:
        seen = window_count(grid.shutdowns, start, days) > 0
        return np.where(seen, window_sum(grid.shutdowns, start, days), np.nan)

    recent_use = rate(grid.usage_hours, grid.usage_covered_days, 7)
    long_use = rate(grid.usage_hours, grid.usage_covered_days, 90)
    charge_slope = window_line(charge, start, 30).slope
    resistance_slope = window_line(grid.resistance_mohm, start, 90, least_span=0.3).slope
    with np.errstate(divide="ignore", invalid="ignore"):
        usage_change = np.where(long_use > 0, recent_use / long_use, np.nan)
    return {
        "avg_charge_time": window_mean(charge, start, 30),
        "battery_temp_max": window_max(grid.temp_max_c, start, 30),
        "battery_temp_avg": window_mean(grid.temp_avg_c, start, 30),
        "unexpected_shutdowns": counted(30),
        "usage_intensity": rate(grid.usage_hours, grid.usage_covered_days, 30),
        "charge_time_trend": MONTH * charge_slope / charge_reference,
        "charge_time_ratio": window_mean(charge, start, 7) / charge_reference,
        "resistance_ratio": window_median(grid.resistance_mohm, start, 7) / resistance_reference,
        "resistance_trend_90d": MONTH * resistance_slope / resistance_reference,
        "temp_spread": window_mean(grid.temp_max_c - grid.temp_avg_c, start, 30),
        "unexpected_shutdowns_7d": counted(7),
        "usage_change": usage_change,
        "cycles_per_day": rate(grid.cycles, grid.cycles_covered_days, 30),
    }


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


def _status(grid: DailyGrid, since_s: NDArray[np.int64]) -> NDArray[np.intp]:
    start = grid.pack_start
    valid = window_sum(grid.num_capacities, start, 30)
    present = valid + window_sum(grid.num_capacities_refused, start, 30)
    young = grid.as_of_s - since_s < LEAST_HISTORY_DAYS * SECONDS_PER_DAY
    silent = grid.as_of_s - grid.last_at_s > STALE_DAYS * SECONDS_PER_DAY
    return np.select(
        [
            young,
            silent,
            (valid < LEAST_CAPACITIES) & (present >= LEAST_CAPACITIES),
            valid < LEAST_CAPACITIES,
        ],
        [
            STATUSES.index(Status.INSUFFICIENT_HISTORY),
            STATUSES.index(Status.STALE),
            STATUSES.index(Status.INVALID_DATA),
            STATUSES.index(Status.INSUFFICIENT_HISTORY),
        ],
        default=STATUSES.index(Status.OK),
    )
