"""Quality of predictions under censoring; numpy only.

A window (one device, one moment) is positive when the failure comes within the horizon after it,
negative when the device is known to have lived through the horizon, and otherwise unknown and
left out. Precision is never stated without the prevalence it holds at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Scores = NDArray[np.floating]
    Labels = NDArray[np.bool_]

CALIBRATION_BINS = 10
NEAR_DAYS = 90.0


@dataclass(frozen=True, slots=True)
class Windows:
    """What is known of each window's future.

    Attributes:
        device: int, shape (n,).
        label: bool, shape (n,): a failure within the horizon.
        known: bool, shape (n,): whether `label` is known.
        days_left: float64, shape (n,): days to the failure, NaN where none was seen.
    """

    device: NDArray[np.intp]
    label: Labels
    known: Labels
    days_left: NDArray[np.float64]

    def take(self, rows: Labels) -> Windows:
        """Return the chosen windows.

        Args:
            rows: bool, shape (n,).
        """
        return Windows(self.device[rows], self.label[rows], self.known[rows], self.days_left[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Figures of one model on one set of windows; None where it cannot be measured.

    Attributes:
        num_windows: windows whose label is known.
        prevalence: share of positives among them.
        auc: area under the ROC curve.
        average_precision: area under the precision-recall curve, as a step function.
        threshold: probability from which a window counts as flagged.
        precision, recall, f1: at the threshold.
        ece: expected calibration error over ten equally filled bins.
        mae_days_when_90_or_less: mean |p50 − days left|, where 90 or fewer are left.
        coverage_p10_p90: share of observed failures between p10 and p90 (0.8 is right).
        precision_at_prevalence: precision at the same recall and false-alarm rate if 0.3, 1 and
            3 % of the windows were positive: P = Rπ / (Rπ + FPR (1 − π)).
    """

    num_windows: int
    prevalence: float | None
    auc: float | None
    average_precision: float | None
    threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    ece: float | None
    mae_days_when_90_or_less: float | None
    coverage_p10_p90: float | None
    precision_at_prevalence: dict[str, float | None]


def windows(
    device: NDArray[np.intp],
    as_of_days: NDArray[np.float64],
    *,
    failed_at_days: NDArray[np.float64],
    observed_until_days: NDArray[np.float64],
    horizon_days: float,
) -> Windows:
    """Say what is known of each window; those at or after the failure are unknown.

    Args:
        device: shape (n,), index into the per-device arrays.
        as_of_days: shape (n,), moment of the prediction.
        failed_at_days: shape (n_devices,), NaN = no failure seen.
        observed_until_days: shape (n_devices,).
        horizon_days: what "soon" means.
    """
    left = failed_at_days[device] - as_of_days
    alive = ~(left <= 0)
    label = alive & (left <= horizon_days)
    lived = np.isnan(left) & (observed_until_days[device] - as_of_days >= horizon_days)
    known = label | (left > horizon_days) | lived
    return Windows(device, label, known & alive, np.where(alive, left, np.nan))


def average_precision(label: Labels, score: Scores) -> float | None:
    """Return Σ (R_k − R_{k−1}) P_k over distinct scores; None without a positive."""
    if not label.any():
        return None
    hits, alarms = _curve(label, score)
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / alarms))


