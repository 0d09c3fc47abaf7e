"""Clipping of one device's update, and its quantisation to an integer grid.

u = Δ · min(1, C/‖Δ‖₂), then every coordinate is divided by the grid's step and rounded toward zero.
Rounding toward zero never lengthens a vector, so ‖u‖₂ ≤ C holds after it; sums of integers are
exact and independent of order, so a block's sum equals its devices' alone, and a cohort can be
streamed.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

_GRID_BITS: Final = 36
_LARGEST_NOISE: Final = 2.0**61
"""Steps of the grid; with the sum of the largest cohort this stays within int64."""
_NORM_SLACK: Final = 2.0**-32
"""Relative amount kept free below C, above the rounding error of a norm over 1e6 coordinates."""


class StepGrid(Protocol):
    """What one device adds to a step's sum, and which sums can come of it."""

    def size(self, num_weights: int) -> int:
        """Number of entries of a contribution, and of a sum of them."""

    def contribution(self, update: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.int64]:
        """What a device sends of an update: int64, shape (size,); zeros stand for absence."""

    def sum_is_possible(self, total: NDArray[np.int64], *, num_devices: int) -> bool:
        """Whether so many devices can have sent a sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateGrid:
    """The int64 grid of a stream: a step of C / 2^36, the same for every device.

    Rounding moves a coordinate by less than C · 1.5e-11, far below any noise; 2^26 devices can be
    added before a coordinate could leave int64.

    Attributes:
        clipping_norm: C, a constant of the stream.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        """Refuse a norm under which nothing could be sent."""
        if not (np.isfinite(self.clipping_norm) and self.clipping_norm > 0):
            raise ValueError(
                f"clipping_norm must be finite and greater than 0, got {self.clipping_norm}"
            )

    @property
    def step(self) -> float:
        """What one unit of the grid is worth."""
        return float(np.ldexp(self.clipping_norm, -_GRID_BITS))

    @property
    def max_devices(self) -> int:
        """Most devices whose sum surely stays within int64."""
        return int(2 ** (62 - _GRID_BITS))

    def size(self, num_weights: int) -> int:
        """Number of entries of a contribution: the weights."""
        return num_weights

    def contribution(self, update: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.int64]:
        """What a device sends of an update: clipped to C, on the grid; int64, shape (n_weights,).

        All zero for an update that is not finite.
        """
        return self.quantise(clip_update(update, clipping_norm=self.clipping_norm))

    def quantise(self, update: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round a clipped update toward zero on the grid.

        Args:
            update: float64, shape (n_weights,), ‖update‖₂ ≤ C as `clip_update` leaves it.

        Returns:
            int64, shape (n_weights,), whose norm on the grid is at most C.
        """
        return np.trunc(np.ldexp(update / self.clipping_norm, _GRID_BITS)).astype(np.int64)

    def restore(self, total: NDArray[np.int64]) -> NDArray[np.float64]:
        """Turn a sum on the grid back into the update's unit, float64 of the same shape."""
        return np.ldexp(total.astype(np.float64), -_GRID_BITS) * self.clipping_norm

    def round_noise(self, noise: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round noise to the grid, to the nearest step, so that a release is a sum of integers.

        A sum on the grid is integer, so total + round(noise) = round(total + noise): rounding is
        post-processing of the Gaussian mechanism and costs nothing. The possible outputs are all
        integers, whatever the data; a sum of floats would have gaps that tell (Mironov 2012).

        Args:
            noise: float64, shape (n_weights,), in the unit of the clipped sum.

        Returns:
            int64 of the same shape; add it to a sum on the grid, then `restore`.

        Raises:
            ValueError: The noise is not finite, or beyond 2^25 clipping norms.
        """
        steps = np.rint(np.ldexp(noise / self.clipping_norm, _GRID_BITS))
        if not bool((np.abs(steps) < _LARGEST_NOISE).all()):
            raise ValueError("noise must be finite and below 2^25 clipping norms")
        return steps.astype(np.int64)

    def sum_is_possible(self, total: NDArray[np.int64], *, num_devices: int) -> bool:
        """Whether a sum can come from that many clipped updates: ‖Σ u_i‖₂ ≤ m·C.

        Args:
            total: int64, shape (n_weights,), sum on the grid.
            num_devices: m, number of devices in the sum.

        Returns:
            False for a sum that no m honest devices can have sent.
        """
        if not 0 <= num_devices <= self.max_devices:
            return False
        norm = float(np.linalg.norm(np.ldexp(total.astype(np.float64), -_GRID_BITS)))
        return norm <= num_devices * (1 + _NORM_SLACK)


def clip_update(
    update: NDArray[np.float32] | NDArray[np.float64], *, clipping_norm: float
) -> NDArray[np.float64]:
    """Bound one device's update to the ℓ2 ball of radius C.

    Args:
        update: float, shape (n_weights,), difference of the weights after and before training.
        clipping_norm: C, greater than 0.

    Returns:
        float64, shape (n_weights,). An update with any NaN or infinity becomes zero: it does not
        pass, and the device is not told apart from one that was absent.
    """
    values = update.astype(np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return np.zeros_like(values)
    norm_in_largest = float(np.linalg.norm(values / largest))
    bound = clipping_norm * (1 - _NORM_SLACK)
    if largest * norm_in_largest <= bound:
        return values
    return (values / largest) * (bound / norm_in_largest)
