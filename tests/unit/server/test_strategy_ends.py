"""Rounds with too few replies, and runs that stop early."""

import json
import math

import pytest

from privacy import StreamPolicy
from privacy.statement import REACHABILITY
from server.engine.early_stop import REFERENCE_QUALITY
from server.engine.rounds import RoundsError
from server.engine.way_on import require_way_on
from server.privacy_home.privacy_errors import StreamRefusedError
from server.runs.report_layout import statement_of
from server.streams.stream_key import KEY_FILE
from tests.support.federated_rounds import (
    UPDATE,
    config_of,
    honest,
    ledger_of,
    resumed,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


def only_in(*steps):
    return lambda message: honest(message) if task_of(message).index in steps else []


def test_round_with_fewer_replies_than_the_least_is_marked_noise_alone(tmp_path):
    records = []
    config = config_of(epsilon=2.0, num_rounds=3, min_replies=3, deadline_s=0.05)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    assert rounds.run(GridInMemory({1: honest, 2: only_in(0, 2)}))
    assert [(r.replied, r.noise_only) for r in records] == [(4, False), (2, True), (4, False)]
    assert [entry.event.noise_only for entry in ledger_of(rounds)] == [False, True, False]
    assert rounds.stream.terms.policy.min_replies == 3


def test_sum_of_too_few_replies_moves_nothing_without_noise(tmp_path):
    config = config_of(num_rounds=1, min_replies=3, deadline_s=0.05)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    assert rounds.run(GridInMemory({1: honest, 2: lambda _: []}))
    assert rounds.weights().tolist() == [0.0, 0.0, 0.0]
    enough = rounds_over([1, 2], tmp_path, config=config, run="enough")
    assert enough.run(GridInMemory({1: honest, 2: honest}))
    assert enough.weights() == pytest.approx(UPDATE, abs=1e-6)


def test_policy_of_least_replies_says_so_and_one_of_yesterday_keeps_its_digest(tmp_path):
    usual = rounds_over([1, 2], tmp_path, config=config_of(epsilon=2.0)).stream.terms.policy
    assert "min_replies" not in usual.to_json()
    text = json.dumps(usual.to_json())
    assert StreamPolicy.from_json(json.loads(text)).digest == usual.digest

    rounds = rounds_over(
        [1, 2], tmp_path, config=config_of(epsilon=2.0, min_replies=3), run="least"
    )
    policy = rounds.stream.terms.policy
    assert StreamPolicy.from_json(policy.to_json()) == policy
    assert policy.digest != usual.digest
    assert REACHABILITY in statement_of(rounds.stream.terms).assumptions


@pytest.mark.parametrize("least", [0, 5, -1])
def test_policy_of_replies_that_cannot_come_is_refused(tmp_path, least):
    with pytest.raises(ValueError, match="min_replies must lie in"):
        config_of(epsilon=2.0, min_replies=least)
    value = rounds_over(
        [1, 2], tmp_path, config=config_of(epsilon=2.0)
    ).stream.terms.policy.to_json()
    with pytest.raises(ValueError, match="min_replies must lie in"):
        StreamPolicy.from_json(value | {"min_replies": least})


def looks(*values):
    """Public figures of the weights after rounds 0, 1, …"""
    left = iter(values)
    return lambda _: {REFERENCE_QUALITY: next(left)}


def stopping(tmp_path, *values, patience=2, num_rounds=8, **changes):
    config = config_of(epsilon=2.0, num_rounds=num_rounds, patience=patience)
    return rounds_over([1, 2], tmp_path, config=config, evaluate=looks(*values), **changes)


def test_run_stops_after_its_patience_and_nothing_more_is_charged(tmp_path):
    rounds = stopping(tmp_path, 0.5, 0.6, 0.55, 0.6)
    grid = GridInMemory({1: honest, 2: honest})
    assert rounds.run(grid)
    assert len(ledger_of(rounds)) == 4
    assert not (rounds.stream.folder / KEY_FILE).exists()
    counted = rounds.stream.home.life_counts(rounds.roster.device_ids).participations
    assert counted.tolist() == [4] * 4
    assert len(grid.pushed) == 8


def test_weights_that_begin_best_count_as_the_first_look(tmp_path):
    rounds = stopping(tmp_path, 0.5, 0.6, 0.55)
    rounds.start_metrics = {REFERENCE_QUALITY: 0.7}
    assert rounds.run(GridInMemory({1: honest, 2: honest}))
    assert [record.index for record in rounds.records] == [0, 1]


def test_run_that_gains_goes_on_to_its_last_round(tmp_path):
    rounds = stopping(tmp_path, 0.1, 0.2, 0.3, num_rounds=3)
    assert rounds.run(GridInMemory({1: honest, 2: honest}))
    assert len(rounds.records) == 3


def test_stopped_run_that_is_taken_up_again_asks_nobody(tmp_path):
    rounds = stopping(tmp_path, 0.5, 0.4, 0.3)
    assert rounds.run(GridInMemory({1: honest, 2: honest}))
    with pytest.raises(Exception, match=r"stream\.key"):
        resumed(rounds)
    assert rounds.is_over()


def test_stream_without_its_key_that_is_not_over_has_no_way_on(tmp_path):
    rounds = stopping(tmp_path, 0.5, 0.6)
    rounds.stream.secrets = None
    with pytest.raises(StreamRefusedError, match="its key is destroyed"):
        require_way_on(rounds)


def test_patience_without_public_data_is_refused(tmp_path):
    config = config_of(epsilon=2.0, patience=2)
    with pytest.raises(RoundsError, match="public data"):
        require_way_on(rounds_over([1, 2], tmp_path, config=config))


def test_negative_patience_is_refused():
    with pytest.raises(ValueError, match="patience must be at least 0"):
        config_of(patience=-1)


@pytest.mark.parametrize("deadline_s", [0.0, -5.0, math.nan, math.inf, 604_801.0])
def test_a_deadline_that_nobody_can_wait_for_is_refused(deadline_s):
    with pytest.raises(ValueError, match="deadline_s must lie above 0 and be at most 604800"):
        config_of(deadline_s=deadline_s)


@pytest.mark.parametrize("evaluate_every", [0, -1])
def test_looks_that_never_come_are_refused(evaluate_every):
    with pytest.raises(ValueError, match="evaluate_every must be at least 1"):
        config_of(evaluate_every=evaluate_every)
