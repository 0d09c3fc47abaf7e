"""Trailing windows over ragged daily rows, vectorised over all rows of all devices at once.

Rows are days; each belongs to a run of consecutive days (one battery pack of one device) that
begins at row `start`. A window of w days ends at its row and never reaches before `start`. Sums are
differences of running totals, so the totals of a channel serve windows of any length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .feature_formulas import LineSums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Rows = NDArray[np.intp]


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


def sums_and_counts(
    values: Values, start: Rows, lengths: tuple[int, ...], rows: Rows
) -> dict[int, tuple[Values, Values]]:
    """Return sum and number of the values present in the windows that end at `rows`, by length.

    Args:
        values: shape (n_rows,), NaN = missing.
        start: first row of each row's run, shape (n_rows,).
        lengths: of the windows.
        rows: shape (n_ends,).
    """
    present = np.isfinite(values)
    totals = running_totals(np.stack([np.where(present, values, 0.0), present]))
    found = Windows(start, lengths, rows).sum(totals)
    return {length: (found[0, at], found[1, at]) for at, length in enumerate(lengths)}


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


def line_sums(
    values: Values, start: Rows, lengths: tuple[int, ...], rows: Rows
) -> dict[int, LineSums]:
    """Return the sums for lines through the values present in windows that end at `rows`.

    Args:
        values: shape (n_rows,), NaN = missing.
        start: first row of each row's run, shape (n_rows,).
        lengths: of the windows.
        rows: shape (n_ends,).

    Returns:
        By length, each part of shape (n_ends,).
    """
    every = np.arange(len(values))
    day = (every - start).astype(float)
    present = np.isfinite(values)
    y = np.where(present, values, 0.0)
    x = present * day
    totals = running_totals(np.stack([present, x, y, x * x, x * y, y * y]))
    latest = np.maximum.accumulate(np.where(present, every, -1))
    following = np.where(present, every, len(every))[::-1]
    following = np.minimum.accumulate(following)[::-1]
    windows = Windows(start, lengths, rows)
    sums = windows.sum(totals)
    span = latest[windows.rows] - following[windows.first] + 1
    found = {}
    for at, length in enumerate(lengths):
        count, x, y, xx, xy, yy = sums[:, at]
        found[length] = LineSums(count, x, y, xx, xy, yy, span[at], day[windows.rows])
    return found
