"""The loop over Flower's messages, with nodes that answer, lie, fail or stay silent."""

import json
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from models.wire.envelope import SigningKey, open_signed, trusted_keys
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    DeviceReceipt,
    LocalRecipe,
    ReleaseReceipt,
    RoundTask,
)
from privacy import (
    CorrelatedRelease,
    OperatingSystemNoise,
    UpdateGrid,
    events_of,
    read_ledger,
    release_epsilon,
)
from privacy.ledger import entry_from_line
from server.flower_messages import Roster, ask_for_devices
from server.privacy_home.ledger_file import LEDGER_FILE
from server.rounds import FleetSpentError, NoAnswerError, RoundsConfig, RoundsError
from server.run_folder import RunFolder
from server.server_optimizer import OptimizerState, ServerRecipe
from server.strategy import FederatedRounds
from server.streams.policy_signing import verified_policy
from server.streams.stream_files import read_checkpoint
from server.streams.stream_state import begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
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


def contribution(total, *, stream="test", index=0, num_devices=2, receipts=()):
    facts = Contribution(stream=stream, index=index, num_devices=num_devices, receipts=receipts)
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return content


def honest(message):
    task = task_of(message)
    number = len(task.device_ids)
    return [contribution(number * SENT, index=task.index, num_devices=number)]


def roster_of(nodes):
    return Roster.of({node: [f"{node}-{number}" for number in range(2)] for node in nodes})


def rounds_over(nodes, tmp_path, *, config=None, source=None, home=None, run="run", **changes):
    config = config or config_of()
    roster = roster_of(nodes)
    schedule = config.schedule(len(roster.device_ids))
    folder = RunFolder(tmp_path / run, home=home)
    start = OptimizerState.start(np.zeros(NUM_WEIGHTS, np.float32))
    stream = begin_stream(
        folder.path,
        folder.home,
        config.terms(schedule),
        start=start,
        keys=OperatingSystemKeys(),
        source=source or OperatingSystemNoise(),
    )
    return FederatedRounds(
        config=config,
        roster=roster,
        schedule=schedule,
        stream=stream,
        state=start,
        clock=lambda: NOW,
        stop=threading.Event(),
        poll_s=0.001,
        **changes,
    )


def resumed(rounds):
    """The same run in another process."""
    rounds.stream.close()
    folder = RunFolder(rounds.stream.folder, is_resumed=True)
    stream, state = resume_stream(
        folder.path, folder.home, rounds.stream.terms, keys=OperatingSystemKeys()
    )
    return FederatedRounds(
        config=rounds.config,
        roster=rounds.roster,
        schedule=rounds.schedule,
        stream=stream,
        state=state,
        clock=lambda: NOW,
        stop=threading.Event(),
        poll_s=0.001,
        on_round=rounds.on_round,
    )


def ledger_of(rounds):
    text = (rounds.stream.home.path / LEDGER_FILE).read_text(encoding="ascii")
    head = rounds.stream.entry
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
            "not_finite",
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


def test_rounds_without_any_good_reply_are_noise_alone_and_three_in_a_row_end_the_run(tmp_path):
    records = []
    config = config_of(num_rounds=5, epsilon=2.0)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    with pytest.raises(NoAnswerError, match="round 2: no good reply to 3 rounds in a") as caught:
        rounds.run(GridInMemory({1: lambda _: ["part_missing"], 2: lambda _: ["other"]}))
    assert caught.value.refused == {"failed": 2}
    assert str(caught.value).endswith("(2 failed): part_missing")
    assert [entry.event.noise_only for entry in ledger_of(rounds)] == [True] * 3
    assert [record.noise_only for record in records] == [True] * 3
    assert rounds.stream.home.life_counts(rounds.roster.device_ids).participations.max() == 3


def test_a_silent_round_between_others_does_not_end_the_run(tmp_path):
    def sometimes(message):
        return [] if task_of(message).index in {1, 2, 4} else honest(message)

    config = config_of(num_rounds=6, epsilon=2.0, deadline_s=0.02)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    assert rounds.run(GridInMemory({1: sometimes, 2: sometimes}))
    noise_only = [entry.event.noise_only for entry in ledger_of(rounds)]
    assert noise_only == [False, True, True, False, True, False]


def test_a_run_in_which_nobody_ever_answered_does_not_end_well(tmp_path):
    rounds = rounds_over([1], tmp_path, config=config_of(cohort_size=2, num_rounds=1))
    with pytest.raises(NoAnswerError, match=r"round 0: no good reply \(none came\)"):
        rounds.run(GridInMemory({1: lambda _: []}))


