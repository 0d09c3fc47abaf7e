"""A release of counts from the question to the record: real stores, real ledgers on both sides."""

import threading
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from edge_client.count_messages import CountsAnswer
from edge_client.own_counts import own_count
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.held_out_devices import turn_of
from models.private_histograms import evaluation_question
from models.telemetry import SECONDS_PER_DAY, DeviceId
from models.wire.counts import (
    COUNTED_RECORD,
    COUNTS_RECORD,
    QUESTION_RECORD,
    Bins,
    CountKind,
    CountQuestion,
    CountTask,
)
from models.wire.rounds import FLAT_ARRAY
from privacy import (
    CountAnswer,
    CountChannel,
    CountRelease,
    OperatingSystemNoise,
    events_of,
)
from privacy.accountant import device_epsilon, release_epsilon
from privacy.discrete_accounting import count_noise_multiplier_for
from privacy.discrete_gaussian import discrete_gaussian
from server.counts.count_queries import CountOffice
from server.counts.private_metrics import ReleasedCounts
from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsError
from server.privacy_home.ledger_file import LEDGER_FILE, read_ledger_file
from server.privacy_home.participation_counts import AnswerCost, StepCost, StreamRecord
from server.privacy_home.privacy_ledger import open_home
from simulations.seeded_noise import SeededNoise
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.flower_grid import GridInMemory
from tests.support.training_tasks import POLICY, TERMS, signed

DAY_BEFORE = NOW - timedelta(days=1)
AS_OF_S = int(DAY_BEFORE.timestamp()) // SECONDS_PER_DAY * SECONDS_PER_DAY
DRIFT = CountQuestion(
    kind=CountKind.DRIFT,
    as_of_s=AS_OF_S,
    bins=(Bins("battery_temp_avg", (20.0, 30.0)), Bins("usage_intensity", (3.0,))),
)
POLICY_WITH_COUNTS = replace(
    POLICY,
    channels=(
        CountChannel(name="drift", noise_multiplier=30.0, max_answers=2),
        CountChannel(name="metrics", noise_multiplier=20.0, max_answers=3, held_out=True),
    ),
)
IDS = [f"device-{number}" for number in range(40)]
HELD_OUT = [name for name in IDS if turn_of(name, "held out") < 0.2][:2]
IN_TRAINING = [name for name in IDS if turn_of(name, "held out") >= 0.2][:3]


@dataclass
class OneDevice:
    """The device behind a node, as `edge_client.own_training` is one."""

    path: object

    def count(self, task):
        return own_count(lambda: TelemetryStore(self.path), task, terms=TERMS, now=NOW)


@pytest.fixture
def fleet(tmp_path):
    """Stores by device; the last one of those that train has no readings."""
    paths = {}
    for name in (*IN_TRAINING, *HELD_OUT):
        path = tmp_path / f"{name}.db"
        profile = replace(PROFILE, device_id=DeviceId(name))
        with TelemetryStore.create(path, profile=profile) as store:
            store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
            if name != IN_TRAINING[-1]:
                store.record_many(fading_life(), now=NOW)
        paths[name] = path
    return paths


def grid_of(fleet):
    def node(path):
        answer = CountsAnswer(lambda _context: OneDevice(path))
        return lambda message: [answer(message, None).content]

    return GridInMemory({number: node(path) for number, path in enumerate(fleet.values())})


def roster_of(fleet):
    return Roster.of({number: [name] for number, name in enumerate(fleet)})


def office_of(folder, *, source=None, policy=POLICY_WITH_COUNTS):
    return CountOffice(
        home=open_home(folder / "home"),
        policy=policy,
        policy_text=signed(policy),
        source=source or OperatingSystemNoise(),
        clock=lambda: NOW,
        stop=threading.Event(),
        deadline_s=0.2,
    )


def answers_of(path):
    with TelemetryStore(path) as store:
        events = read_device_ledger(store.path, store).events
    return [event for event in events if isinstance(event, CountAnswer)]


