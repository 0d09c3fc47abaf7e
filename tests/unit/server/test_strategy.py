"""The loop over Flower's messages, with nodes that answer, lie, fail or stay silent."""

import json
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    LocalRecipe,
    RoundTask,
)
from privacy import (
    GaussianRelease,
    OperatingSystemNoise,
    UpdateGrid,
    events_of,
    read_ledger,
    release_epsilon,
)
from server.rounds import (
    LEDGER_FILE,
    NoAnswerError,
    RoundsConfig,
    RoundsError,
    RunFolder,
    release_noise,
)
from server.server_optimizer import OptimizerState, ServerRecipe
from server.strategy import FederatedRounds, Roster, ask_for_devices
from tests.support.flower_grid import GridInMemory

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NUM_WEIGHTS = 3
GRID = UpdateGrid(clipping_norm=1.0)
UPDATE = np.array([0.6, 0.0, -0.8])
SENT = GRID.quantise(UPDATE * (1 - 1e-9))


def config_of(**changes):
    values = {
        "stream": "test",
        "num_rounds": 2,
        "cohort_size": 4,
        "clipping_norm": 1.0,
        "epsilon": None,
        "delta": 1e-6,
        "recipe": LocalRecipe(record_noise_multiplier=0.0),
        "server": ServerRecipe(optimizer="fedavg", learning_rate=1.0, final_rate=1.0),
        "deadline_s": 0.2,
    }
    return RoundsConfig(**(values | changes))


def task_of(message):
    return RoundTask.from_plain(message.content.config_records[TASK_RECORD])


def contribution(total, *, stream="test", index=0, num_devices=2):
    facts = Contribution(stream=stream, index=index, num_devices=num_devices)
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return content


def honest(message):
    task = task_of(message)
    number = len(task.device_ids)
    return [contribution(number * SENT, index=task.index, num_devices=number)]


def rounds_over(nodes, tmp_path, *, config=None, source=None, **changes):
    config = config or config_of()
    roster = Roster.of({node: [f"{node}-{number}" for number in range(2)] for node in nodes})
    schedule = config.schedule(len(roster.device_ids))
    policy = config.policy(schedule)
    return FederatedRounds(
        config=config,
        folder=RunFolder(tmp_path / "run"),
        roster=roster,
        schedule=schedule,
        policy=policy,
        noise=release_noise(policy, source or OperatingSystemNoise()),
        state=OptimizerState.start(np.zeros(NUM_WEIGHTS, np.float32)),
        clock=lambda: NOW,
        stop=threading.Event(),
        poll_s=0.001,
        **changes,
    )


def ledger_of(rounds):
    text = (rounds.folder.path / LEDGER_FILE).read_text(encoding="ascii")
    head = rounds.folder.ledger_head
    return read_ledger(text, head=None if head is None else head.hash)


def test_honest_nodes_move_the_weights_by_the_mean_of_all_invited(tmp_path):
    records = []
    rounds = rounds_over([1, 2], tmp_path, on_round=records.append)
    assert rounds.run(GridInMemory({1: honest, 2: honest}))
    assert rounds.weights() == pytest.approx(2 * UPDATE, abs=1e-6)
    assert [(r.index, r.invited, r.replied, r.refused) for r in records] == [
        (0, 4, 4, {}),
        (1, 4, 4, {}),
    ]
    assert [record.epsilon_release for record in records] == [None, None]