def roc_auc(label: Labels, score: Scores) -> float | None:
    """Return the probability that a positive outranks a negative, ties half; None without both."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]
    area = rank[label].sum() - positives * (positives + 1) / 2
    return float(area / (positives * negatives))


def _curve(label: Labels, score: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(ranked[1:] != ranked[:-1], [True])
    hits = np.cumsum(label[order])[last].astype(np.float64)
    alarms = (np.flatnonzero(last) + 1).astype(np.float64)
    return hits, alarms


def best_f1_threshold(parts: Sequence[tuple[Labels, Scores]]) -> float:
    """Return the threshold with the highest F1, averaged over parts that count alike.

    The best threshold of one part moves with its prevalence; in the average no part decides by its
    number of windows.

    Args:
        parts: label and score of each; those without a positive say nothing.

    Returns:
        A number between two scores; 1 where no part has a positive.
    """
    telling = [(label, score) for label, score in parts if label.any()]
    if not telling:
        return 1.0
    distinct = np.unique(np.concatenate([score for _, score in telling]))[::-1]
    mean_f1 = np.zeros(len(distinct))
    for label, score in telling:
        hits, alarms = _curve(label, score)
        f1 = np.append(0.0, 2 * hits / (alarms + hits[-1]))
        own = np.unique(score)
        mean_f1 += f1[len(own) - np.searchsorted(own, distinct)] / len(telling)
    best = int(np.argmax(mean_f1))
    below = distinct[best + 1] if best + 1 < len(distinct) else distinct[best]
    middle = (distinct[best] + below) / 2
    return float(middle if middle > below else distinct[best])


def expected_calibration_error(label: Labels, probability: Scores) -> float | None:
    """Return Σ n_b/n |mean probability − frequency| over ten equally filled bins."""
    if len(label) == 0:
        return None
    error = 0.0
    for part in np.array_split(np.argsort(probability, kind="stable"), CALIBRATION_BINS):
        if len(part):
            gap = abs(float(probability[part].mean()) - float(label[part].mean()))
            error += len(part) / len(label) * gap
    return error


def reliability(
    label: Labels, probability: Scores, *, num_bins: int = CALIBRATION_BINS
) -> list[tuple[float, float, int]]:
    """Return (mean probability, frequency, windows) of bins that hold the probabilities in order.

    Bins are equally wide in the rank of the positives, so that rare events fill them evenly.
    """
    order = np.argsort(probability, kind="stable")
    weight = np.cumsum(probability[order])
    total = weight[-1] if len(weight) else 0.0
    bins = np.minimum((weight / total * num_bins).astype(int), num_bins - 1) if total > 0 else []
    rows = []
    for number in range(num_bins):
        part = order[np.asarray(bins) == number] if len(bins) else order[:0]
        if len(part):
            rows.append((float(probability[part].mean()), float(label[part].mean()), len(part)))
    return rows


def quality(
    known_windows: Windows,
    *,
    probability: Scores,
    days_p10: Scores | None = None,
    days_p50: Scores | None = None,
    days_p90: Scores | None = None,
    threshold: float | None = None,
    flagged: Labels | None = None,
) -> Quality:
    """Measure one model.

    Args:
        known_windows: what is known, shape (n,) each.
        probability: of a failure within the horizon, or any score that ranks.
        days_p10: quantiles of the days to failure; None where the model gives none.
        days_p50: the estimate of the days to failure.
        days_p90: see `days_p10`.
        threshold: from which a window is flagged; None with `flagged`.
        flagged: shape (n,), the model's own decision, where it is not a threshold.
    """
    known = known_windows.known
    label, score = known_windows.label[known], probability[known]
    alarm = score >= threshold if threshold is not None else None
    if flagged is not None:
        alarm = flagged[known]
    precision = recall = f1 = false_alarm_rate = None
    if alarm is not None and label.any():
        hits, alarms = int((alarm & label).sum()), int(alarm.sum())
        recall = hits / int(label.sum())
        precision = hits / alarms if alarms else 0.0
        f1 = 2 * hits / (alarms + int(label.sum()))
        false_alarm_rate = (alarms - hits) / max(int((~label).sum()), 1)
    at_prevalence = {
        f"{share:g}": _precision_at(share, recall, false_alarm_rate)
        for share in (0.003, 0.01, 0.03)
    }
    is_probability = len(score) > 0 and score.min() >= 0 and score.max() <= 1
    return Quality(
        num_windows=int(known.sum()),
        prevalence=float(label.mean()) if len(label) else None,
        auc=roc_auc(label, score),
        average_precision=average_precision(label, score),
        threshold=threshold,
        precision=precision,
        recall=recall,
        f1=f1,
        ece=expected_calibration_error(label, score) if is_probability else None,
        mae_days_when_90_or_less=_near_error(known_windows, days_p50),
        coverage_p10_p90=_coverage(known_windows, days_p10, days_p90),
        precision_at_prevalence=at_prevalence,
    )


def _precision_at(
    prevalence: float, recall: float | None, false_alarm_rate: float | None
) -> float | None:
    if recall is None or false_alarm_rate is None:
        return None
    hits, alarms = recall * prevalence, false_alarm_rate * (1 - prevalence)
    return hits / (hits + alarms) if hits + alarms > 0 else None


def _near_error(known_windows: Windows, days_p50: Scores | None) -> float | None:
    near = known_windows.days_left <= NEAR_DAYS
    if days_p50 is None or not near.any():
        return None
    return float(np.abs(days_p50[near] - known_windows.days_left[near]).mean())


def _coverage(
    known_windows: Windows, days_p10: Scores | None, days_p90: Scores | None
) -> float | None:
    seen = np.isfinite(known_windows.days_left)
    if days_p10 is None or days_p90 is None or not seen.any():
        return None
    left = known_windows.days_left[seen]
    return float(((days_p10[seen] <= left) & (left <= days_p90[seen])).mean())