@pytest.mark.parametrize("text", ["<class 'ValueError'>:<'2437.5 mAh in /home/ada/device.db'>", ""])
def test_text_of_a_nodes_error_is_kept_nowhere(tmp_path, text):
    grid = GridInMemory({1: lambda _: [text], 2: lambda _: []})

    with pytest.raises(NoAnswerError) as in_a_round:
        rounds_over([1, 2], tmp_path, config=config_of(num_rounds=1)).run(grid)
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
    checkpoint = read_checkpoint(rounds.stream.folder)
    assert checkpoint.index == 0
    assert checkpoint.state.weights == pytest.approx(UPDATE, abs=1e-6)
    assert len(ledger_of(rounds)) == 1


def test_everything_is_durable_before_a_task_leaves_and_before_noise_is_drawn(tmp_path):
    seen = []

    def watch(message):
        task = task_of(message)
        counted = rounds.stream.home.life_counts(task.device_ids).participations
        seen.append((task.index, len(ledger_of(rounds)), counted.tolist()))
        return honest(message)

    rounds = rounds_over([1, 2], tmp_path, config=config_of(epsilon=2.0, num_rounds=3))
    rounds.run(GridInMemory({1: watch, 2: watch}))

    assert [(index, entries) for index, entries, _ in seen] == [
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 1),
        (2, 2),
        (2, 2),
    ]
    assert all(counted == [index + 1] * 2 for index, _, counted in seen)


def test_the_ledger_alone_gives_the_epsilon_that_was_reported(tmp_path):
    records = []
    config = config_of(epsilon=2.0, num_rounds=4, cohort_size=2)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    entries = ledger_of(rounds)
    assert {entry.kind for entry in entries} == {"stream"}
    events = events_of(entries)
    policy = rounds.stream.terms.policy
    assert events[3] == CorrelatedRelease(
        stream="test",
        index=3,
        noise_multiplier=policy.privacy.noise_multiplier,
        clipping_norm=1.0,
        cohort_size=2,
        bands=2,
        min_separation=2,
        most_participations=2,
        policy_digest=policy.digest,
    )
    for record, count in zip(records, range(1, 5), strict=True):
        derived = release_epsilon(events[:count], delta=1e-6)
        assert record.epsilon_release == pytest.approx(derived)
    assert records[-1].epsilon_release == pytest.approx(2.0, rel=1e-6)


def test_independent_noise_is_stamped_for_comparison_and_never_for_release(tmp_path):
    config = config_of(epsilon=2.0, noise="independent")
    rounds = rounds_over([1, 2], tmp_path, config=config)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert {entry.kind for entry in ledger_of(rounds)} == {"comparison"}
    assert {entry.event.mechanism for entry in ledger_of(rounds)} == {"independent_gaussian"}
    assert not (rounds.stream.folder / "stream.key").exists()


def test_a_run_that_was_stopped_goes_on_and_its_open_step_is_noise_alone(tmp_path):
    records = []

    def stop_in_round_one(message):
        if task_of(message).index == 1 and not records[1:]:
            rounds.stop.set()
            return []
        return honest(message)

    config = config_of(epsilon=2.0, num_rounds=4)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    assert not rounds.run(GridInMemory({1: stop_in_round_one, 2: honest}))
    again = resumed(rounds)
    assert again.run(GridInMemory({1: honest, 2: honest}))

    assert [(r.index, r.noise_only) for r in records] == [
        (0, False),
        (1, True),
        (2, False),
        (3, False),
    ]
    counted = again.stream.home.life_counts(again.roster.device_ids).participations
    assert counted.tolist() == [4] * 4
    assert release_epsilon(events_of(ledger_of(again)), delta=1e-6) == pytest.approx(2.0, rel=1e-6)


def test_the_key_is_destroyed_once_every_step_is_released(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=2)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    assert (rounds.stream.folder / "stream.key").exists()
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert not (rounds.stream.folder / "stream.key").exists()
    assert not (rounds.stream.folder / "aggregate.bin").exists()


