"""What the windows come to that end at the last of one device's days, in single numbers.

The same sums as `models.rolling` takes for all rows at once: for one row, walking back through at
most 90 days is quicker than any array operation over them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .daily_grid import DAY_VALUES
from .feature_formulas import LINE_DAYS, SUM_DAYS, LineSums, Statistics
from .featurize import SUMMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    Days = Sequence[float]

WEEK = 7
MONTH = 30


def last_statistics(days: Sequence[Days], *, design_mah: float) -> Statistics:
    """Return what the windows come to that end at the last day.

    Args:
        days: of the pack in use alone, for each of `daily_grid.DAY_VALUES` the days from the
            earliest to the last, NaN = not measured.
        design_mah: capacity when new.
    """
    named = dict(zip(DAY_VALUES, days, strict=True))
    capacity, temp_max = named["capacity_mah"], named["temp_max_c"]
    fitted = {
        "fade": [value / design_mah - 1.0 for value in capacity[-max(LINE_DAYS["fade"]) :]],
        "charge": named["charge_duration_min"],
        "resistance": named["resistance_mohm"],
    }
    summed = {name: named[of] for name, of in SUMMED.items()}
    summed["spread"] = [
        high - mean
        for high, mean in zip(temp_max[-MONTH:], named["temp_avg_c"][-MONTH:], strict=True)
    ]
    lines = {}
    for name, values in fitted.items():
        for length, found in _line_sums(values, LINE_DAYS[name]).items():
            lines[name, length] = found
    totals = {}
    for name, values in summed.items():
        for length, total in _sums(values, SUM_DAYS[name]).items():
            totals[name, length] = total
    this_week = present_median(capacity[-WEEK:])
    return Statistics(
        lines=lines,
        totals=totals,
        known_capacity=_latest_weekly(capacity) if math.isnan(this_week) else this_week,
        capacity=this_week,
        resistance=present_median(named["resistance_mohm"][-WEEK:]),
        temp_max=max((value for value in temp_max[-MONTH:] if value == value), default=math.nan),  # noqa: PLR0124 - NaN
    )


def _line_sums(values: Days, lengths: tuple[int, ...]) -> dict[int, LineSums]:
    """Sum up from the last day backwards, which is day 0; x is negative before it."""
    found = {}
    count, x, y, xx, xy, yy = 0, 0, 0.0, 0, 0.0, 0.0
    newest = oldest = begin = 0
    backwards = values[::-1]
    for length in lengths:
        for lag, value in enumerate(backwards[begin:length], begin):
            if value == value:  # noqa: PLR0124 - NaN
                if not count:
                    newest = lag
                oldest = lag
                count += 1
                x -= lag
                xx += lag * lag
                y += value
                xy -= lag * value
                yy += value * value
        begin = length
        span = oldest - newest + 1 if count else 0
        found[length] = LineSums(count, x, y, xx, xy, yy, span, 0.0)
    return found


def _sums(values: Days, lengths: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    found = {}
    total, count = 0.0, 0
    begin = len(values)
    for length in lengths:
        end, begin = begin, max(len(values) - length, 0)
        for value in values[begin:end]:
            if value == value:  # noqa: PLR0124 - NaN
                total += value
                count += 1
        found[length] = (total, float(count))
    return found


def present_median(values: Days) -> float:
    """Return the median of the values present, NaN where none is."""
    present = sorted(value for value in values if value == value)  # noqa: PLR0124 - NaN
    if not present:
        return math.nan
    return (present[(len(present) - 1) // 2] + present[len(present) // 2]) / 2


def _latest_weekly(capacity: Days) -> float:
    """Return the weekly median six days after the latest measured day, that day alone."""
    return next((value for value in reversed(capacity) if value == value), math.nan)  # noqa: PLR0124 - NaN