def test_tasks_carry_the_weights_that_the_ledger_has_paid_for(tmp_path):
    grid = GridInMemory({1: honest, 2: honest})
    rounds = rounds_over([1, 2], tmp_path)
    rounds.run(grid)
    sent = [m.content.array_records[WEIGHTS_RECORD][FLAT_ARRAY].numpy() for m in grid.pushed]
    assert [values.tolist() for values in sent[:2]] == [[0.0] * NUM_WEIGHTS] * 2
    assert sent[2] == pytest.approx(UPDATE, abs=1e-6)
    assert [task_of(message).index for message in grid.pushed] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (lambda _: ["out of memory"], "failed"),
        (lambda _: [RecordDict()], "malformed"),
        (lambda m: [contribution(9 * SENT, index=task_of(m).index)], "beyond_bound"),
        (lambda m: [contribution(SENT, index=task_of(m).index + 1)], "wrong_step"),
        (lambda m: [contribution(SENT[:2], index=task_of(m).index)], "wrong_shape"),
        (
            lambda m: [contribution(np.full(3, np.nan), index=task_of(m).index)],
            "wrong_type",
        ),
    ],
)
def test_a_bad_reply_is_a_zero_update_and_the_divisor_stays(tmp_path, node, reason):
    records = []
    rounds = rounds_over([1, 2], tmp_path, config=config_of(num_rounds=1), on_round=records.append)
    assert rounds.run(GridInMemory({1: honest, 2: node}))
    assert rounds.weights() == pytest.approx(UPDATE / 2, abs=1e-6)
    assert (records[0].invited, records[0].replied) == (4, 2)
    assert records[0].refused == {reason: 1}


def test_a_silent_node_is_a_zero_update_at_the_deadline(tmp_path):
    records = []
    rounds = rounds_over([1, 2], tmp_path, config=config_of(num_rounds=1), on_round=records.append)
    assert rounds.run(GridInMemory({1: honest, 2: lambda _: []}))
    assert rounds.weights() == pytest.approx(UPDATE / 2, abs=1e-6)
    assert (records[0].replied, records[0].refused) == (2, {})


def test_a_second_reply_of_a_node_is_not_added(tmp_path):
    records = []
    rounds = rounds_over([1, 2], tmp_path, config=config_of(num_rounds=1), on_round=records.append)
    rounds.run(GridInMemory({1: honest, 2: lambda m: honest(m) * 2}))
    assert rounds.weights() == pytest.approx(UPDATE, abs=1e-6)
    assert records[0].refused == {"duplicate": 1}


def test_a_round_without_any_good_reply_stops_the_run_with_the_reason(tmp_path):
    rounds = rounds_over([1, 2], tmp_path)
    with pytest.raises(NoAnswerError, match="round 0: no good reply") as caught:
        rounds.run(GridInMemory({1: lambda _: ["part_missing"], 2: lambda _: ["other"]}))
    assert caught.value.refused == {"failed": 2}
    assert str(caught.value).endswith("(2 failed): part_missing")
    assert ledger_of(rounds) == ()


@pytest.mark.parametrize("text", ["<class 'ValueError'>:<'2437.5 mAh in /home/ada/device.db'>", ""])
def test_text_of_a_nodes_error_is_kept_nowhere(tmp_path, text):
    grid = GridInMemory({1: lambda _: [text], 2: lambda _: []})

    with pytest.raises(NoAnswerError) as in_a_round:
        rounds_over([1, 2], tmp_path).run(grid)
    with pytest.raises(RoundsError) as at_the_start:
        ask_for_devices(grid, num_nodes=1, deadline_s=0.2, stop=threading.Event())

    assert str(in_a_round.value) == "round 0: no good reply (1 failed): other"
    assert str(at_the_start.value) == "no node named a device that can train: other"


def test_stop_ends_the_run_between_rounds_and_keeps_what_was_released(tmp_path):
    stopped_after = []

    def stop_now(record):
        stopped_after.append(record.index)
        rounds.stop.set()

    rounds = rounds_over([1, 2], tmp_path, on_round=stop_now)
    assert not rounds.run(GridInMemory({1: honest, 2: honest}))
    assert stopped_after == [0]
    state, index = rounds.folder.load_checkpoint()
    assert index == 0
    assert state.weights == pytest.approx(UPDATE, abs=1e-6)
    assert len(ledger_of(rounds)) == 1


