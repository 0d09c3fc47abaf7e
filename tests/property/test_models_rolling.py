"""Trailing windows against loops over each window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arithmetic import ARRAYS
from models.feature_formulas import line_of
from models.rolling import line_sums, sums_and_counts, window_max, window_median, window_sum


@st.composite
def ragged_rows(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    size = sum(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(draw(st.sampled_from([0.0, 50.0])), 3, size)
    values[rng.random(size) < draw(st.sampled_from([0.0, 0.2, 0.8]))] = np.nan
    starts = np.cumsum([0, *lengths[:-1]])
    return values, np.repeat(starts, lengths)


def each_window(values, start, days):
    for row in range(len(values)):
        first = max(start[row], row - days + 1)
        window = values[first : row + 1]
        yield first, window[np.isfinite(window)]


@given(ragged_rows(), st.integers(1, 45))
def test_windows_equal_loops(rows, days):
    values, start = rows
    windows = [window for _, window in each_window(values, start, days)]

    def by_loop(function):
        return [function(window) if len(window) else np.nan for window in windows]

    every_row = np.arange(len(values))
    total, count = sums_and_counts(values, start, (days,), every_row)[days]
    assert count.tolist() == [len(window) for window in windows]
    assert total == pytest.approx([window.sum() for window in windows], abs=1e-8)
    assert window_sum(values, start, days) == pytest.approx(
        [window.sum() for window in windows], abs=1e-8
    )
    assert window_max(values, start, days, every_row) == pytest.approx(by_loop(np.max), nan_ok=True)
    assert window_median(values, start, days) == pytest.approx(by_loop(np.median), nan_ok=True)


@given(ragged_rows(), st.integers(2, 45), st.sampled_from([0.3, 0.6]))
def test_lines_equal_least_squares_of_each_window(rows, days, least_span):
    values, start = rows
    sums = line_sums(values, start, (days,), np.arange(len(values)))[days]
    slopes, levels, scatters = line_of(sums, days, least_span, ARRAYS)

    for row, (first, window) in enumerate(each_window(values, start, days)):
        x = np.flatnonzero(np.isfinite(values[first : row + 1])) + first
        if len(x) < 5 or x[-1] - x[0] + 1 < least_span * days:
            assert np.isnan([slopes[row], levels[row], scatters[row]]).all()
            continue
        slope, offset = np.polyfit(x, window, 1)
        residual = window - (slope * x + offset)
        assert slopes[row] == pytest.approx(slope, abs=1e-7)
        assert levels[row] == pytest.approx(slope * row + offset, abs=1e-6)
        scatter = np.sqrt((residual**2).sum() / (len(x) - 2))
        assert scatters[row] == pytest.approx(scatter, abs=1e-5)
