"""A device's answer to a count, made here from its own readings; nothing else of them leaves.

Pure: from what the store holds to whole numbers of the question's shape. Whether the device may
answer is decided, and debited, before the answer leaves; whoever may not sends the zeros that a
device without readings sends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.feature_spec import FEATURE_NAMES
from models.featurize import featurize_now
from models.labels import label_packs
from models.private_histograms import DeviceMoment, count_vector
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.featurize import PackReferences
    from models.inference import Predictor
    from models.labels import OwnerAnswers
    from models.telemetry import DeviceProfiles, Telemetry
    from models.wire.counts import CountQuestion


class OwnData(NamedTuple):
    """What a device's store holds of itself.

    Attributes:
        telemetry: its readings.
        profiles: its one profile.
        references: kept from the pack's first days.
        answers: of its owner.
    """

    telemetry: Telemetry
    profiles: DeviceProfiles
    references: PackReferences | None = None
    answers: OwnerAnswers | None = None


def count_answer(
    question: CountQuestion, data: OwnData, *, now_s: int, predictor: Predictor | None = None
) -> NDArray[np.int64]:
    """Answer a question from the device's own readings.

    Args:
        question: what is counted, at which moment.
        data: from the store.
        now_s: seconds since the epoch; outcomes are known as far as readings up to now confirm.
        predictor: of the model in use; needed where the question names one.

    Returns:
        int64, shape (question.size,); zeros where the device has no prediction at that moment, has
        another model, does not know yet what became of it, or was not there.
    """
    return count_vector(question, _moment(question, data, now_s=now_s, predictor=predictor))


def zero_answer(question: CountQuestion) -> NDArray[np.int64]:
    """Return what a device sends that may not answer, or has nothing to say."""
    return count_vector(question, None)


def _moment(
    question: CountQuestion, data: OwnData, *, now_s: int, predictor: Predictor | None
) -> DeviceMoment | None:
    if question.as_of_s > now_s:
        return None
    if question.model_version and (
        predictor is None or predictor.bundle.version != question.model_version
    ):
        return None
    table = featurize_now(
        data.telemetry, data.profiles, now_s=question.as_of_s, references=data.references
    )
    if len(table.device) != 1 or not bool(table.is_ok()[0]):
        return None
    values = dict(zip(FEATURE_NAMES, (float(value) for value in table.features[0]), strict=True))
    if question.model_version and predictor is not None:
        predicted = predictor.outputs(table.features, [PROBABILITY])
        values[PROBABILITY] = float(predicted[PROBABILITY][0])
    failed_within = None
    if question.horizon_days:
        failed_within = _failed_within(question, data, int(table.pack[0]), now_s=now_s)
    return DeviceMoment(values=values, failed_within=failed_within)


def _failed_within(question: CountQuestion, data: OwnData, pack: int, *, now_s: int) -> bool | None:
    """Return whether the pack in use at the moment failed within the horizon; None = not known."""
    outcomes = label_packs(
        data.telemetry,
        data.profiles,
        now_s=now_s,
        answers=data.answers,
        references=data.references,
    )
    own = np.flatnonzero(outcomes.pack == pack)
    if len(own) != 1:
        return None
    until_s = question.as_of_s + question.horizon_days * SECONDS_PER_DAY
    failed_at_s = float(outcomes.failed_at_s[own[0]])
    if not math.isnan(failed_at_s):
        if failed_at_s <= question.as_of_s:
            return None
        return failed_at_s <= until_s
    return False if int(outcomes.known_until_s[own[0]]) >= until_s else None