class CountingSource:
    """A source that says when it was asked, to see what was durable by then."""

    is_simulated = False

    def __init__(self, look):
        self.look = look
        self.seen = []

    def gaussian(self, size, *, std):
        self.seen.append((self.look(), std))
        return np.zeros(size)

    def uniform(self, size):
        raise AssertionError("releases draw no coins")


def test_the_ledger_is_durable_before_the_noise_of_a_step_is_drawn(tmp_path):
    ledger = tmp_path / "run" / LEDGER_FILE
    source = CountingSource(lambda: len(ledger.read_text().splitlines()))
    config = config_of(epsilon=2.0)
    rounds = rounds_over([1, 2], tmp_path, config=config, source=source)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert [lines for lines, _ in source.seen] == [1, 2]
    assert {std for _, std in source.seen} == {rounds.policy.noise_multiplier}


def test_the_ledger_alone_gives_the_epsilon_that_was_reported(tmp_path):
    records = []
    config = config_of(epsilon=2.0, num_rounds=4, cohort_size=2)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    entries = ledger_of(rounds)
    assert {entry.kind for entry in entries} == {"stream"}
    events = events_of(entries)
    assert events[3] == GaussianRelease(
        stream="test",
        index=3,
        mechanism="independent_gaussian",
        noise_multiplier=rounds.policy.noise_multiplier,
        clipping_norm=1.0,
        cohort_size=2,
        most_participations=2,
    )
    for record, count in zip(records, range(1, 5), strict=True):
        derived = release_epsilon(events[:count], delta=1e-6)
        assert record.epsilon_release == pytest.approx(derived)
    assert records[-1].epsilon_release == pytest.approx(2.0, rel=1e-6)


def test_the_held_out_part_is_looked_at_as_often_as_asked_and_at_the_end(tmp_path):
    records = []
    config = config_of(num_rounds=5, evaluate_every=3)
    rounds = rounds_over(
        [1, 2],
        tmp_path,
        config=config,
        on_round=records.append,
        evaluate=lambda weights: {"loss": float(weights[0])},
    )
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert [record.metrics is not None for record in records] == [True, False, False, True, True]


def test_roster_counts_a_device_once_whoever_claims_it():
    roster = Roster.of({7: ["b", "a"], 3: ["c", "a"]})
    assert roster == Roster(device_ids=("a", "b", "c"), node_ids=(3, 7, 3))


def test_nodes_are_asked_for_their_devices():
    def node(message):
        assert message.metadata.message_type == "query"
        number = message.metadata.dst_node_id
        return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": [f"d{number}"]})})]

    roster = ask_for_devices(
        GridInMemory({1: node, 2: node, 3: lambda _: ["asleep"], 4: lambda _: [RecordDict()]}),
        num_nodes=4,
        deadline_s=1.0,
        stop=threading.Event(),
    )
    assert roster.device_ids == ("d1", "d2")


def test_too_few_nodes_or_no_device_is_one_clear_error():
    grid = GridInMemory({1: lambda _: ["misconfigured"]})
    stop = threading.Event()
    with pytest.raises(RoundsError, match=r"1 of 2 nodes came within 0\.05 s"):
        ask_for_devices(grid, num_nodes=2, deadline_s=0.05, stop=stop, poll_s=0.01)
    with pytest.raises(RoundsError, match=r"no node named a device.*: misconfigured"):
        ask_for_devices(grid, num_nodes=1, deadline_s=0.5, stop=stop, poll_s=0.01)


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    rounds = rounds_over([1, 2], tmp_path)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    before = (tmp_path / "run" / LEDGER_FILE).read_bytes()
    with pytest.raises(RoundsError, match="already holds a run"):
        RunFolder(tmp_path / "run")
    assert (tmp_path / "run" / LEDGER_FILE).read_bytes() == before


def test_a_report_is_whole_json_or_the_one_before(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.save_report({"status": "running"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.save_report({"status": float("nan")})
    assert json.loads((folder.path / "run.json").read_text()) == {"status": "running"}
    assert sorted(path.name for path in folder.path.iterdir()) == [LEDGER_FILE, "run.json"]
