"""Confidence bounds without scipy: incomplete beta, Clopper-Pearson, and μ from error rates.

A test that tells two worlds apart with a false-positive rate α and a false-negative rate β shows
that a mechanism is not μ-GDP for any μ < Φ⁻¹(1 − α) − Φ⁻¹(β) (Dong, Roth, Su 2022, "Gaussian
differential privacy", definition 4 and equation 6). With upper confidence bounds on both rates in
their place, the figure is a lower bound on μ at the level of the two together (Nasr et al. 2023,
"Tight auditing of differentially private machine learning", section 4).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NORMAL: Final = NormalDist()
_TINY: Final = 1e-300
_TERMS: Final = 10_000
_BISECTIONS: Final = 200
_CANDIDATES: Final = 129
_NEIGHBOURS: Final = 17


def incomplete_beta(x: float, *, a: float, b: float) -> float:
    """I_x(a, b), regularised, by Lentz's continued fraction.

    I_x(a, b) = x^a (1−x)^b / (a B(a, b)) · 1/(1 + d₁/(1 + d₂/(1 + …))), Abramowitz and Stegun
    26.5.8; above its turning point (a+1)/(a+b+2), one minus the mirror image.

    Args:
        x: in [0, 1].
        a: greater than 0.
        b: greater than 0.

    Returns:
        The probability that a Beta(a, b) variable is at most x.

    Raises:
        ValueError: An argument is out of bounds.
    """
    if not (0.0 <= x <= 1.0 and a > 0 and b > 0):
        raise ValueError(f"x must lie in [0, 1], a and b above 0, got x={x}, a={a}, b={b}")
    if x in {0.0, 1.0}:
        return x
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_fraction(1 - x, a=b, b=a)
    return _beta_fraction(x, a=a, b=b)


def upper_rate(successes: int, *, trials: int, alpha: float) -> float:
    """Clopper and Pearson's upper bound on a rate: exceeded with probability at most α.

    The root p of I_p(x + 1, n − x) = 1 − α, rounded up.

    Args:
        successes: x, in 0..n.
        trials: n, at least 1.
        alpha: in (0, 1).

    Returns:
        The bound, 1 where every trial was a success.

    Raises:
        ValueError: An argument is out of bounds.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..trials, got {successes} of {trials}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    if successes == trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        # 1 − I_p(x+1, n−x) = I_{1−p}(n−x, x+1): the tail itself, without a loss of figures.
        if incomplete_beta(1 - middle, a=trials - successes, b=successes + 1) > alpha:
            low = middle
        else:
            high = middle
    return high


def mu_of_rates(*, false_positive: float, false_negative: float) -> float:
    """Least μ at which a test with these error rates can exist: Φ⁻¹(1 − α) − Φ⁻¹(β), at least 0."""
    if false_positive + false_negative >= 1.0:
        return 0.0
    if min(false_positive, false_negative) <= 0.0:
        return math.inf
    return -_NORMAL.inv_cdf(false_positive) - _NORMAL.inv_cdf(false_negative)


@dataclass(frozen=True, slots=True, kw_only=True)
class MuBound:
    """A lower bound on μ, and what it rests on.

    Attributes:
        mu: the bound, at least 0.
        threshold: of the score, chosen on the other half.
        false_positives: excluded canaries at or above it.
        excluded: number of excluded canaries.
        false_negatives: included canaries below it.
        included: number of included canaries.
        alpha: probability with which the bound may lie above the true μ.
    """

    mu: float
    threshold: float
    false_positives: int
    excluded: int
    false_negatives: int
    included: int
    alpha: float


