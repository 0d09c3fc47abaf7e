"""Where noise comes from, and what noise a released step carries.

`OperatingSystemNoise` is the only source that a production path can build, and it cannot be seeded.
Simulations bring their own seeded source; it calls itself simulated, and every ledger entry made
with it is stamped so.
"""

import os
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import NoiseReuseError
from .events import EntryKind

_UNIFORM_BITS: Final = 53


class NoiseSource(Protocol):
    """Random numbers for noise and for Poisson sampling."""

    @property
    def is_simulated(self) -> bool:
        """True if the numbers can be repeated from a seed."""

    def gaussian(self, size: int, *, std: float) -> NDArray[np.float64]:
        """Independent draws from N(0, std²), float64, shape (size,)."""

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1), float64, shape (size,)."""


class OperatingSystemNoise:
    """Draws straight from the operating system's entropy; there is no state and no seed.

    Gaussians by Box and Muller 1958 from 53-bit uniforms, so no draw exceeds 8.6 standard
    deviations; that and the gaps of floating point (Mironov 2012) are named in the threat model.
    """

    @property
    def is_simulated(self) -> bool:
        """False: these numbers cannot be repeated."""
        return False

    def gaussian(self, size: int, *, std: float) -> NDArray[np.float64]:
        """Independent draws from N(0, std²), float64, shape (size,)."""
        pairs = (size + 1) // 2
        radius_and_turn = self.uniform(2 * pairs)
        radius = np.sqrt(-2.0 * np.log(1.0 - radius_and_turn[:pairs]))
        turn = 2.0 * np.pi * radius_and_turn[pairs:]
        return std * np.concatenate([radius * np.cos(turn), radius * np.sin(turn)])[:size]

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1) on the grid of 2^-53, float64, shape (size,)."""
        words = np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
        return np.ldexp((words >> np.uint64(64 - _UNIFORM_BITS)).astype(np.float64), -_UNIFORM_BITS)


class ReleaseNoise(Protocol):
    """Noise of the released steps of one stream, in the unit of the clipped sum."""

    @property
    def mechanism(self) -> str:
        """Name of the mechanism, as the ledger's event holds it."""

    @property
    def noise_multiplier(self) -> float:
        """σ: standard deviation on the sum over the clipping norm."""

    @property
    def entry_kind(self) -> EntryKind:
        """How ledger entries of steps with this noise are stamped."""

    def noise(self, index: int, size: int) -> NDArray[np.float64]:
        """Noise of step `index`, float64, shape (size,), to be added to the sum once.

        Raises:
            NoiseReuseError: The step or a later one was already given out.
        """


class IndependentGaussian:
    """Fresh N(0, σ²C²) for each step.

    Args:
        source: Where the numbers come from.
        noise_multiplier: σ, greater than 0.
        clipping_norm: C, the sensitivity of the sum to one device.
    """

    def __init__(
        self, source: NoiseSource, *, noise_multiplier: float, clipping_norm: float
    ) -> None:
        """Fix the constants of the stream."""
        if not (np.isfinite(noise_multiplier) and noise_multiplier > 0):
            raise ValueError(
                f"noise_multiplier must be finite and greater than 0, got {noise_multiplier}"
            )
        self._source = source
        self._noise_multiplier = noise_multiplier
        self._std = noise_multiplier * clipping_norm
        self._last_index = -1

    @property
    def mechanism(self) -> str:
        """Name of the mechanism, as the ledger's event holds it."""
        return "independent_gaussian"

    @property
    def noise_multiplier(self) -> float:
        """σ: standard deviation on the sum over the clipping norm."""
        return self._noise_multiplier

    @property
    def entry_kind(self) -> EntryKind:
        """`simulated` when the source can be repeated, else `stream`."""
        return "simulated" if self._source.is_simulated else "stream"

    def noise(self, index: int, size: int) -> NDArray[np.float64]:
        """Noise of step `index`, float64, shape (size,).

        Raises:
            NoiseReuseError: The step or a later one was already given out.
        """
        if index <= self._last_index:
            raise NoiseReuseError(index=index, last_index=self._last_index)
        self._last_index = index
        return self._source.gaussian(size, std=self._std)


class WithoutNoise:
    """Adds nothing: for comparison only, stamped so, with an infinite epsilon."""

    @property
    def mechanism(self) -> str:
        """Name of the mechanism, as the ledger's event holds it."""
        return "none"

    @property
    def noise_multiplier(self) -> float:
        """0."""
        return 0.0

    @property
    def entry_kind(self) -> EntryKind:
        """`comparison`: nothing made this way is released."""
        return "comparison"

    def noise(self, index: int, size: int) -> NDArray[np.float64]:  # noqa: ARG002 - the protocol's
        """Zeros, float64, shape (size,)."""
        return np.zeros(size)
