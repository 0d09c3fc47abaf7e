"""One release of counts: each reply judged alone, charged before its noise is drawn, once."""

import math

import numpy as np
import pytest

from models.feature_spec import FEATURE_NAMES
from models.private_histograms import drift_question, evaluation_question
from models.wire.counts import Counted
from privacy import CountChannel, CountRelease, OperatingSystemNoise
from server.counts.count_release import CountCollection, count_tasks, release_counts
from server.engine.aggregation import ReplyRefusal
from simulations.seeded_noise import SeededNoise

AS_OF = 20_000 * 86_400
CHANNEL = CountChannel(name="metrics", noise_multiplier=5.0, max_answers=3, held_out=True)
QUESTION = evaluation_question(as_of_s=AS_OF, model_version="m-1")
ASKED = [("a", 1), ("b", 1), ("c", 2), ("d", 3)]


@pytest.fixture
def collection():
    return CountCollection(
        count_tasks(ASKED, channel=CHANNEL, index=2, question=QUESTION, policy="signed")
    )


def vector(*ones):
    found = np.zeros(QUESTION.size, np.int64)
    for place in ones:
        found[place] += 1
    return found


def counted(num_devices=1, **changes):
    return Counted(**({"channel": "metrics", "index": 2, "num_devices": num_devices} | changes))


def test_each_node_is_asked_for_the_devices_behind_it(collection):
    assert {node: task.device_ids for node, task in collection.tasks.items()} == {
        1: ("a", "b"),
        2: ("c",),
        3: ("d",),
    }
    assert {task.cohort_size for task in collection.tasks.values()} == {4}
    assert (collection.question, collection.cohort_size) == (QUESTION, 4)


def test_good_replies_are_added_and_a_missing_one_is_zeros(collection):
    collection.add(1, (vector(0, 13), counted(2)))
    collection.add(2, (vector(0), counted()))

    assert collection.sum.total.tolist() == (vector(0, 0, 13)).tolist()
    assert collection.sum.num_replied == 3
    assert collection.sum.refused == {}


@pytest.mark.parametrize(
    ("node", "reply", "reason"),
    [
        (9, (vector(0), counted()), ReplyRefusal.UNASKED),
        (2, None, ReplyRefusal.MALFORMED),
        (2, (vector(0), counted(index=1)), ReplyRefusal.WRONG_STEP),
        (2, (vector(0), counted(channel="drift")), ReplyRefusal.WRONG_STEP),
        (2, (vector(0), counted(2)), ReplyRefusal.TOO_MANY_DEVICES),
        (2, (vector(0), counted(-1)), ReplyRefusal.TOO_MANY_DEVICES),
        (2, (vector(0).astype(np.float64), counted()), ReplyRefusal.WRONG_TYPE),
        (2, (vector(0)[1:], counted()), ReplyRefusal.WRONG_SHAPE),
        (2, (vector(0, 1), counted()), ReplyRefusal.BEYOND_BOUND),
        (2, (-vector(0), counted()), ReplyRefusal.BEYOND_BOUND),
        (2, (vector(0), counted(0)), ReplyRefusal.BEYOND_BOUND),
    ],
)
def test_a_bad_reply_is_zeros_with_a_reason(collection, node, reply, reason):
    collection.add(node, reply)

    assert not collection.sum.total.any()
    assert collection.sum.refused == {reason: 1}


def test_a_second_reply_of_a_node_counts_nothing(collection):
    collection.add(2, (vector(0), counted()))
    collection.add(2, (vector(0), counted()))

    assert collection.sum.total.tolist() == vector(0).tolist()
    assert collection.sum.refused == {ReplyRefusal.DUPLICATE: 1}


def test_the_entry_is_durable_before_the_noise_is_drawn(collection):
    steps = []

    class Source(OperatingSystemNoise):
        def words(self, size):
            steps.append("noise")
            return super().words(size)

    def charge(event):
        steps.append(event)
        return "hash of the entry"

    released = release_counts(
        collection,
        CHANNEL,
        most_answers=3,
        policy_digest="ab",
        source=Source(),
        charge=charge,
    )

    assert steps[0] == CountRelease(
        channel="metrics",
        index=2,
        noise_multiplier=5.0,
        sensitivity=1.0,
        cohort_size=4,
        most_answers=3,
        policy_digest="ab",
        held_out=True,
    )
    assert set(steps[1:]) == {"noise"}
    assert released.entry_hash == "hash of the entry"
    assert released.found.noise_variance == 25.0
    assert released.found.counts.shape == (QUESTION.size,)


def test_nothing_is_charged_past_what_the_channel_allows(collection):
    def charge(event):
        raise AssertionError(event)

    for changes, what in (
        ({"most_answers": 4}, "3 times"),
        ({"channel": CountChannel(name="drift", noise_multiplier=5.0, max_answers=9)}, "channel"),
    ):
        fields = {"channel": CHANNEL, "most_answers": 3} | changes
        with pytest.raises(ValueError, match=what):
            release_counts(
                collection,
                fields["channel"],
                most_answers=fields["most_answers"],
                policy_digest="ab",
                source=OperatingSystemNoise(),
                charge=charge,
            )


def test_a_drift_of_many_values_gets_noise_for_its_sensitivity():
    rows = np.random.default_rng(1).normal(size=(100, len(FEATURE_NAMES)))
    question = drift_question(rows, as_of_s=AS_OF)
    channel = CountChannel(name="drift", noise_multiplier=5.0, max_answers=1)
    collection = CountCollection(
        count_tasks(ASKED, channel=channel, index=0, question=question, policy="")
    )
    events = []
    released = release_counts(
        collection,
        channel,
        most_answers=1,
        policy_digest="ab",
        source=SeededNoise(1, "drift"),
        charge=lambda event: events.append(event) or "",
    )

    assert events[0].sensitivity == math.sqrt(8)
    assert released.found.noise_variance == 25.0 * 8


def test_nobody_to_ask_is_no_release():
    with pytest.raises(ValueError, match="at least one node"):
        CountCollection({})
