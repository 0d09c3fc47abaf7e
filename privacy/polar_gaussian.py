"""Gaussian numbers from random bits by the polar method, for noise that nobody makes again.

Marsaglia and Bray 1964, "A convenient method for generating normal variables": for (X, Y) uniform
in the unit disc and S = X² + Y², the numbers X·√(−2 ln S / S) and Y·√(−2 ln S / S) are two
independent N(0, 1). Coordinates are multiples of 2^-53, so the tail reaches 12.1 standard
deviations. It needs neither sine nor cosine and takes a third of the time of
`privacy.box_muller`, whose bits are the same on every machine: that is for keyed streams, this for
a device's own steps. How many draws the disc rejects depends on random bits alone.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_COORDINATE_BITS = 53


def polar_gaussian(
    words: Callable[[int], NDArray[np.uint64]], size: int, *, std: float
) -> NDArray[np.float64]:
    """Draw independent numbers from N(0, std²).

    Args:
        words: Gives so many independent uniform 64-bit words, fresh ones at each call.
        size: Number of draws.
        std: Standard deviation, at least 0.

    Returns:
        float64, shape (size,); at most 12.1 standard deviations in absolute value.
    """
    pairs = (size + 1) // 2
    # Of the square π/4 lie in the disc; four deviations more are enough 99,997 times in 100,000.
    drawn = int(pairs * 4 / math.pi + 4 * math.sqrt(pairs)) + 8
    while True:
        signed = words(2 * drawn).view(np.int64) >> (63 - _COORDINATE_BITS)
        coordinates = signed.astype(np.float64).reshape(2, -1)
        coordinates *= 2.0**-_COORDINATE_BITS
        squares = coordinates * coordinates
        distance = squares[0] + squares[1]
        within = np.flatnonzero((distance < 1.0) & (distance > 0.0))[:pairs]
        if len(within) == pairs:
            break
    distance = distance.take(within)
    factor = np.log(distance)
    factor /= distance
    factor *= -2.0
    np.sqrt(factor, out=factor)
    factor *= std
    drawn_pairs = coordinates.take(within, axis=1)
    drawn_pairs *= factor
    return drawn_pairs.reshape(-1)[:size]
