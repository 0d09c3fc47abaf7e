"""A real device in a release of counts: debited before it leaves, else zeros."""

from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.errors import TaskRefusedError
from edge_client.own_counts import own_count
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import Terms
from edge_client.store.mailbox import Mailbox, Purpose
from edge_client.telemetry_store import TelemetryStore
from models.bundle import DEFAULT, load_bundle
from models.private_histograms import evaluation_question, similar_devices_question
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import Bins, CountKind, CountQuestion, CountTask
from privacy import CountAnswer, CountChannel
from tests.support.edge_devices import NOW, fading_life
from tests.support.training_tasks import POLICY, TERMS, agreeing_store, signed

COUNTING = replace(
    POLICY,
    channels=(
        CountChannel(name="drift", noise_multiplier=30.0, max_answers=2),
        CountChannel(name="metrics", noise_multiplier=20.0, max_answers=3, held_out=True),
    ),
)
AS_OF_S = int((NOW - timedelta(days=1)).timestamp()) // SECONDS_PER_DAY * SECONDS_PER_DAY
DRIFT = CountQuestion(
    kind=CountKind.DRIFT, as_of_s=AS_OF_S, bins=(Bins("battery_temp_avg", (20.0, 30.0)),)
)


@pytest.fixture
def path(tmp_path):
    with agreeing_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
        return store.path


def task(**changes):
    fields = {
        "channel": "drift",
        "index": 0,
        "cohort_size": 100,
        "device_ids": ("device-1",),
        "question": DRIFT,
        "policy": signed(COUNTING),
    }
    return CountTask(**(fields | changes))


def answered(path, asked, *, terms=TERMS):
    return own_count(lambda: TelemetryStore(path), asked, terms=terms, now=NOW).tolist()


def debited(path):
    with TelemetryStore(path) as store:
        return [
            (event.channel, event.index)
            for event in read_device_ledger(store.path, store).events
            if isinstance(event, CountAnswer)
        ]


def test_an_answer_is_debited_and_leaves_in_the_questions_shape(path):
    assert answered(path, task()) == [0, 1, 0, 0]
    assert debited(path) == [("drift", 0)]


def test_a_device_with_nothing_to_say_is_debited_too(path):
    """Whether it had something to count is data."""
    early = replace(DRIFT, as_of_s=0)

    assert answered(path, task(question=early)) == [0, 0, 0, 0]
    assert debited(path) == [("drift", 0)]


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"policy": ""}, TERMS),
        ({"policy": signed(POLICY)}, TERMS),
        ({"channel": "unknown"}, TERMS),
        ({}, Terms(policy_keys={})),
    ],
)
def test_what_policy_or_ledger_refuse_leaves_as_zeros(path, changes, terms):
    assert answered(path, task(**changes), terms=terms) == [0, 0, 0, 0]
    assert debited(path) == []


def test_a_release_is_answered_once_and_a_channel_as_often_as_its_policy_allows(path):
    assert answered(path, task(index=3)) != [0, 0, 0, 0]
    assert answered(path, task(index=3)) == [0, 0, 0, 0]
    assert answered(path, task(index=4)) != [0, 0, 0, 0]
    assert answered(path, task(index=5)) == [0, 0, 0, 0]
    assert debited(path) == [("drift", 3), ("drift", 4)]


def test_a_device_that_answered_as_one_that_may_train_never_answers_as_held_out(path):
    metrics = task(
        channel="metrics",
        question=evaluation_question(as_of_s=AS_OF_S, model_version="m-1"),
    )
    answered(path, task())
    answered(path, metrics)

    assert debited(path) == [("drift", 0)]


def test_an_owner_who_does_not_agree_is_not_told_from_a_device_without_readings(path):
    with Mailbox(path) as mailbox:
        mailbox.set_consent(Purpose.TRAINING, granted=False, now=NOW)

    assert answered(path, task()) == [0, 0, 0, 0]
    assert debited(path) == []


def test_another_devices_question_is_refused(path):
    for asked in (("device-2",), ("device-1", "device-2"), ()):
        with pytest.raises(TaskRefusedError, match="not the one behind"):
            answered(path, task(device_ids=asked))


def test_the_model_in_use_is_what_is_evaluated(path):
    version = load_bundle(DEFAULT).version
    question = evaluation_question(as_of_s=AS_OF_S - 60 * SECONDS_PER_DAY, model_version=version)
    other = replace(question, model_version="another")

    assert sum(answered(path, task(channel="metrics", question=question))) == 1
    assert sum(answered(path, task(channel="metrics", index=1, question=other))) == 0
    assert debited(path) == [("metrics", 0), ("metrics", 1)]


def test_a_device_looks_back_sixty_days_for_devices_like_it(path):
    question = similar_devices_question(as_of_s=AS_OF_S - 75 * SECONDS_PER_DAY)
    answer = answered(path, task(question=question))

    assert len(answer) == question.size
    assert sum(answer) <= 1
