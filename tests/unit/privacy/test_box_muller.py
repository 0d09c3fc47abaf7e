"""Gaussians from bits: the right distribution, its far tail, and the same bits everywhere."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from privacy.box_muller import (
    _COSINE_TERMS,
    _HALF_PI,
    _LN_2,
    _LOG_TERMS,
    _SINE_TERMS,
    gaussian_from_words,
    words_needed,
)
from privacy.keystream import keystream

ONES = 2**64 - 1
FIRST_DRAWS = [
    "-0x1.9c036f385fa45p-3",
    "0x1.ccbc9c5c99e3cp+0",
    "-0x1.8d1ccec2cba41p-1",
    "-0x1.28972f51b9943p-2",
]


def fixed_words(size):
    """Bits that are the same in every run: a test of distribution cannot fail by chance."""
    return np.frombuffer(keystream(bytes(32), 7, 8 * words_needed(size)), dtype="<u8")


def scalar_pair(coarse, fine, turn):
    """The same arithmetic in Python's own floats, which IEEE 754 fixes bit by bit."""

    def horner(terms, square):
        total = terms[0]
        for term in terms[1:]:
            total = total * square + term
        return total

    uniform = math.ldexp(float(coarse >> 11), -53) + math.ldexp(float(fine >> 11) + 0.5, -106)
    mantissa, exponent = math.frexp(uniform)
    power = float(exponent)
    if mantissa < 0.7071067811865476:
        mantissa, power = 2.0 * mantissa, power - 1.0
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    logarithm = power * _LN_2 + 2.0 * ratio * horner(_LOG_TERMS, ratio * ratio)
    radius = math.sqrt(-2.0 * logarithm)
    angle = (math.ldexp(float((turn >> 10) & (2**52 - 1)), -52) - 0.5) * _HALF_PI
    square = angle * angle
    sine, cosine = angle * horner(_SINE_TERMS, square), horner(_COSINE_TERMS, square)
    quarter = turn >> 62
    first, second = [(cosine, sine), (-sine, cosine), (cosine, sine), (-sine, cosine)][quarter]
    sign = -radius if quarter >= 2 else radius
    return sign * first, sign * second


def test_array_arithmetic_gives_the_bits_that_scalar_arithmetic_gives():
    size = 2_000
    words = fixed_words(size)
    drawn = gaussian_from_words(words, size)
    pairs = words.reshape(3, -1).T.tolist()
    expected = np.array([scalar_pair(*pair) for pair in pairs]).T.ravel()
    assert np.array_equal(drawn, expected)


def test_first_draws_of_a_fixed_keystream_are_these():
    drawn = gaussian_from_words(fixed_words(4), 4)
    assert [value.hex() for value in drawn.tolist()] == FIRST_DRAWS


@pytest.mark.parametrize(
    ("coarse", "fine", "turn"),
    [
        (0, 0, 0),
        (0, ONES, 1 << 61),
        (1 << 11, 5, 3 << 62),
        (ONES, ONES, ONES),
        (1 << 63, 12345, 1 << 62),
        (ONES - (1 << 40), 7, 2 << 62),
    ],
)
def test_a_pair_is_what_forty_digits_give(coarse, fine, turn):
    drawn = gaussian_from_words(np.array([coarse, fine, turn], dtype=np.uint64), 2)
    with mpmath.workdps(40):
        uniform = mpmath.mpf(coarse >> 11) / 2**53 + (mpmath.mpf(fine >> 11) + 0.5) / 2**106
        radius = mpmath.sqrt(-2 * mpmath.log(uniform))
        fraction = mpmath.mpf((turn >> 10) & (2**52 - 1)) / 2**52
        angle = mpmath.pi / 2 * ((turn >> 62) + fraction - mpmath.mpf(1) / 2)
        exact = [float(radius * mpmath.cos(angle)), float(radius * mpmath.sin(angle))]
    assert drawn == pytest.approx(exact, rel=1e-14, abs=2e-8 if coarse == ONES else 1e-15)


def test_the_tail_reaches_twelve_standard_deviations():
    farthest = gaussian_from_words(np.array([0, 0, 1 << 61], dtype=np.uint64), 2)
    assert farthest[0] == pytest.approx(math.sqrt(2 * 107 * math.log(2)), rel=1e-12)
    assert 12.1 < np.abs(farthest).max() < 12.2


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_moments_are_those_of_the_normal_law(power):
    # Standard error of a mean of x^k: sqrt(E x^2k / n); 5 of them, on fixed bits.
    size = 200_000
    drawn = gaussian_from_words(fixed_words(size), size)
    expected = {1: 0.0, 2: 1.0, 3: 0.0, 4: 3.0}[power]
    spread = {1: 1.0, 2: 2.0, 3: 15.0, 4: 96.0}[power]
    assert np.mean(drawn**power) == pytest.approx(expected, abs=5 * math.sqrt(spread / size))


def test_draws_follow_the_normal_law():
    drawn = gaussian_from_words(fixed_words(100_001), 100_001)
    assert drawn.shape == (100_001,)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3


def test_partners_of_a_pair_are_independent_also_in_size():
    drawn = gaussian_from_words(fixed_words(100_000), 100_000)
    first, second = drawn[:50_000], drawn[50_000:]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(50_000)
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 5 / math.sqrt(50_000)


def test_nothing_asked_for_is_nothing():
    assert gaussian_from_words(np.array([], dtype=np.uint64), 0).shape == (0,)
