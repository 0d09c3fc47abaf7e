"""A device's answers to counts, from its own readings alone, against the fleet seen from above."""

import numpy as np
import pytest

from edge_client.count_answers import OwnData, count_answer, zero_answer
from models.feature_spec import FEATURE_NAMES
from models.featurize import featurize
from models.inference import Predictor
from models.labels import label_packs
from models.metrics import windows
from models.private_histograms import (
    DeviceMoment,
    count_vector,
    drift_question,
    evaluation_question,
    similar_devices_question,
)
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import PROBABILITY
from simulations import simulate_fleet
from tests.support.line_bundle import line_bundle

DAYS, AS_OF_DAY = 420, 330


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=24, num_days=DAYS, seed=12)


@pytest.fixture(scope="module")
def first_day(fleet):
    """Of most devices: some have a clock that was wrong."""
    return int(np.median(fleet.telemetry.at_s[fleet.telemetry.offsets[:-1]])) // SECONDS_PER_DAY


@pytest.fixture(scope="module")
def as_of_s(first_day):
    return (first_day + AS_OF_DAY) * SECONDS_PER_DAY


@pytest.fixture(scope="module")
def now_s(first_day):
    return (first_day + DAYS + 1) * SECONDS_PER_DAY


@pytest.fixture(scope="module")
def predictor():
    return Predictor(line_bundle())


def own(fleet, device):
    return OwnData(
        telemetry=fleet.telemetry.devices(device, device + 1),
        profiles=fleet.profiles.take(slice(device, device + 1)),
    )


def answers(fleet, question, *, now_s, predictor=None):
    return np.array(
        [
            count_answer(question, own(fleet, device), now_s=now_s, predictor=predictor)
            for device in range(len(fleet.profiles))
        ]
    )


@pytest.fixture(scope="module")
def seen(fleet, now_s):
    """All features and labels of the fleet at once."""
    return (
        featurize(fleet.telemetry, fleet.profiles, now_s=now_s),
        label_packs(fleet.telemetry, fleet.profiles, now_s=now_s),
    )


def seen_from_above(fleet, question, *, seen, probability=None):
    """The same counts from the whole table: features at the moment, labels by rule."""
    table, packs = seen
    key = {(d, p): n for n, (d, p) in enumerate(zip(packs.device, packs.pack, strict=True))}
    found = np.zeros((len(fleet.profiles), question.size), np.int64)
    for row in np.flatnonzero((table.as_of_s == question.as_of_s) & table.is_ok()):
        pack = key[table.device[row], table.pack[row]]
        known = windows(
            np.array([0]),
            np.array([table.as_of_s[row] / SECONDS_PER_DAY]),
            failed_at_days=packs.failed_at_s[[pack]] / SECONDS_PER_DAY,
            observed_until_days=packs.known_until_s[[pack]] / SECONDS_PER_DAY,
            horizon_days=question.horizon_days or 1,
        )
        values = dict(zip(FEATURE_NAMES, table.features[row].astype(float), strict=True))
        if probability is not None:
            values[PROBABILITY] = float(probability(table.features[row : row + 1])[0])
        label = bool(known.label[0]) if known.known[0] else None
        found[table.device[row]] = count_vector(
            question, DeviceMoment(values=values, failed_within=label)
        )
    return found


@pytest.mark.slow
def test_each_device_counts_itself_as_the_fleet_would(fleet, as_of_s, now_s, predictor, seen):
    version = predictor.bundle.version
    reference = seen[0].features

    def probability(features):
        return predictor.outputs(features, [PROBABILITY])[PROBABILITY]

    for question in (
        evaluation_question(as_of_s=as_of_s, model_version=version),
        similar_devices_question(as_of_s=as_of_s),
        drift_question(reference, as_of_s=as_of_s),
    ):
        found = answers(fleet, question, now_s=now_s, predictor=predictor)
        expected = seen_from_above(
            fleet,
            question,
            seen=seen,
            probability=probability if question.model_version else None,
        )
        assert (found == expected).all()
        assert np.count_nonzero(found.any(axis=1)) >= 10


def test_failures_and_survivors_are_both_there(fleet, as_of_s, now_s):
    question = similar_devices_question(as_of_s=as_of_s)
    both = answers(fleet, question, now_s=now_s).sum(axis=0).reshape(2, -1).sum(axis=1)

    assert both.min() >= 1


def test_what_is_not_known_yet_is_answered_by_zeros(fleet, as_of_s):
    """Thirty days after the moment nothing confirms yet that the device lived through sixty."""
    question = similar_devices_question(as_of_s=as_of_s)
    soon = as_of_s + 30 * SECONDS_PER_DAY
    early = own(fleet, 0)
    kept = early.telemetry.rows(early.telemetry.at_s <= soon)

    answer = count_answer(question, early._replace(telemetry=kept), now_s=soon)

    assert answer.reshape(2, -1)[0].sum() == 0


def test_a_moment_that_has_not_come_and_one_before_the_device_are_zeros(fleet, as_of_s, now_s):
    data = own(fleet, 0)
    long_ago = similar_devices_question(as_of_s=0)
    assert (count_answer(long_ago, data, now_s=now_s) == zero_answer(long_ago)).all()
    question = similar_devices_question(as_of_s=as_of_s)
    assert not count_answer(question, data, now_s=as_of_s - 1).any()


def test_a_device_with_another_model_or_none_answers_zeros(fleet, as_of_s, now_s, predictor):
    question = evaluation_question(as_of_s=as_of_s, model_version="another")

    for model in (predictor, None):
        assert not answers(fleet, question, now_s=now_s, predictor=model).any()
