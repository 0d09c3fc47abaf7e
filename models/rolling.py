"""Trailing windows over ragged daily rows, vectorised over all rows of all devices at once.

Rows are days; each belongs to a run of consecutive days (one battery pack of one device) that
begins at row `start`. A window of w days ends at its row and never reaches before `start`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Rows = NDArray[np.intp]


def _before(start: Rows, days: int) -> Rows:
    rows = np.arange(len(start))
    return np.maximum(rows - days + 1, start)


def window_sum(values: Values, start: Rows, days: int) -> Values:
    """Return the sum of the values that are present in each window; 0 where none is."""
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    result: Values = total[1:] - total[_before(start, days)]
    return result


def window_count(values: Values, start: Rows, days: int) -> Values:
    """Return how many values are present in each window."""
    return window_sum(np.isfinite(values).astype(float), start, days)


def window_mean(values: Values, start: Rows, days: int, *, at_least: int = 1) -> Values:
    """Return the mean of the values present; NaN below `at_least` of them."""
    count = window_count(values, start, days)
    total = window_sum(values, start, days)
    return np.where(count >= at_least, total / np.maximum(count, 1), np.nan)


def window_max(values: Values, start: Rows, days: int) -> Values:
    """Return the greatest value present; NaN where none is (doubling of window lengths)."""
    best = np.where(np.isfinite(values), values, -np.inf)
    rows = np.arange(len(start))
    length = 1
    while length < days:
        step = min(length, days - length)
        best = np.maximum(best, best[np.maximum(rows - step, start)])
        length += step
    return np.where(np.isfinite(best), best, np.nan)


def window_median(values: Values, start: Rows, days: int) -> Values:
    """Return the median of the values present; NaN where none is."""
    rows = np.arange(len(start))
    lagged = np.stack(
        [
            np.where(rows - lag >= start, values[np.maximum(rows - lag, 0)], np.nan)
            for lag in range(days)
        ],
        axis=1,
    )
    return sorted_median(lagged)


def sorted_median(table: Values) -> Values:
    """Return the median of each row's present values, shape (n,); NaN where none is."""
    if len(table) == 0:
        return np.zeros(0)
    ordered = np.sort(table, axis=1)
    count = np.isfinite(table).sum(axis=1)
    rows = np.arange(len(table))
    low = ordered[rows, np.maximum(count - 1, 0) // 2]
    high = ordered[rows, np.minimum(count // 2, table.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, np.nan)


@dataclass(frozen=True, slots=True)
class Line:
    """Least-squares lines over trailing windows, one a row; NaN where there is too little.

    Attributes:
        slope: change a day.
        level: value of the line at the window's end.
        scatter: standard deviation of the values around the line.
    """

    slope: Values
    level: Values
    scatter: Values


def window_line(
    values: Values,
    start: Rows,
    days: int,
    *,
    at_least: int = 5,
    least_span: float = 0.6,
) -> Line:
    """Fit a line to the values present in each window.

    Args:
        values: shape (n,).
        start: first row of each row's run, shape (n,).
        days: window length.
        at_least: fewest values for a line.
        least_span: fewest days between first and last value, as a share of the window.
    """
    rows = np.arange(len(start))
    present = np.isfinite(values)
    day = (rows - start).astype(float)
    x = np.where(present, day, np.nan)
    count = window_count(values, start, days)
    divisor = np.maximum(count, 1)
    mean_x = window_sum(x, start, days) / divisor
    mean_y = window_sum(values, start, days) / divisor
    var_x = window_sum(x * x, start, days) / divisor - mean_x**2
    cov = window_sum(x * values, start, days) / divisor - mean_x * mean_y
    var_y = window_sum(values * values, start, days) / divisor - mean_y**2
    latest = np.maximum.accumulate(np.where(present, rows, -1))
    following = np.where(present, rows, len(rows))[::-1]
    next_present = np.minimum.accumulate(following)[::-1]
    earliest = next_present[_before(start, days)] if len(rows) else rows
    enough = (count >= at_least) & (latest - earliest + 1 >= least_span * days)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(enough, cov / var_x, np.nan)
    level = mean_y + slope * (day - mean_x)
    residual = np.maximum(var_y - slope * cov, 0.0)
    scatter = np.sqrt(residual * count / np.maximum(count - 2, 1))
    return Line(slope=slope, level=level, scatter=scatter)
