"""The features once more, by the words of the specification: one device, one moment, plain loops.

An oracle for `models.featurize`: it shares no code with it but the names and the limits. Readings
must be in the order of time, free of what an audit refuses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from models.feature_spec import FEATURES
from models.telemetry import MEASUREMENT_NAMES, SECONDS_PER_DAY

if TYPE_CHECKING:
    from models.telemetry import DeviceProfile, Telemetry

NAN = math.nan


@dataclass
class Day:
    """What a day's readings come to; None = not measured."""

    capacity: float | None
    charge: float | None
    temp_max: float | None
    temp_avg: float | None
    resistance: float | None
    spread: float | None
    last_count: float | None
    cycles: float | None
    cycles_days: float | None
    shutdowns: float | None
    usage: float | None
    usage_days: float | None
    num_capacities: int
    first_values: dict[str, list[float]]


def naive_features(
    telemetry: Telemetry, profile: DeviceProfile, as_of_s: int
) -> tuple[dict[str, float], int]:
    """Return the features at a midnight by name, and the number of the pack in use."""
    rows = [
        (int(at_s), dict(zip(MEASUREMENT_NAMES, map(float, values), strict=True)))
        for at_s, values in zip(telemetry.at_s, telemetry.values, strict=True)
        if at_s <= as_of_s
    ]
    growth = {
        name: _growth(rows, name) for name in ("charge_cycle_count", "unexpected_shutdown_count")
    }
    last_day = _day(as_of_s)
    by_day: dict[int, list[int]] = {}
    for number, (at_s, _) in enumerate(rows):
        by_day.setdefault(_day(at_s), []).append(number)
    first_day = min(by_day)
    days = [_gather(rows, growth, by_day.get(d, [])) for d in range(first_day, last_day + 1)]
    starts = _pack_starts(days, profile.design_capacity_mah)
    own = days[starts[-1] :]
    values = _features(own, profile)
    first_count = next((day.last_count for day in days if day.last_count is not None), None)
    if len(starts) == 1:
        age = (as_of_s - profile.manufactured_at.timestamp()) / SECONDS_PER_DAY
        since = next((i for i, day in enumerate(days) if day.last_count is not None), len(days))
        grown = sum(day.cycles or 0.0 for day in days[since + 1 :])
        values["charge_cycle_count"] = NAN if first_count is None else first_count + grown
    else:
        age = float(len(own))
        values["charge_cycle_count"] = sum(day.cycles or 0.0 for day in own)
    values["days_since_manufacture"] = age
    limited = {f.name: _clip(values[f.name], f.low, f.high) for f in FEATURES}
    return limited, len(starts) - 1


def _clip(value: float, low: float, high: float) -> float:
    return value if math.isnan(value) else min(max(value, low), high)


def _day(at_s: int) -> int:
    return math.ceil(at_s / SECONDS_PER_DAY)


def _growth(rows: list[tuple[int, dict[str, float]]], name: str) -> dict[int, tuple[float, float]]:
    """Return (growth, days) at each reading that has a counted one before it."""
    found: dict[int, tuple[float, float]] = {}
    before: tuple[int, float] | None = None
    for number, (at_s, values) in enumerate(rows):
        value = values[name]
        if math.isnan(value):
            continue
        if before is not None:
            step = value - before[1]
            if step < 0:
                step = value if value <= 50 else 0.0
            found[number] = (step, (at_s - before[0]) / SECONDS_PER_DAY)
        before = (at_s, value)
    return found


def _gather(
    rows: list[tuple[int, dict[str, float]]],
    growth: dict[str, dict[int, tuple[float, float]]],
    numbers: list[int],
) -> Day:
    def present(name: str) -> list[float]:
        return [rows[n][1][name] for n in numbers if not math.isnan(rows[n][1][name])]

    def of(rule, name):
        found = present(name)
        return rule(found) if found else None

    cycles = [growth["charge_cycle_count"][n] for n in numbers if n in growth["charge_cycle_count"]]
    shutdowns = [
        growth["unexpected_shutdown_count"][n][0]
        for n in numbers
        if n in growth["unexpected_shutdown_count"]
    ]
    used = [n for n in numbers if n > 0 and not math.isnan(rows[n][1]["usage_hours"])]
    highest, mean = of(max, "battery_temp_max_c"), of(fmean, "battery_temp_avg_c")
    counts = present("charge_cycle_count")
    return Day(
        capacity=of(median, "full_charge_capacity_mah"),
        charge=of(fmean, "charge_duration_min"),
        temp_max=highest,
        temp_avg=mean,
        resistance=of(median, "internal_resistance_mohm"),
        spread=None if highest is None or mean is None else highest - mean,
        last_count=counts[-1] if counts else None,
        cycles=sum(c[0] for c in cycles) if cycles else None,
        cycles_days=sum(c[1] for c in cycles) if cycles else None,
        shutdowns=sum(shutdowns) if shutdowns else None,
        usage=sum(rows[n][1]["usage_hours"] for n in used) if used else None,
        usage_days=sum(min((rows[n][0] - rows[n - 1][0]) / SECONDS_PER_DAY, 1) for n in used)
        if used
        else None,
        num_capacities=len(present("full_charge_capacity_mah")),
        first_values={
            name: present(name)
            for name in (
                "full_charge_capacity_mah",
                "charge_duration_min",
                "internal_resistance_mohm",
            )
        },
    )


