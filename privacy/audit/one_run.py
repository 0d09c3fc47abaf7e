"""The audit with one run (Steinke, Nasr, Jagielski 2023): how many coins of one run were guessed.

Each of m canaries is in by its own fair coin; the auditor guesses r of the coins. Under
(ε, δ)-privacy the number of right guesses is dominated by a binomial of success e^ε/(1 + e^ε), up
to a term of δ (theorem 5.2 and appendix D of arXiv 2305.08846). One run shows less than many do:
the figure stands beside the bound of `privacy.audit.bounds`, and below it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_GREATEST_EPSILON: Final = 64.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRunBound:
    """A lower bound on ε at δ from one run.

    Attributes:
        epsilon: the bound, at least 0.
        delta: at which it holds.
        canaries: m, number of coins.
        guesses: r, number of coins guessed.
        right: v, number guessed right.
        alpha: probability with which the bound may lie above the true ε.
    """

    epsilon: float
    delta: float
    canaries: int
    guesses: int
    right: int
    alpha: float


def one_run_p_value(
    *, canaries: int, guesses: int, right: int, epsilon: float, delta: float
) -> float:
    """Bound the probability of so many right guesses under (ε, δ)-privacy.

    p = P[B ≥ v] + 2 m δ · max_i P[v − i ≤ B < v] / i, B binomial of r draws.

    Args:
        canaries: m, each in by a fair coin of its own.
        guesses: r, at most m.
        right: v, at most r.
        epsilon: at least 0.
        delta: in [0, 1].

    Returns:
        p, at most 1.

    Raises:
        ValueError: A number is out of bounds.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"need 0 ≤ right ≤ guesses ≤ canaries, got {right}, {guesses}, {canaries}")
    success = 1 / (1 + math.exp(-epsilon))
    mass = _binomial_mass(guesses, success)
    below = np.cumsum(mass[:right][::-1])
    slope = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, float(mass[right:].sum()) + 2 * canaries * delta * slope)


def one_run_bound(
    scores: NDArray[np.float64], included: NDArray[np.bool_], *, delta: float, alpha: float
) -> OneRunBound:
    """Bound ε from the scores of one run's canaries.

    The auditor says "in" of the highest scores and "out" of the lowest. How many is decided on the
    first half of the canaries; the second half is guessed.

    Args:
        scores: float64, shape (n,): the greater, the more likely included.
        included: bool, shape (n,): the coins.
        delta: δ of the statement.
        alpha: probability with which the bound may exceed the truth.
    """
    half = len(scores) // 2

    def with_share(share: float, part: slice) -> OneRunBound:
        return _bound_of(scores[part], included[part], share=share, delta=delta, alpha=alpha)

    best = max(_SHARES, key=lambda share: with_share(share, slice(half)).epsilon)
    return with_share(best, slice(half, None))


def _bound_of(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    share: float,
    delta: float,
    alpha: float,
) -> OneRunBound:
    each = max(1, int(len(scores) * share / 2))
    order = np.argsort(scores)
    right = int((~included[order[:each]]).sum() + included[order[-each:]].sum())
    facts = {"canaries": len(scores), "guesses": 2 * each, "right": right}

    def p_value(epsilon: float) -> float:
        return one_run_p_value(**facts, epsilon=epsilon, delta=delta)

    low, high = 0.0, _GREATEST_EPSILON
    if p_value(low) > alpha:
        high = low
    while high - low > 1e-4:
        middle = (low + high) / 2
        if p_value(middle) <= alpha:
            low = middle
        else:
            high = middle
    return OneRunBound(**facts, epsilon=low, delta=delta, alpha=alpha)


def _binomial_mass(draws: int, success: float) -> NDArray[np.float64]:
    """P[B = v] for v = 0..r, float64, shape (r + 1,)."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, draws + 1, dtype=np.float64)))])
    wins = np.arange(draws + 1)
    losing = math.log1p(-success) if success < 1 else -math.inf
    log_mass = logs[-1] - logs - logs[::-1] + wins * math.log(success)
    log_mass[:-1] += (draws - wins[:-1]) * losing
    mass: NDArray[np.float64] = np.exp(log_mass)
    return mass