def mu_lower_bound(
    scores: NDArray[np.float64], included: NDArray[np.bool_], *, alpha: float
) -> MuBound:
    """Bound μ from the scores of canaries, included or not.

    The threshold is chosen on the first half of the canaries and judged on the second, so that the
    choice costs no confidence.

    Args:
        scores: float64, shape (n,): the greater, the more likely included; independent.
        included: bool, shape (n,): what was true.
        alpha: probability with which the bound may exceed the truth; half goes to either rate.

    Returns:
        The bound.

    Raises:
        ValueError: A half has no canary of one of the two kinds.
    """
    half = len(scores) // 2
    threshold = _best_threshold(scores[:half], included[:half], alpha=alpha)
    judged, truth = scores[half:], included[half:]
    ins, outs = judged[truth], judged[~truth]
    if not len(ins) or not len(outs):
        raise ValueError("both halves need canaries of both kinds")
    false_positives, false_negatives = int((outs >= threshold).sum()), int((ins < threshold).sum())
    mu = mu_of_rates(
        false_positive=upper_rate(false_positives, trials=len(outs), alpha=alpha / 2),
        false_negative=upper_rate(false_negatives, trials=len(ins), alpha=alpha / 2),
    )
    return MuBound(
        mu=mu,
        threshold=threshold,
        false_positives=false_positives,
        excluded=len(outs),
        false_negatives=false_negatives,
        included=len(ins),
        alpha=alpha,
    )


def typical_mu_bound(mu: float, *, canaries: int, alpha: float) -> float:
    """The bound that an audit of a mechanism that is exactly μ-GDP typically comes to.

    With the threshold half-way, and both rates at their expected values.

    Args:
        mu: of the mechanism.
        canaries: number of canaries, a quarter of which is judged in either world.
        alpha: of the bound.
    """
    judged = canaries // 4
    errors = round(judged * _NORMAL.cdf(-mu / 2))
    rate = upper_rate(errors, trials=judged, alpha=alpha / 2)
    return mu_of_rates(false_positive=rate, false_negative=rate)


def least_detectable_mu(claim: float, *, canaries: int, alpha: float) -> float:
    """Least true μ of which an audit typically proves that it exceeds a claim, by bisection."""
    low, high = claim, 2 * claim + 1.0
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        if typical_mu_bound(middle, canaries=canaries, alpha=alpha) > claim:
            high = middle
        else:
            low = middle
    return high


def _best_threshold(
    scores: NDArray[np.float64], included: NDArray[np.bool_], *, alpha: float
) -> float:
    """The candidate around which the bound would be greatest, with Wilson's rates for Clopper's.

    Around, not at: the greatest of many noisy figures is a lucky one, and the other half would not
    have the same luck. A mean over neighbours costs nothing where the bound is flat, as it is.
    """
    ins, outs = np.sort(scores[included]), np.sort(scores[~included])
    if not len(ins) or not len(outs):
        raise ValueError("both halves need canaries of both kinds")
    candidates = np.quantile(scores, np.linspace(0.0, 1.0, _CANDIDATES))
    negatives = np.searchsorted(ins, candidates, side="left")
    positives = len(outs) - np.searchsorted(outs, candidates, side="left")
    z = -_NORMAL.inv_cdf(alpha / 2)
    alphas, betas = _wilson(positives, len(outs), z=z), _wilson(negatives, len(ins), z=z)
    found = [
        mu_of_rates(false_positive=float(a), false_negative=float(b))
        for a, b in zip(alphas, betas, strict=True)
    ]
    padded = np.pad(np.array(found), _NEIGHBOURS // 2, mode="edge")
    around = np.convolve(padded, np.full(_NEIGHBOURS, 1 / _NEIGHBOURS), mode="valid")
    return float(candidates[int(np.argmax(around))])


def _wilson(successes: NDArray[np.intp], trials: int, *, z: float) -> NDArray[np.float64]:
    """Wilson's upper bound on a rate (1927), within (0, 1)."""
    rate = successes / trials
    middle = rate + z * z / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))
    bound: NDArray[np.float64] = np.clip((middle + half) / (1 + z * z / trials), 1e-12, 1 - 1e-12)
    return bound


def _beta_fraction(x: float, *, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), for x below its turning point."""
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _not_zero(1.0 + term * d)
            c = _not_zero(1.0 + term / c)
            value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * value / a


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
