"""The exact sampler against the exact law: chi-square, moments, coins, and huge variances."""

import math
import time
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import stats

from privacy import OperatingSystemNoise
from privacy.discrete_gaussian import _ExactDraws, discrete_gaussian
from privacy.keystream import keystream

FALSE_ALARM = 1e-4
"""Of each test, were its bits random; they are fixed, so it does not fail by chance later."""


class FixedBits:
    """Bits that are the same in every run, from ChaCha20 under a key of zeros."""

    is_simulated = True

    def __init__(self, key=bytes(32)):
        self.key = key
        self.drawn = 0

    def words(self, size):
        self.drawn += 1
        return np.frombuffer(keystream(self.key, self.drawn, 8 * size), dtype="<u8")


def exact_pmf(variance, reach):
    """P[x] for |x| ≤ reach, 40 digits."""
    with mpmath.workdps(40):
        two = 2 * mpmath.mpf(variance.numerator) / variance.denominator
        far = max(reach, int(20 * math.sqrt(variance)) + 20)
        total = mpmath.fsum(mpmath.exp(-(x * x) / two) for x in range(-far, far + 1))
        return {x: float(mpmath.exp(-(x * x) / two) / total) for x in range(-reach, reach + 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "variance",
    [Fraction(1, 16), Fraction(1, 2), Fraction(1), Fraction(7, 3), Fraction(33.6123) ** 2],
    ids=["small", "half", "one", "seven thirds", "a count's"],
)
def test_draws_follow_the_exact_law(variance):
    size = 8_000
    drawn = discrete_gaussian(variance, size, FixedBits())
    width = max(1, int(math.sqrt(variance) / 2))
    reach = int(4 * math.sqrt(variance)) + 1
    pmf = exact_pmf(variance, reach)
    cells = {}
    for value, probability in pmf.items():
        cells[value // width] = cells.get(value // width, 0.0) + probability
    names, counts = np.unique(drawn[np.abs(drawn) <= reach] // width, return_counts=True)
    seen = dict(zip(names.tolist(), counts.tolist(), strict=True))
    kept = [name for name, probability in cells.items() if probability * size >= 5]
    observed = [seen.get(name, 0) for name in kept]
    expected = [cells[name] * size for name in kept]
    observed.append(size - sum(observed))
    expected.append(max(size - sum(expected), 1e-9))
    if expected[-1] < 5:
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1, 100, 10**6, 2**80])
def test_moments_are_those_of_the_law(variance):
    # From σ = 1 on, variance and kurtosis are the normal ones but for 1e-7; 5 standard errors.
    size = 8_000
    drawn = discrete_gaussian(variance, size, FixedBits()) / math.sqrt(variance)
    assert np.mean(drawn) == pytest.approx(0.0, abs=5 / math.sqrt(size))
    assert np.mean(drawn**2) == pytest.approx(1.0, abs=5 * math.sqrt(2 / size))
    assert np.mean(drawn**3) == pytest.approx(0.0, abs=5 * math.sqrt(15 / size))
    assert np.mean(drawn**4) == pytest.approx(3.0, abs=5 * math.sqrt(96 / size))


def test_a_large_scale_uses_every_bit_of_its_integers():
    drawn = discrete_gaussian(2**100, 4_000, FixedBits())
    # The lowest bits of draws of scale 2^50 are uniform: residues modulo 16, chi-square.
    assert stats.chisquare(np.bincount(drawn % 16, minlength=16)).pvalue > FALSE_ALARM
    assert np.abs(drawn).max() > 2**51


@pytest.mark.parametrize(
    ("over", "under"), [(0, 1), (1, 7), (1, 2), (1, 1), (5, 2), (9, 2), (10**20 + 1, 10**20)]
)
def test_a_coin_falls_with_the_probability_of_its_exponent(over, under):
    draws, size = _ExactDraws(FixedBits()), 8_000
    heads = sum(draws._exponential_coin(over, under) for _ in range(size))
    probability = math.exp(-over / under)
    assert stats.binomtest(heads, size, probability).pvalue > FALSE_ALARM


def test_acceptance_uses_integers_that_no_float_can_hold():
    # Scale 2^56: what had passed through a float64 would be even beyond 2^53.
    drawn = discrete_gaussian(2**112, 2_000, FixedBits()).astype(object)
    assert any(value % 2 for value in drawn if abs(value) > 2**53)
    scaled = drawn.astype(np.float64) / 2.0**56
    assert np.mean(scaled**2) == pytest.approx(1.0, abs=5 * math.sqrt(2 / 2_000))


@pytest.mark.slow
def test_ten_thousand_draws_take_less_than_seconds():
    begun = time.process_time()
    drawn = discrete_gaussian(Fraction(33.6123) ** 2, 10_000, OperatingSystemNoise())
    assert time.process_time() - begun < 5.0
    assert drawn.dtype == np.int64
    assert drawn.std() == pytest.approx(33.6, rel=6 / math.sqrt(20_000))


def test_draws_of_the_operating_system_do_not_repeat():
    first = discrete_gaussian(10**6, 20, OperatingSystemNoise())
    assert not np.array_equal(first, discrete_gaussian(10**6, 20, OperatingSystemNoise()))


def test_no_variance_is_no_noise_and_bounds_are_kept():
    assert discrete_gaussian(0, 3, FixedBits()).tolist() == [0, 0, 0]
    assert discrete_gaussian(1, 0, FixedBits()).shape == (0,)
    for outside in (-1, Fraction(-1, 2), 2**112 + 1):
        with pytest.raises(ValueError, match="sigma_squared"):
            discrete_gaussian(outside, 1, FixedBits())
