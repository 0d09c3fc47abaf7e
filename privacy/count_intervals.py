"""Rates and shares from noised counts, each with an interval, or "not measurable".

A ratio of two noised sums has no standard error where the lower sum may be zero. So intervals come
from Fieller's theorem (1954): θ lies in the interval where N − θD, which is linear in the counts
and nearly normal, does not differ from zero at the level asked for. Where D itself does not differ
from zero that set has no end, and the ratio cannot be measured at all.

The variance of a count is that of its noise, which is known, plus that of sampling: by Poisson,
from the count itself, with `PSEUDO_COUNT` added so that an empty bin is not taken for certain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
PSEUDO_COUNT: Final = 0.5
USEFUL_WIDTH: Final = 0.2
"""An interval wider than this says too little: the figure counts as not measurable."""

STANDS_OUT: Final = 5.0
"""Standard deviations by which the lower sum must exceed 0 before a ratio is told. Less, and the
few figures told would be those in which noise made the sum large."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One figure with its interval.

    Attributes:
        value: the estimate within 0 and 1; None where it is not measurable.
        low: the interval's lower end; 0 where nothing can be said.
        high: the upper end; 1 where nothing can be said.
        confidence: share of repetitions in which the interval holds the truth, at least.
        why_not: why it is not measurable; "" where it is.
    """

    value: float | None
    low: float
    high: float
    confidence: float = CONFIDENCE
    why_not: str = ""

    @property
    def is_measurable(self) -> bool:
        """Whether the figure says anything."""
        return self.value is not None


def quantile(confidence: float, *, comparisons: int = 1) -> float:
    """Return z of a two-sided interval, wider where several must hold at once (Bonferroni)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return NormalDist().inv_cdf(1 - (1 - confidence) / (2 * comparisons))


def sampling_variance(counts: Counts, *, repeats: int = 1) -> Counts:
    """Variance of counts that devices fell into by chance, float64, of the counts' shape.

    Args:
        counts: noised, so that they may lie below 0.
        repeats: times that one device may be in a count: its answers may all be alike, which
            multiplies the variance of their sum by as much at most.
    """
    variance: Counts = repeats * (np.maximum(counts, 0.0) + PSEUDO_COUNT)
    return variance


def ratio(
    counts: Counts,
    *,
    over: Counts,
    under: Counts,
    variance: Counts,
    confidence: float = CONFIDENCE,
    useful_width: float = USEFUL_WIDTH,
) -> Estimate:
    """Estimate Σ over·c / Σ under·c.

    Args:
        counts: c, noised, float64, shape (m,).
        over: weights of the numerator, float64, shape (m,).
        under: weights of the denominator, float64, shape (m,).
        variance: of each count, noise and sampling together, float64, shape (m,).
        confidence: of the interval.
        useful_width: the widest interval that says anything.
    """
    z = quantile(confidence)
    above, below = float(over @ counts), float(under @ counts)
    return fieller(
        above,
        below,
        variance_above=float(variance @ over**2),
        variance_below=float(variance @ under**2),
        covariance=float(variance @ (over * under)),
        z=z,
        confidence=confidence,
        useful_width=useful_width,
    )


def fieller(
    above: float,
    below: float,
    *,
    variance_above: float,
    variance_below: float,
    covariance: float,
    z: float,
    confidence: float = CONFIDENCE,
    useful_width: float = USEFUL_WIDTH,
) -> Estimate:
    """Estimate a ratio that lies within 0 and 1 from two sums: {θ: (N − θD)² ≤ z² Var(N − θD)}.

    Args:
        above: N.
        below: D, whose expectation is not negative.
        variance_above: of N.
        variance_below: of D.
        covariance: of both.
        z: quantile of the normal distribution.
        confidence: that belongs to `z`.
        useful_width: the widest interval that says anything.
    """
    leading = below**2 - z**2 * variance_below
    if leading <= 0 or below < STANDS_OUT * math.sqrt(variance_below):
        return not_measurable("the counts do not stand out from their noise", confidence)
    middle = above * below - z**2 * covariance
    rest = above**2 - z**2 * variance_above
    root = math.sqrt(max(middle**2 - leading * rest, 0.0))
    low, high = (middle - root) / leading, (middle + root) / leading
    return bounded_estimate(
        above / below, low, high, confidence=confidence, useful_width=useful_width
    )


def bounded_estimate(
    value: float,
    low: float,
    high: float,
    *,
    confidence: float = CONFIDENCE,
    useful_width: float = USEFUL_WIDTH,
) -> Estimate:
    """Cut an interval to [0, 1] and judge whether it says anything."""
    low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
    if high - low > useful_width:
        return Estimate(
            value=None,
            low=low,
            high=high,
            confidence=confidence,
            why_not=f"the interval is {high - low:.2f} wide, above {useful_width:g}",
        )
    return Estimate(value=min(max(value, low), high), low=low, high=high, confidence=confidence)


def not_measurable(why: str, confidence: float = CONFIDENCE) -> Estimate:
    """Return the estimate of which nothing can be said."""
    return Estimate(value=None, low=0.0, high=1.0, confidence=confidence, why_not=why)


def difference_excludes_zero(worse: Estimate, better: Estimate) -> bool:
    """Whether `worse` lies below `better` beyond doubt: the interval of the difference excludes 0.

    The interval comes from both alone (Zou and Donner 2008, MOVER); answers of the same devices to
    both only narrow the truth. What is not measurable excludes nothing.
    """
    if worse.value is None or better.value is None:
        return False
    reach = math.hypot(worse.high - worse.value, better.value - better.low)
    return worse.value - better.value + reach < 0.0


def shares(
    counts: Counts,
    *,
    variance: Counts,
    confidence: float = CONFIDENCE,
) -> list[Estimate]:
    """Estimate each count's share in their sum; all intervals hold at once (Bonferroni)."""
    each = 1 - (1 - confidence) / len(counts)
    return [
        ratio(
            counts,
            over=place,
            under=np.ones(len(counts)),
            variance=variance,
            confidence=each,
            useful_width=1.0,
        )
        for place in np.eye(len(counts))
    ]


def distance_from(
    found: Sequence[Estimate],
    reference: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    useful_width: float = USEFUL_WIDTH,
) -> Estimate:
    """Estimate half the summed distance of shares from public ones (total variation).

    Both ends hold wherever all shares' intervals do, so noise cannot pass for drift.

    Args:
        found: as `shares` returns them.
        reference: the public shares.
        confidence: that of `shares`.
        useful_width: the widest interval that says anything.
    """
    if any(one.value is None for one in found):
        return not_measurable("the counts do not stand out from their noise", confidence)
    low = high = middle = 0.0
    for one, share in zip(found, reference, strict=True):
        middle += abs((one.value or 0.0) - share) / 2
        low += max(one.low - share, share - one.high, 0.0) / 2
        high += max(one.high - share, share - one.low, 0.0) / 2
    return bounded_estimate(middle, low, high, confidence=confidence, useful_width=useful_width)
