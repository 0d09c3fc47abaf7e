"""The discrete Gaussian, sampled exactly: integers and fractions only, no floating point.

N_Z(0, σ²) has P[x] ∝ e^(−x²/(2σ²)) over the integers. Algorithms 1 to 3 of Canonne, Kamath, Steinke
2020, "The discrete Gaussian for differential privacy" (arXiv 2004.00010). Every comparison is one
of integers against uniform random integers, so the distribution is exactly the one named, given
uniform bits. What it costs to add such noise to counts is derived at
`privacy.discrete_accounting`.

The number of steps depends on what is drawn, so time tells something of the noise to whoever can
measure it; the threat model names that.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .noise import NoiseSource

_LARGEST_VARIANCE: Final = 2**112
"""Draws stay within int64 but for a probability below e^(−2^13)."""
_BUFFER_WORDS: Final = 4096


def discrete_gaussian(
    sigma_squared: Fraction | int, size: int, source: NoiseSource
) -> NDArray[np.int64]:
    """Independent draws from N_Z(0, σ²).

    Args:
        sigma_squared: σ², exact, in 0..2^112; a float's exact value is `Fraction(value) ** 2`.
        size: Number of draws.
        source: Where the bits come from.

    Returns:
        int64, shape (size,); zeros for σ² = 0.

    Raises:
        ValueError: σ² is out of bounds.
    """
    variance = Fraction(sigma_squared)
    if not 0 <= variance <= _LARGEST_VARIANCE:
        raise ValueError(f"sigma_squared must lie in 0..2^112, got {sigma_squared}")
    if variance == 0:
        return np.zeros(size, dtype=np.int64)
    draw = _ExactDraws(source)
    return np.array([draw.gaussian(variance) for _ in range(size)], dtype=np.int64)


class _ExactDraws:
    """Coins and draws from uniform bits, by comparing integers."""

    def __init__(self, source: NoiseSource) -> None:
        self._words = _words(source)
        self._pool = 0
        self._available = 0

    def gaussian(self, variance: Fraction) -> int:
        """Algorithm 3: a Laplace draw, kept with probability e^(−(|Y| − σ²/t)²/(2σ²))."""
        over, under = variance.as_integer_ratio()
        scale = math.isqrt(over // under) + 1
        denominator = 2 * over * under * scale * scale
        while True:
            draw = self._laplace(scale)
            if self._exponential_coin((abs(draw) * scale * under - over) ** 2, denominator):
                return draw

    def _laplace(self, scale: int) -> int:
        """Algorithm 2: P[x] ∝ e^(−|x|/t)."""
        while True:
            low = self._below(scale)
            if not self._exponential_coin(low, scale):
                continue
            high = 0
            while self._exponential_coin(1, 1):
                high += 1
            is_negative = self._below(2) == 1
            size = low + scale * high
            if not (is_negative and size == 0):
                return -size if is_negative else size

    def _exponential_coin(self, over: int, under: int) -> bool:
        """Algorithm 1: true with probability e^(−over/under), over/under ≥ 0."""
        whole, rest = divmod(over, under)
        return all(self._fraction_coin(1, 1) for _ in range(whole)) and self._fraction_coin(
            rest, under
        )

    def _fraction_coin(self, over: int, under: int) -> bool:
        """True with probability e^(−over/under), 0 ≤ over/under ≤ 1: Σ_k (−γ)^k / k!, term by term.

        The number of successes before the first failure is K − 1, and K is odd that often.
        """
        count = 1
        while self._below(under * count) < over:
            count += 1
        return count % 2 == 1

    def _below(self, bound: int) -> int:
        """Uniform on 0..bound − 1, by rejection."""
        bits = (bound - 1).bit_length()
        while True:
            while self._available < bits:
                self._pool |= next(self._words) << self._available
                self._available += 64
            value = self._pool & ((1 << bits) - 1)
            self._pool >>= bits
            self._available -= bits
            if value < bound:
                return value


def _words(source: NoiseSource) -> Iterator[int]:
    while True:
        yield from source.words(_BUFFER_WORDS).tolist()
