"""The polar method: its numbers are Gaussian, independent, bounded, and as many as asked for."""

import math

import numpy as np
import pytest
from scipy import stats

from privacy.polar_gaussian import polar_gaussian

FALSE_ALARM = 1e-6


def seeded_words(seed=1):
    generator = np.random.Generator(np.random.Philox(seed))
    return lambda size: generator.integers(0, 2**64, size, dtype=np.uint64)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 2493])
def test_it_gives_as_many_as_are_asked_for(size):
    drawn = polar_gaussian(seeded_words(), size, std=2.0)
    assert (drawn.shape, drawn.dtype) == ((size,), np.float64)
    assert np.isfinite(drawn).all()


def test_numbers_are_gaussian_with_the_std_asked_for():
    drawn = polar_gaussian(seeded_words(), 400_000, std=3.0) / 3.0
    assert stats.kstest(drawn, "norm").pvalue > FALSE_ALARM
    assert abs(drawn.mean()) < 5 / math.sqrt(len(drawn))
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / len(drawn))
    assert abs((np.abs(drawn) > 3).mean() - 2 * stats.norm.sf(3)) < 5 * math.sqrt(0.0027 / 4e5)


def test_the_two_of_a_pair_are_independent():
    first, second = polar_gaussian(seeded_words(2), 400_000, std=1.0).reshape(2, -1)
    bound = 5 / math.sqrt(len(first))
    assert abs(np.mean(first * second)) < bound
    assert abs(np.mean(first**2 * second**2) - 1) < 3 * bound


def test_the_tail_reaches_as_far_as_the_grid_of_the_coordinates():
    def words(size):
        found = np.zeros(size, np.uint64)
        found[: size // 2] = 1 << 10
        return found

    farthest = polar_gaussian(words, 4, std=1.0)
    assert 12.0 < np.abs(farthest).max() < 12.2


def test_too_few_in_the_disc_are_drawn_anew():
    calls = []
    good = seeded_words(3)

    def words(size):
        calls.append(size)
        if len(calls) == 1:
            return np.full(size, 2**63 - 1, np.uint64)
        return good(size)

    assert np.isfinite(polar_gaussian(words, 100, std=1.0)).all()
    assert len(calls) == 2


def test_the_grid_of_coordinates_lies_within_the_square():
    def words(size):
        corners = np.array([0, 2**63, 2**62, 2**64 - 1], np.uint64)
        return np.resize(corners, size)

    drawn = polar_gaussian(words, 2, std=1.0)
    assert np.isfinite(drawn).all()
