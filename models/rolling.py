"""Trailing windows over ragged daily rows, vectorised over all rows of all devices at once.

Rows are days; each belongs to a run of consecutive days (one battery pack of one device) that
begins at row `start`. A window of w days ends at its row and never reaches before `start`. Sums are
differences of running totals, so the totals of a channel serve windows of any length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Rows = NDArray[np.intp]

LEAST_IN_A_LINE = 5


class Windows:
    """Windows of some lengths that end at chosen rows.

    Args:
        start: first row of each row's run, shape (n_rows,).
        days: lengths, shape (n_lengths,).
        rows: rows at which windows end, shape (n_ends,); None = all.
    """

    def __init__(self, start: Rows, days: tuple[int, ...], rows: Rows | None = None) -> None:
        self.days = np.array(days)[:, None]
        self.rows = np.arange(len(start)) if rows is None else rows
        self.start = start if rows is None else start[rows]
        self.first = np.maximum(self.rows - (self.days - 1), self.start)

    def sum(self, totals: Values) -> Values:
        """Return the sums in each window from running totals.

        Args:
            totals: shape (..., n_rows + 1), as `running_totals` returns them.

        Returns:
            Shape (..., n_lengths, n_ends).
        """
        result: Values = totals[..., None, self.rows + 1] - totals[..., self.first]
        return result


def window_table(values: Values, start: Rows, days: int, rows: Rows) -> Values:
    """Return the values in the windows that end at `rows`, oldest first; NaN before a run.

    Args:
        values: shape (n_rows,).
        start: first row of each row's run, shape (n_rows,).
        days: length of the windows.
        rows: shape (n_ends,).

    Returns:
        Shape (n_ends, days).
    """
    if len(values) == 0:
        return np.zeros((0, days))
    index = rows[:, None] - np.arange(days - 1, -1, -1)
    inside = index >= start[rows][:, None]
    return np.where(inside, values[np.maximum(index, 0)], np.nan)


def running_totals(values: Values) -> Values:
    """Return the totals of `values`, none of which is missing, before each row and at the end.

    Args:
        values: shape (..., n_rows).

    Returns:
        Shape (..., n_rows + 1), beginning with 0.
    """
    totals = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=totals[..., 1:])
    return totals


class Channels:
    """Stacked channels of daily values, with the running totals that their windows share.

    Args:
        values: float64, shape (n_channels, n_rows), NaN = missing.
    """

    def __init__(self, values: Values) -> None:
        present = np.isfinite(values)
        self._totals = running_totals(np.stack([present, np.where(present, values, 0.0)]))

    def sum_and_count(self, windows: Windows) -> tuple[Values, Values]:
        """Return sum and number of the values present, (n_channels, n_lengths, n_ends)."""
        count, total = windows.sum(self._totals)
        return total, count


def window_sum(values: Values, start: Rows, days: int) -> Values:
    """Return the sum of the values that are present in each row's window; 0 where none is."""
    totals = running_totals(np.where(np.isfinite(values), values, 0.0))
    total: Values = Windows(start, (days,)).sum(totals)[0]
    return total


def window_median(values: Values, start: Rows, days: int, rows: Rows | None = None) -> Values:
    """Return the median of the values present in the windows that end at `rows` (None = all)."""
    ends = np.arange(len(start)) if rows is None else rows
    return sorted_median(window_table(values, start, days, ends))


def window_max(values: Values, start: Rows, days: int, rows: Rows) -> Values:
    """Return the greatest value present in the windows that end at `rows`; NaN where none is."""
    table = window_table(values, start, days, rows)
    greatest: Values = np.fmax.reduce(table, axis=1)
    return greatest


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


class Line(NamedTuple):
    """Least-squares lines, one a channel and window; NaN where there is too little.

    Attributes:
        slope: change a day.
        level: value of the line at the window's end.
        scatter: standard deviation of the values around the line.
    """

    slope: Values
    level: Values
    scatter: Values


class Lines:
    """Least-squares lines through the values present in trailing windows.

    Args:
        values: float64, shape (n_channels, n_rows), NaN = missing.
        start: first row of each row's run, shape (n_rows,).
    """

    def __init__(self, values: Values, start: Rows) -> None:
        rows = np.arange(values.shape[-1])
        self._day = (rows - start).astype(float)
        present = np.isfinite(values)
        y = np.where(present, values, 0.0)
        x = present * self._day
        sums = np.empty((6, *values.shape))
        sums[0], sums[1], sums[2] = present, x, y
        np.multiply(x, x, out=sums[3])
        np.multiply(x, y, out=sums[4])
        np.multiply(y, y, out=sums[5])
        self._totals = running_totals(sums)
        self._latest = np.maximum.accumulate(np.where(present, rows, -1), axis=-1)
        following = np.where(present, rows, len(rows))[..., ::-1]
        self._next = np.minimum.accumulate(following, axis=-1)[..., ::-1]

    def over(self, windows: Windows, *, least_span: Values) -> Line:
        """Fit a line in each window.

        Args:
            windows: where.
            least_span: shape (n_channels,): fewest days between first and last value, as a share of
                the window; below it, and below 5 values, there is no line.

        Returns:
            Arrays of shape (n_channels, n_lengths, n_ends).
        """
        sums = windows.sum(self._totals)
        count = sums[0]
        divisor = np.maximum(count, 1.0)
        mean_x, mean_y, mean_xx, mean_xy, mean_yy = sums[1:] / divisor
        var_x = mean_xx - mean_x * mean_x
        cov = mean_xy - mean_x * mean_y
        var_y = mean_yy - mean_y * mean_y
        span = self._latest[:, None, windows.rows] - self._next[:, windows.first] + 1
        enough = (count >= LEAST_IN_A_LINE) & (span >= least_span[:, None, None] * windows.days)
        slope = np.divide(cov, var_x, out=np.full_like(cov, np.nan), where=enough)
        level = mean_y + slope * (self._day[windows.rows] - mean_x)
        residual = np.maximum(var_y - slope * cov, 0.0)
        scatter = np.sqrt(residual * count / np.maximum(count - 2.0, 1.0))
        return Line(slope=slope, level=level, scatter=scatter)
