"""Quality of a model from a noised histogram of its scores, by what became of the devices.

Figures are those of the score as it is binned: within a bin nothing is told apart, ties count half.
So a figure is compared with another over the same bins, never with one over unbinned scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from .count_intervals import (
    CONFIDENCE,
    STANDS_OUT,
    USEFUL_WIDTH,
    Counts,
    Estimate,
    bounded_estimate,
    fieller,
    not_measurable,
    quantile,
    ratio,
    sampling_variance,
)
from .counts import NoisedCounts

USEFUL_CALIBRATION_WIDTH: Final = 0.05
USEFUL_RATE_WIDTH: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreHistogram:
    """Noised counts of scores, split by outcome.

    Attributes:
        negatives: float64, shape (bins,), lowest score first: devices that lived on.
        positives: likewise, devices that failed.
        noise_variance: of each count.
        releases: added up; a device that lives on may be in each, a failure is in one.
    """

    negatives: Counts
    positives: Counts
    noise_variance: float
    releases: int = 1

    @staticmethod
    def of(found: NoisedCounts) -> "ScoreHistogram":
        """Split counts in which the failed follow those that lived on."""
        half = len(found.counts) // 2
        return ScoreHistogram(
            negatives=found.counts[:half],
            positives=found.counts[half:],
            noise_variance=found.noise_variance,
            releases=found.releases,
        )

    @property
    def variance_of_negatives(self) -> Counts:
        """Noise and sampling, float64, shape (bins,)."""
        sampled = sampling_variance(self.negatives, repeats=self.releases)
        return self.noise_variance + sampled

    @property
    def variance_of_positives(self) -> Counts:
        """Noise and sampling, float64, shape (bins,)."""
        return self.noise_variance + sampling_variance(self.positives)

    def rate(
        self,
        over: tuple[Counts, Counts],
        under: tuple[Counts, Counts],
        *,
        confidence: float = CONFIDENCE,
        useful_width: float = USEFUL_WIDTH,
    ) -> Estimate:
        """Estimate a ratio of sums; weights are those of negatives, then of positives."""
        return ratio(
            np.concatenate([self.negatives, self.positives]),
            over=np.concatenate(over),
            under=np.concatenate(under),
            variance=np.concatenate([self.variance_of_negatives, self.variance_of_positives]),
            confidence=confidence,
            useful_width=useful_width,
        )


def roc_auc(
    found: ScoreHistogram, *, confidence: float = CONFIDENCE, useful_width: float = USEFUL_WIDTH
) -> Estimate:
    """Estimate the probability that a failed device outranks one that lived on.

    With p, q the counts and H the matrix of wins (1 above, ½ on the diagonal), AUC = pᵀHq / (Σp Σq)
    and G(θ) = pᵀ(H − θ)q is zero at the truth. Its variance is bounded by that of each side with
    the other side's noisy counts put in: their squares exceed the true ones on average, by what the
    product of both noises adds.
    """
    p, q = found.positives, found.negatives
    vp, vq = found.variance_of_positives, found.variance_of_negatives
    wins_of_bin = np.cumsum(q) - q / 2
    wins_over_bin = np.cumsum(p[::-1])[::-1] - p / 2
    sum_p, sum_q = float(p.sum()), float(q.sum())
    z = quantile(confidence)
    if sum_p < STANDS_OUT * vp.sum() ** 0.5 or sum_q < STANDS_OUT * vq.sum() ** 0.5:
        return not_measurable("the counts do not stand out from their noise", confidence)
    return fieller(
        float(p @ wins_of_bin),
        sum_p * sum_q,
        variance_above=float(vp @ wins_of_bin**2 + vq @ wins_over_bin**2),
        variance_below=float(vp.sum() * sum_q**2 + vq.sum() * sum_p**2),
        covariance=float(vp @ wins_of_bin * sum_q + vq @ wins_over_bin * sum_p),
        z=z,
        confidence=confidence,
        useful_width=useful_width,
    )


def average_precision(
    found: ScoreHistogram, *, confidence: float = CONFIDENCE, useful_width: float = USEFUL_WIDTH
) -> Estimate:
    """Estimate Σ (R_b − R_{b+1}) P_b over the bins from the top, by the delta method.

    The top bins count as one until their alarms stand out from the noise, for a precision among
    alarms that may be none is nothing. The gradient is taken by central differences.
    """
    p, q = found.positives[::-1], found.negatives[::-1]
    vp, vq = found.variance_of_positives[::-1], found.variance_of_negatives[::-1]
    stands_out = np.cumsum(p + q) > STANDS_OUT * np.sqrt(np.cumsum(vp + vq))
    if not stands_out[-1] or p.sum() < STANDS_OUT * vp.sum() ** 0.5:
        return not_measurable("the counts do not stand out from their noise", confidence)
    top = len(stands_out) - int(np.argmin(stands_out[::-1])) if not stands_out.all() else 0

    counts = np.concatenate([p, q])
    step = np.sqrt(np.concatenate([vp, vq])) * 1e-3
    shifts = np.diag(step)
    slopes = (
        _precision_by_recall(counts + shifts, top) - _precision_by_recall(counts - shifts, top)
    ) / (2 * step)
    reach = quantile(confidence) * float(np.sqrt(np.concatenate([vp, vq]) @ slopes**2))
    value = float(_precision_by_recall(counts[None, :], top)[0])
    return bounded_estimate(
        value, value - reach, value + reach, confidence=confidence, useful_width=useful_width
    )


def _precision_by_recall(counts: Counts, top: int) -> Counts:
    """Average precision of many histograms, bins from the top: shape (n, 2 · bins) to (n,)."""
    half = counts.shape[1] // 2
    hits = np.cumsum(counts[:, :half], axis=1)[:, top:]
    alarms = hits + np.cumsum(counts[:, half:], axis=1)[:, top:]
    recall = hits / hits[:, -1:]
    area: Counts = np.sum(np.diff(recall, axis=1, prepend=0.0) * hits / alarms, axis=1)
    return area


def recall_from(found: ScoreHistogram, first_bin: int) -> Estimate:
    """Estimate the share of failures that score in `first_bin` or above."""
    flagged = _from_bin(found, first_bin)
    nothing = np.zeros_like(flagged)
    return found.rate((nothing, flagged), (nothing, np.ones_like(flagged)))


def precision_from(found: ScoreHistogram, first_bin: int) -> Estimate:
    """Estimate the share of failures among the devices in `first_bin` or above."""
    flagged = _from_bin(found, first_bin)
    return found.rate((np.zeros_like(flagged), flagged), (flagged, flagged))


def false_alarm_rate(found: ScoreHistogram, first_bin: int) -> Estimate:
    """Estimate the share in `first_bin` or above of the devices that lived on."""
    flagged = _from_bin(found, first_bin)
    nothing = np.zeros_like(flagged)
    return found.rate(
        (flagged, nothing), (np.ones_like(flagged), nothing), useful_width=USEFUL_RATE_WIDTH
    )


def prevalence(found: ScoreHistogram) -> Estimate:
    """Estimate the share of devices that failed within the horizon."""
    ones = np.ones(len(found.negatives))
    return found.rate((np.zeros_like(ones), ones), (ones, ones), useful_width=USEFUL_RATE_WIDTH)


def calibration_error(
    found: ScoreHistogram, edges: Sequence[float], *, confidence: float = CONFIDENCE
) -> Estimate:
    """Estimate how far bins' frequencies of failure lie outside of what their edges announce.

    Σ n_b/n · (distance of the frequency from the bin), which is 0 for a model that keeps its word
    and says nothing of errors within a bin. Both ends hold wherever the intervals of all bins'
    frequencies and shares do (Bonferroni), so that noise cannot pass for an error.

    Args:
        found: the histogram.
        edges: of the bins, ascending probabilities.
        confidence: of the interval.
    """
    bins = len(found.negatives)
    each = 1 - (1 - confidence) / (2 * bins)
    ones, low, high, middle = np.ones(bins), 0.0, 0.0, 0.0
    bounds = [0.0, *edges, 1.0]
    for place, announced in zip(np.eye(bins), pairwise(bounds), strict=True):
        nothing = np.zeros(bins)
        share = found.rate((place, place), (ones, ones), confidence=each, useful_width=1.0)
        failed = found.rate((nothing, place), (place, place), confidence=each, useful_width=1.0)
        if share.value is None:
            return not_measurable(share.why_not, confidence)
        floor, ceiling = announced
        low += share.low * max(failed.low - ceiling, floor - failed.high, 0.0)
        high += share.high * max(failed.high - ceiling, floor - failed.low, 0.0)
        if failed.value is not None:
            middle += share.value * max(failed.value - ceiling, floor - failed.value, 0.0)
    return bounded_estimate(
        middle, low, high, confidence=confidence, useful_width=USEFUL_CALIBRATION_WIDTH
    )


def _from_bin(found: ScoreHistogram, first_bin: int) -> Counts:
    bins = len(found.negatives)
    if not 0 <= first_bin < bins:
        raise ValueError(f"first_bin must lie in 0..{bins - 1}, got {first_bin}")
    flagged: Counts = (np.arange(bins) >= first_bin).astype(np.float64)
    return flagged