def test_a_run_goes_on_under_its_policy_whoever_is_enrolled_by_then(tmp_path):
    stopped = []

    def stop_after_two(record):
        stopped.append(record.index)
        if len(stopped) == 2:
            rounds.stop.set()

    config = config_of(epsilon=2.0, num_rounds=6, cohort_size=2)
    rounds = rounds_over([1, 2, 3], tmp_path, config=config, on_round=stop_after_two)
    rounds.run(GridInMemory(dict.fromkeys([1, 2, 3], honest)))
    rounds.roster = roster_of([1, 3, 4])
    rounds.schedule = config.schedule(6)
    again = resumed(rounds)
    assert again.run(GridInMemory(dict.fromkeys([1, 3, 4], honest)))

    counted = again.stream.home.life_counts([f"{n}-{m}" for n in (1, 2, 3, 4) for m in (0, 1)])
    assert counted.participations.sum() == 12
    assert counted.participations.max() <= rounds.stream.terms.privacy.max_participations
    assert release_epsilon(events_of(ledger_of(again)), delta=1e-6) <= 2.0 * (1 + 1e-9)


def test_runs_over_one_home_add_up_and_a_device_at_its_cap_is_not_invited_again(tmp_path):
    home = tmp_path / "home"
    records = []
    for run in ("first", "second"):
        config = config_of(stream=run, epsilon=2.0, num_rounds=2, max_participations=4)
        rounds = rounds_over(
            [1, 2], tmp_path, config=config, home=home, run=run, on_round=records.append
        )
        rounds.run(GridInMemory({1: honest_to(run), 2: honest_to(run)}))
        rounds.stream.close()
    assert [record.most_participations for record in records] == [1, 2, 1, 2]
    assert records[-1].epsilon_release == pytest.approx(2.0, rel=1e-6)
    assert records[1].epsilon_release < 1.5

    config = config_of(stream="third", epsilon=2.0, num_rounds=2, max_participations=4)
    third = rounds_over([1, 2], tmp_path, config=config, home=home, run="third")
    with pytest.raises(FleetSpentError, match="round 0: 0 of 4 devices may be invited"):
        third.run(GridInMemory({1: honest, 2: honest}))
    assert len(third.stream.home.entries) == 4


def honest_to(stream):
    def answer(message):
        task = task_of(message)
        number = len(task.device_ids)
        return [contribution(number * SENT, stream=stream, index=task.index, num_devices=number)]

    return answer


def test_a_device_that_says_it_has_spent_more_is_scheduled_by_its_word(tmp_path):
    key = SigningKey.generate()

    def says(message):
        if message.metadata.message_type != "train":
            return []
        task = task_of(message)
        lines = [
            DeviceReceipt(
                pseudonym=name, participations=9, mu_squared=0.5, head="ab" * 32
            ).to_line()
            for name in task.pseudonyms[:1]
        ]
        return [contribution(SENT, index=task.index, receipts=("{", *lines))]

    config = config_of(epsilon=2.0, num_rounds=2, cohort_size=2, deadline_s=0.05)
    rounds = rounds_over([1], tmp_path, config=config, signing_key=key)
    with pytest.raises(FleetSpentError, match="1 of 2 devices"):
        rounds.run(GridInMemory({1: says}))
    assert rounds.stream.home.life_counts(["1-0", "1-1"]).participations.tolist() == [9, 1]


def test_policy_and_receipts_travel_signed(tmp_path):
    key = SigningKey.generate()
    trusted = trusted_keys(key.verify_key)
    tasks, receipts = [], []

    def node(message):
        if message.metadata.message_type == RECEIPT_MESSAGE:
            record = message.content.config_records[RECEIPT_RECORD]
            receipts.append(ReleaseReceipt.from_plain(record))
            return [RecordDict()]
        tasks.append(task_of(message))
        return honest(message)

    config = config_of(epsilon=2.0)
    rounds = rounds_over([1, 2], tmp_path, config=config, signing_key=key)
    assert rounds.run(GridInMemory({1: node, 2: node}))

    assert {verified_policy(task.policy, trusted) for task in tasks} == {rounds.stream.terms.policy}
    names = [name for task in tasks for name in task.pseudonyms]
    assert len(set(names)) == len(names) == 8
    said = [open_signed(one.entry.encode(), trusted).decode() for one in receipts]
    assert [entry_from_line(line, index=0).hash for line in said[::2]] == [
        entry.hash for entry in ledger_of(rounds)
    ]
    assert [one.index for one in receipts] == [0, 0, 1, 1]


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
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "home.json",
        "home.lock",
        LEDGER_FILE,
        "participations.db",
        "run.json",
    ]
