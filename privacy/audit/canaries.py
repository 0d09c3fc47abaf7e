"""Dirac canaries: devices whose update is C along one coordinate of their own, in by a fair coin.

Many trials in one release. Canary j moves coordinate j alone, and the noise of a release is
independent between coordinates (banded noise is correlated between steps, not between coordinates).
So what the steps release at coordinate j depends on canary j's coin and on noise that no other
canary's trial sees: m canaries in one wide stream are m independent runs of the same experiment,
distributed exactly as m streams of one canary each. This would not hold for updates that share
coordinates, nor for a rule that looks at the whole vector (a median, a norm of the sum); such a
rule would have to be audited run by run.

No other pair of neighbours is told apart better: for Gaussian noise the power rests on the norm of
the difference alone, which a Dirac of length C at every admitted step makes as long as it can be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .bounds import incomplete_beta

_BISECTIONS: Final = 60
_ROWS_AT_ONCE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRun:
    """What one stream released, and what the auditor knows of it.

    Attributes:
        releases: float64, shape (n_steps, n_canaries): n times what each step released, in C.
        included: bool, shape (n_canaries,): whose coin said "in".
        admitted: bool, shape (n_steps,): steps in which a canary took part.
    """

    releases: NDArray[np.float64]
    included: NDArray[np.bool_]
    admitted: NDArray[np.bool_]


def whiten(steps: NDArray[np.float64], coefficients: Sequence[float]) -> NDArray[np.float64]:
    """Undo the correlation between steps: row t becomes Σ_j c_j row_{t−j}.

    Args:
        steps: float64, shape (n_steps, …).
        coefficients: c_0 … c_{p−1} of the stream's factor.

    Returns:
        float64 of the same shape; of the noise w it gives back the independent z.
    """
    white = np.zeros_like(steps)
    for lag, coefficient in enumerate(coefficients):
        white[lag:] += coefficient * steps[: len(steps) - lag]
    return white


def canary_scores(run: CanaryRun, coefficients: Sequence[float]) -> NDArray[np.float64]:
    """The matched filter of each canary: the best test between "in" and "out" (Neyman, Pearson).

    ⟨L x, L r_j⟩ / ‖L x‖, with x the steps in which it took part and r_j what coordinate j showed.

    Returns:
        float64, shape (n_canaries,), in C; noise of std σ, moved by ‖L x‖ for who is in.
    """
    signal = whiten(run.admitted.astype(np.float64), coefficients)
    norm = math.sqrt(float(signal @ signal)) or 1.0
    scores: NDArray[np.float64] = signal @ whiten(run.releases, coefficients) / norm
    return scores


def residuals(run: CanaryRun, coefficients: Sequence[float]) -> NDArray[np.float64]:
    """What each step released beyond the sum of its updates, whitened, in C.

    An auditor who chose every update knows the sum; what is left must be the noise alone.

    Returns:
        float64, shape (n_steps, n_canaries).
    """
    return whiten(run.releases - np.outer(run.admitted, run.included), coefficients)


def greatest_correlation(rows: NDArray[np.float64]) -> float:
    """The greatest |cosine| between two different rows; noise used twice gives 1."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = rows / np.where(norms > 0, norms, 1.0)
    greatest = 0.0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = directions[start : start + _ROWS_AT_ONCE]
        cosines = np.abs(block @ directions[start:].T)
        np.fill_diagonal(cosines, 0.0)
        greatest = max(greatest, float(cosines.max(initial=0.0)))
    return greatest


def correlation_bound(*, rows: int, size: int, alpha: float) -> float:
    """The |cosine| that the greatest of all pairs of independent rows exceeds with α at most.

    For independent Gaussian rows of d entries P[|cos| > r] = I_{1−r²}((d−1)/2, 1/2), exactly; over
    all pairs by the union bound.

    Args:
        rows: number of rows, at least 2.
        size: d, entries of a row, at least 2.
        alpha: probability of a false alarm over all pairs.
    """
    pairs = rows * (rows - 1) / 2
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if incomplete_beta(1 - middle * middle, a=(size - 1) / 2, b=0.5) * pairs > alpha:
            low = middle
        else:
            high = middle
    return high