def test_counts_are_asked_debited_charged_and_noised_with_ledgers_that_agree(fleet, tmp_path):
    grid, noise = grid_of(fleet), SeededNoise(3, "drift")
    released = office_of(tmp_path, source=noise).release(
        grid, roster_of(fleet), channel="drift", question=DRIFT
    )

    of_noise = discrete_gaussian(900 * 2, DRIFT.size, SeededNoise(3, "drift"))
    assert (released.found.counts - of_noise).tolist() == [0, 2, 0, 0, 0, 2, 0]
    assert released.found.cohort_size == 3
    (entry,) = read_ledger_file(tmp_path / "home" / LEDGER_FILE)
    assert (entry.kind, entry.hash) == ("simulated", released.entry_hash)
    (event,) = [e for e in [entry.event] if isinstance(e, CountRelease)]
    assert (event.channel, event.most_answers, event.held_out) == ("drift", 1, False)
    for name in IN_TRAINING:
        assert [(a.channel, a.index) for a in answers_of(fleet[name])] == [("drift", 0)]
        assert device_epsilon(answers_of(fleet[name]), delta=1e-8) == pytest.approx(
            release_epsilon([event], delta=1e-8)
        )
    for name in HELD_OUT:
        assert answers_of(fleet[name]) == []
    assert ReleasedCounts.from_json(released.to_json()).question == DRIFT


def test_noise_of_the_operating_system_is_what_a_release_may_stand_on(fleet, tmp_path):
    released = office_of(tmp_path).release(
        grid_of(fleet), roster_of(fleet), channel="drift", question=DRIFT
    )

    (entry,) = read_ledger_file(tmp_path / "home" / LEDGER_FILE)
    assert entry.kind == "stream"
    assert released.found.noise_variance == 1800.0


def test_only_devices_that_never_train_are_asked_for_metrics(fleet, tmp_path):
    grid = grid_of(fleet)
    question = evaluation_question(as_of_s=AS_OF_S, model_version="m-1")
    released = office_of(tmp_path).release(
        grid, roster_of(fleet), channel="metrics", question=question
    )

    asked = [
        CountTask.from_plain(message.content.config_records[QUESTION_RECORD]).device_ids
        for message in grid.pushed
    ]
    assert sorted(asked) == sorted((name,) for name in HELD_OUT)
    assert {message.metadata.message_type for message in grid.pushed} == {"query.counts"}
    assert released.found.cohort_size == 2


def test_a_device_that_was_invited_to_a_round_is_not_asked_as_one_that_never_trains(
    fleet, tmp_path
):
    office, question = office_of(tmp_path), evaluation_question(as_of_s=AS_OF_S, model_version="m")
    record = StreamRecord(policy_digest="ab", anchor="x", max_participations=1)
    office.home.open_stream("s", record)
    office.home.invite(
        "s", 0, device_ids=HELD_OUT, choose=lambda _: [0], cost=StepCost(mu_squared=0.01)
    )
    grid = grid_of(fleet)

    released = office.release(grid, roster_of(fleet), channel="metrics", question=question)

    assert released.found.cohort_size == 1
    (message,) = grid.pushed
    asked = CountTask.from_plain(message.content.config_records[QUESTION_RECORD])
    assert asked.device_ids == (HELD_OUT[1],)


def test_what_leaves_a_device_is_one_vector_and_three_public_facts(fleet):
    answer = CountsAnswer(lambda _context: OneDevice(fleet[IN_TRAINING[0]]))
    empty = CountsAnswer(lambda _context: object())
    grid = GridInMemory({})
    task = CountTask(
        channel="drift",
        index=0,
        cohort_size=3,
        device_ids=(IN_TRAINING[0],),
        question=DRIFT,
        policy=signed(POLICY_WITH_COUNTS),
    )
    message = Message(
        RecordDict({QUESTION_RECORD: ConfigRecord({**task.to_plain()})}),
        dst_node_id=1,
        message_type="query.counts",
    )
    grid.push_messages([])
    for content in (answer(message, None).content, empty(message, None).content):
        assert set(content) == {COUNTS_RECORD, COUNTED_RECORD}
        assert dict(content.config_records[COUNTED_RECORD]) == {
            "schema_version": 1,
            "channel": "drift",
            "index": 0,
            "num_devices": 1,
        }
        vector = content.array_records[COUNTS_RECORD][FLAT_ARRAY].numpy()
        assert vector.dtype == np.int64
        assert vector.shape == (DRIFT.size,)


def test_a_channel_asks_as_often_as_its_policy_says(fleet, tmp_path):
    office, roster = office_of(tmp_path), roster_of(fleet)
    for _ in range(2):
        office.release(grid_of(fleet), roster, channel="drift", question=DRIFT)
    grid = grid_of(fleet)
    with pytest.raises(RoundsError, match="spent after 2 releases"):
        office.release(grid, roster, channel="drift", question=DRIFT)

    assert grid.pushed == []
    entries = read_ledger_file(tmp_path / "home" / LEDGER_FILE)
    assert [entry.event.index for entry in entries] == [0, 1]
    assert [a.index for a in answers_of(fleet[IN_TRAINING[0]])] == [0, 1]


