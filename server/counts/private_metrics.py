"""Private counts on the server: whom a channel asks, which replies count, what a release says.

The order of a release: choose who is asked, add their replies up, make the ledger's entry durable,
draw the noise once, keep the result. What is kept holds noised counts alone; everything that is
told of quality, similar devices or drift is computed from them, and costs nothing further.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.held_out_devices import held_out_devices
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import CountKind, CountQuestion
from privacy.count_intervals import (
    CONFIDENCE,
    Estimate,
    difference_excludes_zero,
    distance_from,
    quantile,
    ratio,
    sampling_variance,
    shares,
)
from privacy.counts import NoisedCounts, pooled, sum_is_possible
from privacy.score_metrics import (
    ScoreHistogram,
    average_precision,
    calibration_error,
    false_alarm_rate,
    precision_from,
    prevalence,
    recall_from,
    roc_auc,
)

from ..engine.aggregation import ReplyRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.wire.counts import Counted, CountTask
    from privacy import CountChannel

LEAST_CELL: Final = 20
"""Devices that a cell of similar devices must hold beyond the reach of its noise to be told of."""
GATED: Final = ("auc", "average_precision")
"""Figures by which a gate may refuse a model."""
NOTICE: Final = (
    "scores are binned, ties count half: compare over the same bins only; devices that no longer "
    "answer, failed ones among them, are not in the counts"
)


def devices_asked(device_ids: Sequence[str], channel: CountChannel) -> NDArray[np.intp]:
    """Choose whom a channel asks: by stable identifier alone, the same devices every time.

    Args:
        device_ids: enrolled.
        channel: of the policy.

    Returns:
        int, positions in `device_ids`, ascending.
    """
    return np.flatnonzero(held_out_devices(device_ids) == channel.held_out)


def count_reply_refusal(
    total: NDArray[np.generic], counted: Counted, *, task: CountTask
) -> ReplyRefusal | None:
    """Judge one reply against the task that it answers.

    Args:
        total: the reply's array, as it came.
        counted: what the reply says beside it.
        task: what the node was asked.

    Returns:
        Why it counts as zeros, or None if it may be added.
    """
    if (counted.channel, counted.index) != (task.channel, task.index):
        return ReplyRefusal.WRONG_STEP
    if not 0 <= counted.num_devices <= len(task.device_ids):
        return ReplyRefusal.TOO_MANY_DEVICES
    if total.dtype != np.int64:
        return ReplyRefusal.WRONG_TYPE
    if total.shape != (task.question.size,):
        return ReplyRefusal.WRONG_SHAPE
    if not sum_is_possible(
        total.astype(np.int64),
        num_devices=counted.num_devices,
        sensitivity_squared=task.question.sensitivity_squared,
    ):
        return ReplyRefusal.BEYOND_BOUND
    return None


@dataclass(frozen=True, slots=True)
class ReleasedCounts:
    """One release as it is kept.

    Attributes:
        question: what was counted.
        found: with noise.
        entry_hash: of the ledger's entry that it was charged with.
        no_way: devices asked that no node named, so that their answers are zeros; None in a release
            of yesterday, which does not tell.
    """

    question: CountQuestion
    found: NoisedCounts
    entry_hash: str
    no_way: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the release as a JSON object."""
        return {
            "schema_version": 1,
            "question": self.question.to_text(),
            "counts": [int(count) for count in self.found.counts],
            "noise_variance": self.found.noise_variance,
            "cohort_size": self.found.cohort_size,
            "no_way": self.no_way,
            "entry_hash": self.entry_hash,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ReleasedCounts:
        """Read a release.

        Raises:
            ValueError: it is none, or its counts do not fit its question.
        """
        try:
            question = CountQuestion.from_text(value["question"])
            found = NoisedCounts(
                counts=np.array(value["counts"], np.float64),
                noise_variance=float(value["noise_variance"]),
                cohort_size=int(value["cohort_size"]),
            )
            entry_hash = str(value["entry_hash"])
            said = value.get("no_way")
            no_way = None if said is None else int(said)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a release of counts: {error}") from None
        if found.counts.shape != (question.size,):
            raise ValueError(f"counts must be {question.size}, got {found.counts.shape}")
        return ReleasedCounts(question, found, entry_hash, no_way)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateEvaluation:
    """What noised counts of held-out devices say of a model.

    Attributes:
        model_version: the model.
        releases: added up.
        answers_asked: devices asked, in all releases together.
        figures: by name, each with its interval or why it is not measurable.
    """

    model_version: str
    releases: int
    answers_asked: int
    figures: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as a JSON object, with what must be known to read it."""
        return {**asdict(self), "notice": NOTICE}


def private_evaluation(
    releases: Sequence[ReleasedCounts], *, threshold: float
) -> PrivateEvaluation:
    """Pool releases of one model and estimate its quality.

    Args:
        releases: evaluations over the same bins at moments a horizon or more apart, so that no
            failure is in two of them.
        threshold: from which the model flags; rates are told if it is an edge of the bins.

    Raises:
        ValueError: the releases do not belong together.
    """
    questions = [release.question for release in releases]
    if not questions or questions[0].kind is not CountKind.EVALUATION:
        raise ValueError("releases must be at least one, all evaluations")
    first = questions[0]
    if len({(one.model_version, one.bins, one.horizon_days) for one in questions}) != 1:
        raise ValueError("releases must be of one model, over the same bins and horizon")
    moments = sorted(one.as_of_s for one in questions)
    gaps = [(late - early) / SECONDS_PER_DAY for early, late in pairwise(moments)]
    if any(gap < first.horizon_days for gap in gaps):
        raise ValueError(
            f"releases must lie {first.horizon_days} days apart, got {min(gaps):g}: "
            "a failure would be counted twice"
        )
    together = pooled([release.found for release in releases])
    histogram = ScoreHistogram.of(together)
    edges = first.bins[0].edges
    figures = {
        "auc": roc_auc(histogram),
        "average_precision": average_precision(histogram),
        "calibration_error": calibration_error(histogram, edges),
        "prevalence": prevalence(histogram),
    }
    at_threshold = [number for number, edge in enumerate(edges) if math.isclose(edge, threshold)]
    for number in at_threshold:
        figures["recall"] = recall_from(histogram, number + 1)
        figures["precision"] = precision_from(histogram, number + 1)
        figures["false_alarm_rate"] = false_alarm_rate(histogram, number + 1)
    return PrivateEvaluation(
        model_version=first.model_version,
        releases=together.releases,
        answers_asked=together.cohort_size,
        figures=figures,
    )


def vetoes(candidate: PrivateEvaluation, current: PrivateEvaluation) -> list[str]:
    """Return the figures in which a candidate is worse beyond doubt; none decides otherwise.

    Gates decide on the simulated reference fleet and public cells; private figures are too weak
    for that, and veto only where the interval of the difference excludes equality.
    """
    return [
        name
        for name in GATED
        if difference_excludes_zero(candidate.figures[name], current.figures[name])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarDevices:
    """What is told of one cell of similar devices.

    Attributes:
        devices: about how many there are; None where the cell is held back.
        failed: share of them that failed within the horizon.
    """

    devices: int | None
    failed: Estimate


def similar_devices(release: ReleasedCounts) -> list[SimilarDevices]:
    """Tell each cell's size and failures; small cells are held back.

    A cell is told where its devices exceed `LEAST_CELL` by the reach of the noise. All intervals
    of a release hold at once (Bonferroni).

    Raises:
        ValueError: it is a release of something else.
    """
    if release.question.kind is not CountKind.SIMILAR_DEVICES:
        raise ValueError("release must be one of similar devices")
    counts, noise = release.found.counts, release.found.noise_variance
    cells = len(counts) // 2
    confidence = 1 - (1 - CONFIDENCE) / cells
    told = []
    for cell in range(cells):
        both = counts[[cell, cell + cells]]
        reach = quantile(confidence) * math.sqrt(2 * noise)
        if both.sum() - reach < LEAST_CELL:
            told.append(SimilarDevices(devices=None, failed=_held_back(confidence)))
            continue
        failed = ratio(
            both,
            over=np.array([0.0, 1.0]),
            under=np.array([1.0, 1.0]),
            variance=noise + sampling_variance(both),
            confidence=confidence,
        )
        told.append(SimilarDevices(devices=round(both.sum()), failed=failed))
    return told


def _held_back(confidence: float) -> Estimate:
    why = f"too few similar devices: fewer than {LEAST_CELL} beyond the noise"
    return Estimate(value=None, low=0.0, high=1.0, confidence=confidence, why_not=why)


def drift(release: ReleasedCounts, reference: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Estimate how far each value's spread lies from a public one (total variation, 0 to 1).

    An interval that excludes 0 is drift beyond doubt; all intervals of a release hold at once.

    Args:
        release: of drift counts.
        reference: public shares of each value's bins, the one for missing last.

    Raises:
        ValueError: it is a release of something else, or the reference does not fit its bins.
    """
    if release.question.kind is not CountKind.DRIFT:
        raise ValueError("release must be one of drift")
    first, found = 0, {}
    confidence = 1 - (1 - CONFIDENCE) / len(release.question.bins)
    for one in release.question.bins:
        counts = release.found.counts[first : first + one.size + 1]
        first += one.size + 1
        expected = reference[one.name]
        if len(expected) != len(counts):
            raise ValueError(f"reference of {one.name} must have {len(counts)} shares")
        variance = release.found.noise_variance + sampling_variance(counts)
        found[one.name] = distance_from(
            shares(counts, variance=variance, confidence=confidence),
            expected,
            confidence=confidence,
        )
    return found
