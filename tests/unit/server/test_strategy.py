"""The loop over Flower's messages, with nodes that answer, lie, fail or stay silent."""

import threading

import numpy as np
import pytest
from flwr.app import RecordDict

from models.wire.rounds import (
    FLAT_ARRAY,
    WEIGHTS_RECORD,
)
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import NoAnswerError, RoundsError
from tests.support.federated_rounds import (
    NUM_WEIGHTS,
    SENT,
    UPDATE,
    config_of,
    contribution,
    honest,
    ledger_of,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


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
