import numpy as np
import pytest

from models.arithmetic import ARRAYS
from models.feature_formulas import line_of
from models.rolling import (
    line_sums,
    sorted_median,
    sums_and_counts,
    window_max,
    window_median,
    window_sum,
)

NAN = float("nan")
START = np.array([0, 0, 0, 0, 4, 4, 4])
VALUES = np.array([1.0, NAN, 3.0, 8.0, 10.0, NAN, 4.0])


def every_row(values):
    return np.arange(len(values))


def test_windows_end_at_their_row_and_never_reach_into_the_run_before():
    assert window_sum(VALUES, START, 2).tolist() == [1, 1, 3, 11, 10, 10, 4]
    assert window_max(VALUES, START, 3, every_row(VALUES)).tolist() == [1, 1, 3, 8, 10, 10, 10]
    assert window_median(VALUES, START, 7).tolist() == [1, 1, 2, 3, 10, 10, 7]


def test_sums_and_counts_of_several_lengths_are_those_at_the_chosen_rows():
    found = sums_and_counts(VALUES, START, (2, 3), np.array([3, 6]))

    assert {length: [part.tolist() for part in parts] for length, parts in found.items()} == {
        2: [[11, 4], [2, 1]],
        3: [[11, 14], [2, 2]],
    }


def test_nothing_measured_is_missing_and_sums_to_nothing():
    nothing, start = np.array([NAN, NAN]), np.array([0, 0])

    assert window_sum(nothing, start, 5).tolist() == [0, 0]
    assert np.isnan(window_max(nothing, start, 5, every_row(nothing))).all()
    assert np.isnan(window_median(nothing, start, 5)).all()


@pytest.mark.parametrize(
    ("row", "expected"),
    [([3, 1, 2], 2), ([4, NAN, 1], 2.5), ([NAN, NAN, 7], 7), ([NAN, NAN, NAN], NAN)],
)
def test_median_is_that_of_the_values_present(row, expected):
    assert sorted_median(np.array([row], float)) == pytest.approx([expected], nan_ok=True)


def lines(values, days, *, least_span=0.6):
    values, start = np.asarray(values, float), np.zeros(len(values), int)
    sums = line_sums(values, start, (days,), every_row(values))[days]
    return line_of(sums, days, least_span, ARRAYS)


def test_an_exact_line_has_its_slope_its_end_and_no_scatter():
    line = lines(5.0 - 0.25 * np.arange(20), 10)

    assert line.slope[9:] == pytest.approx(-0.25)
    assert line.level[9:] == pytest.approx(5.0 - 0.25 * np.arange(9, 20))
    assert line.scatter[9:] == pytest.approx(0.0, abs=1e-6)


def test_a_line_needs_five_values_over_six_tenths_of_its_window():
    values = np.full(30, NAN)
    values[[0, 1, 2, 3]] = 1.0
    assert np.isnan(lines(values, 10).slope).all()
    values[5] = 1.0
    assert np.flatnonzero(np.isfinite(lines(values, 10).slope)).tolist() == [5, 6, 7, 8, 9]
    values[[4, 5]] = 1.0, NAN
    assert np.isnan(lines(values, 10).slope).all()


def test_no_rows_give_no_windows():
    nothing, start = np.zeros(0), np.zeros(0, int)

    assert len(window_median(nothing, start, 7)) == 0
    assert lines(nothing, 7).slope.shape == (0,)
    assert len(window_max(nothing, start, 7, start)) == 0
