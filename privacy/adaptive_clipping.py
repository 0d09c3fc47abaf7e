"""A clipping norm that follows a quantile of the updates' norms, chosen in private; off by default.

Andrew, Thakkar, McMahan, Ramaswamy 2021, "Differentially private learning with adaptive clipping",
in the form that a stream of correlated noise bears:

- Under one noise matrix the sensitivity must not move. So a device sends u = g/C_t, of norm at most
  1, the stream adds σ·w_t to the sum of these, and what was released is multiplied by C_t
  *afterwards*. Clipping to C_t and adding noise of scale σC_t would break the accounting as soon as
  C_t falls: later noise takes back more of the earlier noise than is there.
- C_t is made of what was released before step t, so the matrix mechanism keeps its figure although
  inputs depend on outputs (Denisov et al. 2022, theorem 2.1: Gaussian noise, lower triangular).
- Beside its update a device sends one bit: +½ if ‖g‖₂ ≤ C_t, −½ if longer, 0 when absent. Zeroing a
  device moves the sum of bits by ½. The bit is one more entry of what a device sends, in half
  units, so it is summed, committed, sealed and bound to its noise with the update, as one.

Cost, derived: one participation moves the pair (u/σ, bit/s), in units of the noise on each, by at
most √(1/σ² + (½)²/s²), where s is the standard deviation of the noise on the sum of bits. So
μ² = 1/σ² + 1/(2s)²: that is the form in which the paper writes it, with its σ_b = s. Events hold
σ_b = 2s, the noise in units of the bit's sensitivity, as they hold σ for the update; in these units
μ² = 1/σ² + 1/σ_b² (`privacy.accountant.mu_squared_of_step`). The noise on bits is fresh in each
step, while that on updates is the stream's: columns of two participations stay orthogonal in both,
so k of them cost k times as much.

An absent device counts as half a bit: with a share a of absent ones the norm heads for the quantile
(γ − a/2)/(1 − a) of those that answer, which is γ itself for the median.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .clipping import StepGrid, UpdateGrid

BITS_SHARE: Final = 0.02
"""Part of the μ² of updates that the bits use: σ grows by a hundredth, and the noise on the share
of clipped updates has a standard deviation of 3.5 σ over the cohort."""
REACH: Final = 100.0
"""How far a norm moves from its first value at most, as a factor, where a policy is made."""
_UNIT_GRID: Final = UpdateGrid(clipping_norm=1.0)
"""The grid of sums of u, and of bits in half units: a device moves either by at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClipping:
    """How a clipping norm moves; every number is public and fixed for a stream.

    Attributes:
        initial_norm: C_0, from public or simulated data.
        target_quantile: γ, share of the updates that shall not be clipped.
        learning_rate: η of the geometric step.
        noise_multiplier: σ_b, standard deviation of the noise on the sum of bits over ½.
        least_norm: C_t never falls below it.
        greatest_norm: C_t never rises above it.
    """

    initial_norm: float
    noise_multiplier: float
    least_norm: float
    greatest_norm: float
    target_quantile: float = 0.5
    learning_rate: float = 0.2

    def __post_init__(self) -> None:
        """Refuse constants under which the norm or its cost is not defined."""
        for name in ("initial_norm", "noise_multiplier", "least_norm", "greatest_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and greater than 0, got {value}")
        if not self.least_norm <= self.initial_norm <= self.greatest_norm:
            raise ValueError(
                f"initial_norm must lie in {self.least_norm:g}..{self.greatest_norm:g}, "
                f"got {self.initial_norm:g}"
            )
        if not 0.0 < self.target_quantile < 1.0:
            raise ValueError(f"target_quantile must lie in (0, 1), got {self.target_quantile}")
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError(f"learning_rate must lie in (0, 1], got {self.learning_rate}")

    def bears(self, clipping_norm: float) -> bool:
        """Whether a step may be asked for at a norm."""
        return self.least_norm <= clipping_norm <= self.greatest_norm


def grid_of(clipping_norm: float, *, has_norm_bit: bool) -> StepGrid:
    """What a device sends in a step: an update clipped to C, or over C_t with its bit beside it."""
    if has_norm_bit:
        return NormalisedGrid(clipping_norm=clipping_norm)
    return UpdateGrid(clipping_norm=clipping_norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedGrid:
    """Updates over the step's clipping norm, each with its bit as the last entry.

    Attributes:
        clipping_norm: C_t.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        """Refuse a norm under which nothing could be sent."""
        UpdateGrid(clipping_norm=self.clipping_norm)

    def size(self, num_weights: int) -> int:
        """Number of entries of a contribution: the weights and the bit."""
        return num_weights + 1

    def contribution(self, update: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.int64]:
        """g/C_t, of norm at most 1 whatever C_t is, and the bit; int64, shape (n_weights + 1,).

        All zero for an update that is zero or not finite, as for an absent device.
        """
        with np.errstate(over="ignore"):
            scaled = update.astype(np.float64) / self.clipping_norm
        bit = _UNIT_GRID.quantise(np.array([float(norm_bit(scaled))]))
        return np.concatenate([_UNIT_GRID.contribution(scaled), bit])

    def sum_is_possible(self, total: NDArray[np.int64], *, num_devices: int) -> bool:
        """Whether so many devices can have sent a sum: updates and bits, each within its bound."""
        return all(
            _UNIT_GRID.sum_is_possible(part, num_devices=num_devices)
            for part in (total[:-1], total[-1:])
        )


def norm_bit(scaled: NDArray[np.float64]) -> int:
    """The bit beside an update, in half units: +1 not clipped, −1 clipped, 0 absent or not finite.

    Args:
        scaled: g/C_t, float64, shape (n_weights,); zero where the device sits out.
    """
    largest = float(np.abs(scaled).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return 0
    return 1 if largest * float(np.linalg.norm(scaled / largest)) <= 1.0 else -1


def next_clipping_norm(
    clipping: AdaptiveClipping, *, clipping_norm: float, mean_bit: float
) -> float:
    """C_{t+1} = C_t · e^(−η (b̃ − γ)), with b̃ the noised share of updates that were not clipped.

    No step moves the norm by more than e^η, whatever the noise; the bound is symmetric, so that it
    turns the norm neither way.

    Args:
        clipping: The constants.
        clipping_norm: C_t.
        mean_bit: What was released of the bits: their sum in half units with its noise, over n.

    Returns:
        The norm of the next step, within the bounds.
    """
    beyond = 0.5 + mean_bit / 2 - clipping.target_quantile
    moved = clipping_norm * math.exp(-clipping.learning_rate * min(max(beyond, -1.0), 1.0))
    return min(max(moved, clipping.least_norm), clipping.greatest_norm)
