"""From what windows of daily values come to, to features: the formulas, for arrays and numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from .prediction import STATUSES, Status
from .telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .arithmetic import Arithmetic

LINE_DAYS = {"fade": (10, 30, 60, 90), "charge": (30,), "resistance": (90,)}
"""Lengths of the windows through which lines are fitted, by channel."""
SUM_DAYS = {
    "charge": (7, 30),
    "temp_avg": (30,),
    "spread": (30,),
    "shutdowns": (7, 30),
    "usage": (7, 30, 90),
    "usage_days": (7, 30, 90),
    "cycles": (30,),
    "cycles_days": (30,),
    "valid": (30,),
    "refused": (30,),
}
"""Lengths of the windows that are summed up, by channel."""
LEAST_HISTORY_DAYS = 28
LEAST_CAPACITIES = 5
STALE_DAYS = 7
LEAST_SPAN_OF_DESIGN = 0.02
NEVER_DAYS = 3650.0
LEAST_COVERED_DAYS = 1.0 - 1e-6
MONTH = 30.0
LEAST_IN_A_LINE = 5

_LEAST_SPAN = {"fade": 0.6, "charge": 0.6, "resistance": 0.3}
_OK, _YOUNG, _STALE, _INVALID = (
    STATUSES.index(status)
    for status in (
        Status.OK,
        Status.INSUFFICIENT_HISTORY,
        Status.STALE,
        Status.INVALID_DATA,
    )
)


class LineSums(NamedTuple):
    """Sums over the values present in a window; x is a day, y its value.

    Attributes:
        count: how many are present.
        x: Σ x.
        y: Σ y.
        xx: Σ x².
        xy: Σ x y.
        yy: Σ y².
        span: days from the first to the last present, both included.
        day: x at the window's end.
    """

    count: Any
    x: Any
    y: Any
    xx: Any
    xy: Any
    yy: Any
    span: Any
    day: Any


class Line(NamedTuple):
    """A least-squares line through the values present; NaN where there is too little.

    Attributes:
        slope: change a day.
        level: value of the line at the window's end.
        scatter: standard deviation of the values around the line.
    """

    slope: Any
    level: Any
    scatter: Any


class Statistics(NamedTuple):
    """What the windows that end at some moments come to.

    Attributes:
        lines: sums for lines, by channel and length.
        totals: sum and number of the values present, by channel and length.
        known_capacity: the pack's latest known weekly median, mAh.
        capacity: this week's median, mAh.
        resistance: this week's median, milliohm.
        temp_max: highest temperature in 30 days, degrees Celsius.
    """

    lines: Mapping[tuple[str, int], LineSums]
    totals: Mapping[tuple[str, int], tuple[Any, Any]]
    known_capacity: Any
    capacity: Any
    resistance: Any
    temp_max: Any


class Device(NamedTuple):
    """What is known of the device and its pack at those moments.

    Attributes:
        design: capacity when new, mAh.
        end_of_life: capacity at which it is replaced, mAh.
        capacity: the pack's reference, mAh.
        charge: reference of the charge duration, minutes.
        resistance: reference, milliohm.
        cycles: since the pack was new.
        age_days: since manufacture, or since the pack was changed.
    """

    design: Any
    end_of_life: Any
    capacity: Any
    charge: Any
    resistance: Any
    cycles: Any
    age_days: Any


def line_of(sums: LineSums, days: int, least_span: float, m: Arithmetic) -> Line:
    """Fit a line to the values present in a window.

    Args:
        sums: of the window.
        days: its length.
        least_span: fewest days between first and last value, as a share of the window.
        m: how to calculate.
    """
    count, x, y, xx, xy, yy, span, day = sums
    divisor = m.greater(count, 1.0)
    mean_x, mean_y = x / divisor, y / divisor
    var_x = xx / divisor - mean_x * mean_x
    cov = xy / divisor - mean_x * mean_y
    var_y = yy / divisor - mean_y * mean_y
    enough = (count >= LEAST_IN_A_LINE) & (span >= least_span * days)
    slope = m.ratio(cov, var_x, when=enough)
    residual = m.greater(var_y - slope * cov, 0.0)
    scatter = m.root(residual * count / m.greater(count - 2.0, 1.0))
    return Line(slope, mean_y + slope * (day - mean_x), scatter)


def feature_values(found: Statistics, device: Device, m: Arithmetic) -> dict[str, Any]:
    """Return every feature by name, its limits not applied yet.

    Args:
        found: of the windows.
        device: of which they are.
        m: how to calculate.
    """
    design, end_of_life = device.design, device.end_of_life
    floor = LEAST_SPAN_OF_DESIGN * design
    span = m.greater(device.capacity - end_of_life, floor)
    capacity = found.capacity
    line = {
        (channel, days): line_of(sums, days, _LEAST_SPAN[channel], m)
        for (channel, days), sums in found.lines.items()
    }
    values = _fade_values(line, device, span, m)
    mean = {
        key: m.ratio(*found.totals[key], when=found.totals[key][1] > 0)
        for key in (("charge", 7), ("charge", 30), ("temp_avg", 30), ("spread", 30))
    }
    use = {days: _rate(found, "usage", "usage_days", days, m) for days in (7, 30, 90)}
    return values | {
        "charge_capacity_remaining": capacity / design,
        "health_margin": (capacity - end_of_life) / span,
        "health_margin_design": (capacity - end_of_life) / m.greater(design - end_of_life, floor),
        "charge_time_trend": MONTH * line["charge", 30].slope / device.charge,
        "resistance_trend_90d": MONTH * line["resistance", 90].slope / device.resistance,
        "resistance_ratio": found.resistance / device.resistance,
        "battery_temp_max": found.temp_max,
        "avg_charge_time": mean["charge", 30],
        "battery_temp_avg": mean["temp_avg", 30],
        "unexpected_shutdowns": _counted(found, 30, m),
        "usage_intensity": use[30],
        "charge_time_ratio": mean["charge", 7] / device.charge,
        "temp_spread": mean["spread", 30],
        "unexpected_shutdowns_7d": _counted(found, 7, m),
        "usage_change": m.ratio(use[7], use[90], when=use[90] > 0),
        "cycles_per_day": _rate(found, "cycles", "cycles_days", 30, m),
        "charge_cycle_count": device.cycles,
        "days_since_manufacture": device.age_days,
    }


def status_of(found: Statistics, *, age_s: Any, silence_s: Any, m: Arithmetic) -> Any:
    """Return whether a prediction can be made, as an index into `prediction.STATUSES`.

    Args:
        found: of the windows.
        age_s: seconds since the pack's first reading.
        silence_s: seconds since the latest reading.
        m: how to calculate.
    """
    valid, refused = found.totals["valid", 30][0], found.totals["refused", 30][0]
    unusable = m.where(valid + refused >= LEAST_CAPACITIES, _INVALID, _YOUNG)
    status = m.where(valid < LEAST_CAPACITIES, unusable, _OK)
    status = m.where(silence_s > STALE_DAYS * SECONDS_PER_DAY, _STALE, status)
    return m.where(age_s < LEAST_HISTORY_DAYS * SECONDS_PER_DAY, _YOUNG, status)


def _fade_values(
    line: Mapping[tuple[str, int], Line], device: Device, span: Any, m: Arithmetic
) -> dict[str, Any]:
    """Return what the lines through the fade, capacity / design − 1, tell."""
    design = device.design
    slope = {days: MONTH * line["fade", days].slope * design / span for days in LINE_DAYS["fade"]}
    values = {f"capacity_slope_{days}d": slope[days] for days in slope}
    for days in (30, 90):
        margin = ((line["fade", days].level + 1.0) * design - device.end_of_life) / span
        fall = -slope[days] / MONTH
        ahead = m.ratio(m.greater(margin, 0.0), fall, when=fall > 0)
        ahead = m.where(fall > 0, m.smaller(ahead, NEVER_DAYS), NEVER_DAYS)
        crossing = m.where(margin <= 0, 0.0, ahead)
        values[f"health_margin_fitted_{days}d"] = margin
        # NaN where the margin is: adding nothing keeps it.
        values[f"days_to_eol_linear_{days}d"] = crossing + 0.0 * margin
    values["fade_acceleration"] = slope[30] - slope[90]
    values["capacity_scatter_30d"] = line["fade", 30].scatter * design / span
    return values


def _rate(found: Statistics, amount: str, covered: str, days: int, m: Arithmetic) -> Any:
    time = found.totals[covered, days][0]
    return m.ratio(found.totals[amount, days][0], time, when=time >= LEAST_COVERED_DAYS)


def _counted(found: Statistics, days: int, m: Arithmetic) -> Any:
    total, count = found.totals["shutdowns", days]
    return m.where(count > 0, total, math.nan)
