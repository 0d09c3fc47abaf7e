"""Gaussians for simulated DP-SGD at a third of the time: a seeded source of float32 numbers.

Half of a simulated DP-SGD step is drawing noise, one number a weight. `SeededNoise` draws float64
by the ziggurat, one after the other; here a whole training's are made together, by Box and Muller
1958 on float32 vectors, from SFC64 (Doty-Humphrey, PractRand) whose state is a SHA-256 of seed and
purpose. Radii come from 32 bits, so the tail ends at 6.7 standard deviations: enough to see what
noise costs a model, and never a source of privacy. Logarithm, sine and cosine are NumPy's, so bits
are those of a processor's kind and a version of NumPy.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COINS: Final = b"coins"
_NOISE: Final = b"noise"
_TURN: Final = np.float32(2.0 * np.pi * 2.0**-32)
_UNIT: Final = np.float32(2.0**-32)


class FastSeededNoise:
    """Numbers that depend on a seed and on what they are for, and on nothing else.

    Coins and noise are two streams of their own, so that either can be drawn ahead of the other.

    Args:
        seed: of the simulation.
        purpose: what the numbers are for, such as stream, device and step.
    """

    def __init__(self, seed: int, *purpose: str | int) -> None:
        name = "\n".join([str(seed), *(str(part) for part in purpose)])
        self._key = hashlib.sha256(name.encode())
        self._coins: np.random.Generator | None = None
        self._noise: np.random.SFC64 | None = None

    @property
    def is_simulated(self) -> bool:
        """True: these numbers can be repeated."""
        return True

    @property
    def is_fresh(self) -> bool:
        """Whether it has given no number yet."""
        return self._coins is None and self._noise is None

    def gaussian(self, size: int, *, std: float) -> NDArray[np.float64]:
        """Independent draws from N(0, std²), float64, shape (size,)."""
        if self._noise is None:
            self._noise = np.random.SFC64(0)
            self._noise.state = self._state(_NOISE)
        out = np.empty((1, size), np.float32)
        _fill_gaussians(self._noise, out)
        drawn: NDArray[np.float64] = std * out[0].astype(np.float64)
        return drawn

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1), float64, shape (size,)."""
        return self._generator().random(size)

    def words(self, size: int) -> NDArray[np.uint64]:
        """Independent uniform bits, 64 to a number: uint64, shape (size,)."""
        return self._generator().integers(2**64, size=size, dtype=np.uint64)

    def _generator(self) -> np.random.Generator:
        if self._coins is None:
            bits = np.random.SFC64(0)
            bits.state = self._state(_COINS)
            self._coins = np.random.Generator(bits)
        return self._coins

    def _state(self, stream: bytes) -> Any:
        """State of SFC64 at the start of a stream: 192 bits of a hash, and its counter at one."""
        key = self._key.copy()
        key.update(b"\n" + stream)
        words = np.frombuffer(key.digest(), "<u8").astype(np.uint64)
        words[3] = 1
        return {
            "bit_generator": "SFC64",
            "state": {"state": words},
            "has_uint32": 0,
            "uinteger": 0,
        }

    def put(self, bits: np.random.SFC64, *, is_noise: bool) -> None:
        """Bring a bit generator to the start of this source's noise, or of its coins."""
        bits.state = self._state(_NOISE if is_noise else _COINS)


class FastDraws:
    """What several fast sources give from their start, drawn with one bit generator."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)
        self._generator = np.random.Generator(self._bits)

    def coins(self, source: FastSeededNoise, size: int) -> NDArray[np.float64]:
        """Return the first uniforms of a source that has given none, shape (size,)."""
        source.put(self._bits, is_noise=False)
        return self._generator.random(size)

    def gaussians(
        self, sources: Sequence[FastSeededNoise], *, calls: int, size: int
    ) -> NDArray[np.float32]:
        """Return what so many calls of `gaussian` give first, of unit variance.

        Returns:
            float32, shape (calls, n_sources, size).
        """
        drawn = np.empty((calls, len(sources), size), np.float32)
        for number, source in enumerate(sources):
            source.put(self._bits, is_noise=True)
            _fill_gaussians(self._bits, drawn[:, number])
        return drawn


def _fill_gaussians(bits: np.random.SFC64, out: NDArray[np.float32]) -> None:
    """Fill rows of shape (n, size), each with (size + 1) // 2 words of its own."""
    calls, size = out.shape
    pairs = (size + 1) // 2
    words = bits.random_raw(calls * pairs)
    halves = words.view(np.uint32).reshape(calls, 2 * pairs)
    numbers = halves.astype(np.float32)
    radius, angle = numbers[:, :pairs], numbers[:, pairs:]
    radius += np.float32(0.5)
    radius *= _UNIT
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle *= _TURN
    np.multiply(radius, np.cos(angle), out=out[:, :pairs])
    odd = size - pairs
    np.multiply(radius[:, :odd], np.sin(angle[:, :odd]), out=out[:, pairs:])
