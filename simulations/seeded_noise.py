"""The seeded source of randomness, for simulations that must repeat.

It lives here and not in `privacy`, so that no production path can reach it, and it calls itself
simulated: every ledger entry of a step whose noise it made is stamped so, and is refused as the
basis of a release.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SeededNoise:
    """Numbers that depend on a seed and on what they are for, and on nothing else.

    Args:
        seed: of the simulation.
        purpose: what the numbers are for, such as stream, device and step; another purpose gives
            independent numbers.
    """

    def __init__(self, seed: int, *purpose: str | int) -> None:
        name = "\n".join([str(seed), *(str(part) for part in purpose)])
        key = hashlib.sha256(name.encode()).digest()[:16]
        self._generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    @property
    def is_simulated(self) -> bool:
        """True: these numbers can be repeated."""
        return True

    def gaussian(self, size: int, *, std: float) -> NDArray[np.float64]:
        """Independent draws from N(0, std²), float64, shape (size,)."""
        return std * self._generator.standard_normal(size)

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1), float64, shape (size,)."""
        return self._generator.random(size)

    def words(self, size: int) -> NDArray[np.uint64]:
        """Independent uniform bits, 64 to a number: uint64, shape (size,)."""
        return self._generator.integers(2**64, size=size, dtype=np.uint64)
