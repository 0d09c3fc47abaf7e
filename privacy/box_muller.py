"""Gaussian numbers from random bits, the same on every machine.

Box and Muller 1958: with U in (0, 1] and an angle, radius √(−2 ln U) times cosine and sine are two
independent N(0, 1). U is a multiple of 2^-106, plus half of one, so the tail reaches 12.18 standard
deviations; what lies beyond has probability 6e-33 a pair. The angle has 54 bits.

Logarithm, sine and cosine are sums of products here, without fused operations: IEEE 754 fixes every
bit of these, but not of a library's functions, which differ between processors. So noise that is
made again from its key, after a crash or on another machine, is bit-identical.

Floating point (Mironov 2012): a draw is a float64 near the real one (relative error 1e-15), then
rounded to the grid of the sums it is added to (`privacy.clipping.UpdateGrid.round_noise`), so the
set of possible outputs does not depend on data. The threat model names what is left.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

WORDS_PER_PAIR: Final = 3
_LN_2: Final = 0.6931471805599453
_HALF_PI: Final = 1.5707963267948966
_LOG_TERMS: Final = tuple(1.0 / (2 * power + 1) for power in range(11, -1, -1))
_SINE_TERMS: Final = tuple(
    (-1.0) ** power / math.factorial(2 * power + 1) for power in range(8, -1, -1)
)
_COSINE_TERMS: Final = tuple(
    (-1.0) ** power / math.factorial(2 * power) for power in range(9, -1, -1)
)


def words_needed(size: int) -> int:
    """How many 64-bit words make `size` Gaussians."""
    return WORDS_PER_PAIR * ((size + 1) // 2)


def gaussian_from_words(words: NDArray[np.uint64], size: int) -> NDArray[np.float64]:
    """Turn random bits into independent draws from N(0, 1).

    Args:
        words: uint64, shape (words_needed(size),), independent uniform bits.
        size: Number of draws.

    Returns:
        float64, shape (size,); at most 12.2 in absolute value.
    """
    coarse, fine, turn = words.reshape(WORDS_PER_PAIR, -1)
    # 53 bits, and where they are near zero 53 more below them.
    uniform = np.ldexp((coarse >> np.uint64(11)).astype(np.float64), -53)
    uniform += np.ldexp((fine >> np.uint64(11)).astype(np.float64) + 0.5, -53 - 53)
    radius = np.sqrt(-2.0 * _logarithm(uniform))
    # Two bits choose the quarter turn, 52 the angle within ±π/4 of it.
    quarter = turn >> np.uint64(62)
    fraction = np.ldexp(((turn >> np.uint64(10)) & np.uint64(2**52 - 1)).astype(np.float64), -52)
    angle = (fraction - 0.5) * _HALF_PI
    square = angle * angle
    sine, cosine = angle * _horner(_SINE_TERMS, square), _horner(_COSINE_TERMS, square)
    swapped = (quarter & np.uint64(1)).astype(bool)
    sign = np.where(quarter >= np.uint64(2), -radius, radius)
    first, second = np.where(swapped, -sine, cosine), np.where(swapped, cosine, sine)
    return np.concatenate([sign * first, sign * second])[:size]


def _logarithm(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm over (0, 1]: ln(2^e m) = e ln 2 + 2 artanh((m − 1)/(m + 1)), √½ ≤ m < √2."""
    mantissa, exponent = np.frexp(uniform)
    is_small = mantissa < 0.7071067811865476
    mantissa = np.where(is_small, 2.0 * mantissa, mantissa)
    power = exponent.astype(np.float64) - is_small
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    return power * _LN_2 + 2.0 * ratio * _horner(_LOG_TERMS, ratio * ratio)


def _horner(terms: tuple[float, ...], square: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.full_like(square, terms[0])
    for term in terms[1:]:
        total *= square
        total += term
    return total
