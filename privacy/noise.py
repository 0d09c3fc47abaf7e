"""Where noise comes from, and what noise a released step carries.

`OperatingSystemNoise` is the only source that a production path can build, and it cannot be seeded.
Simulations bring their own seeded source; it calls itself simulated, and every ledger entry made
with it is stamped so.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import NoiseReuseError
from .events import EntryKind
from .keystream import keystream, new_key
from .polar_gaussian import polar_gaussian

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

    def words(self, size: int) -> NDArray[np.uint64]:
        """Independent uniform bits, 64 to a number: uint64, shape (size,)."""


class OperatingSystemNoise:
    """Draws from the operating system's entropy; there is no state and no seed.

    Each call takes a fresh 256-bit key from the operating system and expands it by ChaCha20, so
    nothing is kept that a forked process could repeat or a dump of memory could give away. The
    tail of the Gaussians is described at `privacy.polar_gaussian`.
    """

    @property
    def is_simulated(self) -> bool:
        """False: these numbers cannot be repeated."""
        return False

    def gaussian(self, size: int, *, std: float) -> NDArray[np.float64]:
        """Independent draws from N(0, std²), float64, shape (size,)."""
        return polar_gaussian(self.words, size, std=std)

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1) on the grid of 2^-53, float64, shape (size,)."""
        shifted = self.words(size) >> np.uint64(64 - _UNIFORM_BITS)
        return np.ldexp(shifted.astype(np.float64), -_UNIFORM_BITS)

    def words(self, size: int) -> NDArray[np.uint64]:
        """Independent uniform bits, 64 to a number: uint64, shape (size,)."""
        drawn = np.frombuffer(keystream(new_key(), 0, 8 * size), dtype="<u8")
        return drawn.astype(np.uint64, copy=False)


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
