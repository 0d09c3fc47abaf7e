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
  device moves the sum of bits by ½.

Cost, derived: one participation moves the pair (u/σ, bit/s), in units of the noise on each, by at
most √(1/σ² + (½)²/s²), where s is the standard deviation of the noise on the sum of bits. So
μ² = 1/σ² + 1/(2s)². Events hold σ_b = 2s, the noise in units of the bit's sensitivity, as they hold
σ for the update; in these units μ² = 1/σ² + 1/σ_b² (`privacy.accountant.mu_squared_of_step`). The
noise on bits is fresh in each step, while that on updates is the stream's.

An absent device counts as half a bit: with a share a of absent ones the norm heads for the quantile
(γ − a/2)/(1 − a) of those that answer, which is γ itself for the median.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .clipping import UpdateGrid, clip_update
from .noise import NoiseSource

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


def normalised_update(
    update: NDArray[np.float32] | NDArray[np.float64], *, clipping_norm: float
) -> NDArray[np.float64]:
    """What a device adds to the stream's sum: g/C_t, of norm at most 1 whatever C_t is.

    Args:
        update: float, shape (n_weights,).
        clipping_norm: C_t, greater than 0.

    Returns:
        float64, shape (n_weights,); zeros for an update with any NaN or infinity.
    """
    return clip_update(update, clipping_norm=clipping_norm) / clipping_norm


def norm_bit(
    update: NDArray[np.float32] | NDArray[np.float64] | None, *, clipping_norm: float
) -> int:
    """The bit beside an update, in half units: +1 not clipped, −1 clipped, 0 absent or not finite.

    Args:
        update: float, shape (n_weights,), as it was before clipping; None of an absent device.
        clipping_norm: C_t.
    """
    if update is None:
        return 0
    values = update.astype(np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        return 0
    if largest == 0.0:
        return 1
    return 1 if largest * float(np.linalg.norm(values / largest)) <= clipping_norm else -1


def released_mean(
    total: NDArray[np.int64],
    noise: NDArray[np.float64],
    *,
    clipping_norm: float,
    cohort_size: int,
) -> NDArray[np.float64]:
    """C_t · (Σ u_i + σ w_t) / n: the noise is added in the unit of u, C_t comes last.

    Args:
        total: int64, shape (n_weights,), Σ u_i on the grid of norm 1.
        noise: float64, shape (n_weights,), σ·w_t of a stream whose clipping norm is 1.
        clipping_norm: C_t.
        cohort_size: n, number invited.

    Returns:
        float64, shape (n_weights,).
    """
    released = total + _UNIT_GRID.round_noise(noise)
    return _UNIT_GRID.restore(released) * (clipping_norm / cohort_size)


def next_clipping_norm(
    clipping: AdaptiveClipping,
    *,
    clipping_norm: float,
    sum_of_bits: int,
    cohort_size: int,
    source: NoiseSource,
) -> float:
    """C_{t+1} = C_t · e^(−η (b̃ − γ)), with b̃ the noised share of updates that were not clipped.

    Args:
        clipping: The constants.
        clipping_norm: C_t.
        sum_of_bits: Σ of `norm_bit` over the cohort.
        cohort_size: n, number invited.
        source: Of the noise; drawn once a step, after the step's ledger entry.

    Returns:
        The norm of the next step, within the bounds.
    """
    bits = _UNIT_GRID.quantise(np.array([float(sum_of_bits)]))
    drawn = _UNIT_GRID.round_noise(source.gaussian(1, std=clipping.noise_multiplier))
    share = 0.5 + float(_UNIT_GRID.restore(bits + drawn)[0]) / (2 * cohort_size)
    moved = clipping_norm * math.exp(
        -clipping.learning_rate * (min(max(share, 0.0), 1.0) - clipping.target_quantile)
    )
    return min(max(moved, clipping.least_norm), clipping.greatest_norm)
