"""Single numbers are calculated with as arrays are."""

import math

import numpy as np
import pytest

from models.arithmetic import ARRAYS, NUMBERS

VALUES = (-2.5, 0.0, 1.0, 7.25, math.nan)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("other", VALUES)
def test_numbers_follow_the_rules_of_arrays(value, other):
    left, right = np.array([value]), np.array([other])
    for name in ("greater", "smaller"):
        found = getattr(NUMBERS, name)(value, other)
        assert found == pytest.approx(getattr(ARRAYS, name)(left, right)[0], nan_ok=True)
    found = NUMBERS.where(value > other, value, other)
    assert found == pytest.approx(ARRAYS.where(left > right, left, right)[0], nan_ok=True)
    is_usable = other != 0 and not math.isnan(other)
    found = NUMBERS.ratio(value, other, when=is_usable)
    expected = ARRAYS.ratio(left, right, when=np.array([is_usable]))[0]
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 2.25, math.nan])
def test_roots_are_alike(value):
    assert NUMBERS.root(value) == pytest.approx(ARRAYS.root(np.array([value]))[0], nan_ok=True)