def test_a_release_that_was_cut_off_after_asking_stays_charged_and_its_number_used(fleet, tmp_path):
    office, roster = office_of(tmp_path), roster_of(fleet)
    channel = POLICY_WITH_COUNTS.channels[0]
    office.home.charge_answers(
        f"{POLICY_WITH_COUNTS.digest} drift",
        0,
        IN_TRAINING,
        cost=AnswerCost(mu_squared=channel.mu_squared / 2),
    )

    office.release(grid_of(fleet), roster, channel="drift", question=DRIFT)

    events = events_of(read_ledger_file(tmp_path / "home" / LEDGER_FILE))
    assert [(event.index, event.most_answers) for event in events] == [(0, 1), (1, 2)]
    assert release_epsilon(events, delta=1e-8) >= device_epsilon(
        answers_of(fleet[IN_TRAINING[0]]), delta=1e-8
    )
    assert [a.index for a in answers_of(fleet[IN_TRAINING[0]])] == [1]


def test_a_release_that_was_stopped_is_charged(fleet, tmp_path):
    office = office_of(tmp_path)
    office.stop.set()
    with pytest.raises(RoundsError, match="charged, not released"):
        office.release(grid_of(fleet), roster_of(fleet), channel="drift", question=DRIFT)

    (entry,) = read_ledger_file(tmp_path / "home" / LEDGER_FILE)
    assert (entry.event.index, entry.event.most_answers) == (0, 1)


def test_a_second_policy_finds_nothing_left_of_what_the_first_spent_on_counts(fleet, tmp_path):
    share = POLICY.privacy.mu_squared_for_counts
    sigma = count_noise_multiplier_for(mu_squared=share, answers=2)
    channel = CountChannel(name="drift", noise_multiplier=sigma, max_answers=2)
    policy, roster = replace(POLICY, channels=(channel,)), roster_of(fleet)
    first = office_of(tmp_path, policy=policy)
    for _ in range(2):
        first.release(grid_of(fleet), roster, channel="drift", question=DRIFT)
    again = office_of(tmp_path, policy=replace(policy, stream="another"))
    grid = grid_of(fleet)
    with pytest.raises(RoundsError, match="has budget left"):
        again.release(grid, roster, channel="drift", question=DRIFT)

    assert grid.pushed == []


def test_a_channel_keeps_one_sensitivity(fleet, tmp_path):
    office, roster = office_of(tmp_path), roster_of(fleet)
    office.release(grid_of(fleet), roster, channel="drift", question=DRIFT)
    fewer = replace(DRIFT, bins=DRIFT.bins[:1])

    with pytest.raises(RoundsError, match="keep the number of values"):
        office.release(grid_of(fleet), roster, channel="drift", question=fewer)


def test_silent_failing_and_lying_nodes_are_zeros(fleet, tmp_path):
    names = list(fleet)
    lie = RecordDict({COUNTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(np.full(7, 9, np.int64))})})
    grid = grid_of(fleet)
    grid.nodes[0] = lambda message: []
    grid.nodes[1] = lambda message: ["a text that nobody reads"]
    grid.nodes[2] = lambda message: [lie]
    assert names[:3] == IN_TRAINING

    released = office_of(tmp_path, source=SeededNoise(4, "x")).release(
        grid, roster_of(fleet), channel="drift", question=DRIFT
    )

    of_noise = discrete_gaussian(900 * 2, DRIFT.size, SeededNoise(4, "x"))
    assert (released.found.counts == of_noise).all()


def test_nothing_is_released_without_a_channel_or_anyone_to_ask(fleet, tmp_path):
    office, roster = office_of(tmp_path), roster_of(fleet)
    with pytest.raises(RoundsError, match="has drift, metrics"):
        office.release(grid_of(fleet), roster, channel="other", question=DRIFT)
    nobody = Roster.of({0: [IN_TRAINING[0]]})
    with pytest.raises(RoundsError, match="no enrolled device"):
        office.release(grid_of(fleet), nobody, channel="metrics", question=DRIFT)

    assert read_ledger_file(tmp_path / "home" / LEDGER_FILE) == ()
