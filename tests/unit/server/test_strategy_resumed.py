"""A run that was stopped goes on, under its own policy."""

import pytest

from privacy import (
    events_of,
    release_epsilon,
)
from server.streams.stream_files import read_checkpoint
from tests.support.federated_rounds import (
    UPDATE,
    config_of,
    honest,
    ledger_of,
    resumed,
    roster_of,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


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


def test_a_run_that_was_stopped_goes_on_and_asks_the_cohort_of_its_open_step_again(tmp_path):
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
        (1, False),
        (2, False),
        (3, False),
    ]
    counted = again.stream.home.life_counts(again.roster.device_ids).participations
    assert counted.tolist() == [4] * 4
    assert release_epsilon(events_of(ledger_of(again)), delta=1e-6) == pytest.approx(2.0, rel=1e-6)


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