def _pack_starts(days: list[Day], design: float) -> list[int]:
    starts = [0]
    for number in range(1, len(days)):
        today = days[number]
        if today.capacity is None:
            continue
        week: list[float] = []
        for end in range(number - 1, -1, -1):
            week = [d.capacity for d in days[max(end - 6, 0) : end + 1] if d.capacity is not None]
            if week:
                break
        if not week:
            continue
        rise = (today.capacity - median(week)) / design
        counted = [d.last_count for d in days[:number] if d.last_count is not None]
        if today.last_count is not None and counted:
            new = rise > 0.08 and today.last_count < 0.5 * counted[-1]
        else:
            new = rise > 0.20 and today.last_count is None and not counted
        if new and (len(starts) == 1 or number - starts[-1] >= 7):
            starts.append(number)
    return starts


def _features(own: list[Day], profile: DeviceProfile) -> dict[str, float]:
    design, end = profile.design_capacity_mah, profile.end_of_life_capacity_mah
    reference = _first(own, "full_charge_capacity_mah")
    charge_reference = _first(own, "charge_duration_min")
    resistance_reference = _first(own, "internal_resistance_mohm")
    span = max(reference - end, 0.02 * design) if not math.isnan(reference) else NAN
    capacity = _over(own, 7, "capacity", median)
    lines = {w: _line(own, w, "capacity", 0.6) for w in (10, 30, 60, 90)}
    slopes = {w: 30 * lines[w][0] / span for w in lines}
    margins = {w: (lines[w][1] - end) / span for w in lines}
    use = {w: _rate(own, w, "usage", "usage_days") for w in (7, 30, 90)}

    def crossing(window: int) -> float:
        margin, fall = margins[window], -slopes[window] / 30
        if math.isnan(margin):
            return NAN
        if margin <= 0:
            return 0.0
        return min(margin / fall, 3650.0) if fall > 0 else 3650.0

    def total(window: int) -> float:
        found = [d.shutdowns for d in own[-window:] if d.shutdowns is not None]
        return sum(found) if found else NAN

    return {
        "charge_capacity_remaining": capacity / design,
        "avg_charge_time": _over(own, 30, "charge", fmean),
        "battery_temp_max": _over(own, 30, "temp_max", max),
        "battery_temp_avg": _over(own, 30, "temp_avg", fmean),
        "unexpected_shutdowns": total(30),
        "usage_intensity": use[30],
        "charge_time_trend": 30 * _line(own, 30, "charge", 0.6)[0] / charge_reference,
        "health_margin": (capacity - end) / span,
        "health_margin_design": (capacity - end) / max(design - end, 0.02 * design),
        "health_margin_fitted_30d": margins[30],
        "health_margin_fitted_90d": margins[90],
        "capacity_slope_10d": slopes[10],
        "capacity_slope_30d": slopes[30],
        "capacity_slope_60d": slopes[60],
        "capacity_slope_90d": slopes[90],
        "fade_acceleration": slopes[30] - slopes[90],
        "capacity_scatter_30d": lines[30][2] / span,
        "days_to_eol_linear_30d": crossing(30),
        "days_to_eol_linear_90d": crossing(90),
        "charge_time_ratio": _over(own, 7, "charge", fmean) / charge_reference,
        "resistance_ratio": _over(own, 7, "resistance", median) / resistance_reference,
        "resistance_trend_90d": 30 * _line(own, 90, "resistance", 0.3)[0] / resistance_reference,
        "temp_spread": _over(own, 30, "spread", fmean),
        "unexpected_shutdowns_7d": total(7),
        "usage_change": use[7] / use[90] if use[90] > 0 else NAN,
        "cycles_per_day": _rate(own, 30, "cycles", "cycles_days"),
    }


def _first(own: list[Day], name: str) -> float:
    found = [value for day in own for value in day.first_values[name]][:10]
    return median(found) if found else NAN


def _over(own: list[Day], window: int, name: str, rule) -> float:
    found = [getattr(d, name) for d in own[-window:] if getattr(d, name) is not None]
    return float(rule(found)) if found else NAN


def _rate(own: list[Day], window: int, amount: str, time: str) -> float:
    part = own[-window:]
    total = sum(getattr(d, amount) or 0.0 for d in part)
    covered = sum(getattr(d, time) or 0.0 for d in part)
    return total / covered if covered >= 1 - 1e-6 else NAN


def _line(own: list[Day], window: int, name: str, least_span: float) -> tuple[float, float, float]:
    """Return slope a day, value at the end, and scatter of a least-squares line."""
    first = max(len(own) - window, 0)
    points = [
        (number, getattr(own[number], name))
        for number in range(first, len(own))
        if getattr(own[number], name) is not None
    ]
    if len(points) < 5 or points[-1][0] - points[0][0] + 1 < least_span * window:
        return NAN, NAN, NAN
    mean_x, mean_y = fmean(p[0] for p in points), fmean(p[1] for p in points)
    var = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / var
    level = mean_y + slope * (len(own) - 1 - mean_x)
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, level, math.sqrt(residual / (len(points) - 2))
