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
    return _sum_since(np.where(np.isfinite(values), values, 0.0), _before(start, days))


def _sum_since(values: Values, first: Rows) -> Values:
    """Return the sum of `values`, none of which is missing, from row `first` to each row."""
    total = np.zeros(len(values) + 1)
    np.cumsum(values, out=total[1:])
    result: Values = total[1:] - total[first]
    return result


def window_count(values: Values, start: Rows, days: int) -> Values:
    """Return how many values are present in each window."""
    return _sum_since(np.isfinite(values).astype(float), _before(start, days))


def window_mean(values: Values, start: Rows, days: int, *, at_least: int = 1) -> Values:
    """Return the mean of the values present; NaN below `at_least` of them."""
    present, first = np.isfinite(values), _before(start, days)
    count = _sum_since(present.astype(float), first)
    total = _sum_since(np.where(present, values, 0.0), first)
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
    count = len(start)
    lagged = np.full((count, days), np.nan)
    for lag in range(min(days, count)):
        lagged[lag:, lag] = values[: count - lag]
    age = np.arange(count) - start
    lagged[age[:, None] < np.arange(days)] = np.nan
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
    present, first = np.isfinite(values), _before(start, days)
    day = (rows - start).astype(float)
    x, y = np.where(present, day, 0.0), np.where(present, values, 0.0)
    count = _sum_since(present.astype(float), first)
    divisor = np.maximum(count, 1)
    mean_x = _sum_since(x, first) / divisor
    mean_y = _sum_since(y, first) / divisor
    var_x = _sum_since(x * x, first) / divisor - mean_x**2
    cov = _sum_since(x * y, first) / divisor - mean_x * mean_y
    var_y = _sum_since(y * y, first) / divisor - mean_y**2
    latest = np.maximum.accumulate(np.where(present, rows, -1))
    following = np.where(present, rows, len(rows))[::-1]
    next_present = np.minimum.accumulate(following)[::-1]
    earliest = next_present[first] if len(rows) else rows
    enough = (count >= at_least) & (latest - earliest + 1 >= least_span * days)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(enough, cov / var_x, np.nan)
    level = mean_y + slope * (day - mean_x)
    residual = np.maximum(var_y - slope * cov, 0.0)
    scatter = np.sqrt(residual * count / np.maximum(count - 2, 1))
    return Line(slope=slope, level=level, scatter=scatter)
