"""A step that a killed process left: the same cohort, the same task, and never another one."""

from collections import Counter

import numpy as np
import pytest

from models.wire.envelope import SigningKey
from models.wire.rounds import FLAT_ARRAY, WEIGHTS_RECORD
from server.engine.step_facts import STEP_FACTS_FILE, StepFacts, read_facts, write_facts
from server.privacy_home.privacy_errors import StreamRefusedError
from server.streams.ended_stream import ended_stream, has_ended
from server.streams.stream_key import KEY_FILE
from tests.support.federated_rounds import (
    config_of,
    honest,
    ledger_of,
    resumed,
    roster_of,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def weights_of(message):
    return message.content.array_records[WEIGHTS_RECORD][FLAT_ARRAY].numpy()


def tasks_of(grid, index):
    trained = [m for m in grid.pushed if m.metadata.message_type == "train"]
    return {
        m.metadata.dst_node_id: (task_of(m), weights_of(m))
        for m in trained
        if task_of(m).index == index
    }


def killed_in(index, *, at):
    """An honest node that ends the server's process when it is asked for a step."""

    def answer(message):
        if message.metadata.message_type == "train" and task_of(message).index == index:
            at.append(index)
            raise Killed
        return honest(message) if message.metadata.message_type == "train" else []

    return answer


def answers(message):
    return honest(message) if message.metadata.message_type == "train" else []


def interrupted(tmp_path, *, index=1, config=None, **changes):
    config = config or config_of(epsilon=2.0, num_rounds=4, cohort_size=2)
    rounds = rounds_over([1, 2], tmp_path, config=config, **changes)
    died = []
    grid = GridInMemory({1: answers, 2: killed_in(index, at=died)})
    with pytest.raises(Killed):
        rounds.run(grid)
    assert died
    return rounds, grid


def test_asked_again_a_cohort_gets_the_same_task_bit_for_bit(tmp_path):
    key = SigningKey.generate()
    config = config_of(epsilon=2.0, num_rounds=4)
    rounds, before = interrupted(tmp_path, config=config, signing_key=key)
    again = resumed(rounds)
    again.signing_key = key
    again.__post_init__()
    after = GridInMemory({1: answers, 2: answers})
    again.run(after)

    first, second = tasks_of(before, 1), tasks_of(after, 1)
    assert set(second) == {1, 2}
    for node, (task, weights) in first.items():
        task_again, weights_again = second[node]
        assert task_again == task
        assert task.pseudonyms
        assert weights_again.tobytes() == weights.tobytes()


def test_no_device_is_counted_twice_for_a_step_that_is_asked_again(tmp_path):
    rounds, _ = interrupted(tmp_path)
    home, ids = rounds.stream.home, rounds.roster.device_ids
    cohort = home.cohort("test", 1)
    counted = home.life_counts(ids).participations.tolist()
    again = resumed(rounds)
    asked = Counter()

    def watch(message):
        task = task_of(message)
        asked.update((task.index, device) for device in task.device_ids)
        if task.index == 1:
            assert again.stream.home.life_counts(ids).participations.tolist() == counted
        return honest(message)

    assert again.run(GridInMemory({1: watch, 2: watch}))
    assert {device for index, device in asked if index == 1} == set(cohort)
    assert set(asked.values()) == {1}
    assert again.stream.home.life_counts(ids).participations.sum() == 4 * 2
    assert [entry.event.noise_only for entry in ledger_of(again)] == [False] * 4


def test_who_of_the_cohort_is_still_here_is_asked_and_nobody_in_place_of_the_others(tmp_path):
    records = []
    config = config_of(epsilon=2.0, num_rounds=2)
    rounds, _ = interrupted(tmp_path, config=config, on_round=records.append)
    rounds.roster = roster_of([2, 3])
    after = GridInMemory({2: answers, 3: answers})
    again = resumed(rounds)
    again.run(after)
    assert set(tasks_of(after, 1)) == {2}
    assert tasks_of(after, 1)[2][0].cohort_size == 4
    assert (records[-1].index, records[-1].invited, records[-1].replied) == (1, 4, 2)


def test_a_cohort_that_is_gone_makes_a_marked_step_of_noise_alone(tmp_path):
    rounds, _ = interrupted(tmp_path)
    rounds.roster = roster_of([3, 4])
    again = resumed(rounds)
    records = []
    again.on_round = records.append
    again.run(GridInMemory({3: answers, 4: answers}))
    assert [entry.event.noise_only for entry in ledger_of(again)] == [False, True, False, False]
    assert (records[0].index, records[0].replied, records[0].noise_only) == (1, 0, True)


def test_round_whose_report_was_lost_is_told_from_what_was_kept(tmp_path):
    def dies(_record):
        raise Killed

    config = config_of(epsilon=2.0, num_rounds=3)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=dies)
    with pytest.raises(Killed):
        rounds.run(GridInMemory({1: answers, 2: lambda _: ["other"]}))
    told = rounds.records[0]
    rounds.on_round = None
    again = resumed(rounds)
    assert [(r.index, r.invited, r.replied, r.refused) for r in again.records] == [
        (0, 4, 2, {"failed": 1})
    ]
    assert again.records[0].weights_sha256 == told.weights_sha256
    assert again.records[0].ledger_hash == told.ledger_hash
    assert again.records[0].epsilon_release == told.epsilon_release


def test_committed_sum_is_released_with_what_was_collected(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=2)
    rounds = rounds_over([1, 2], tmp_path, config=config)

    def dies(*_, **__):
        raise Killed

    rounds.clock = dies
    with pytest.raises(Killed):
        rounds.run(GridInMemory({1: answers, 2: lambda _: []}))
    again = resumed(rounds)
    records = []
    again.on_round = records.append
    after = GridInMemory({1: answers, 2: answers})
    assert again.run(after)
    assert not tasks_of(after, 0)
    assert [(r.index, r.replied) for r in records] == [(0, 2), (1, 4)]


def test_stream_at_its_end_is_told_without_its_key(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=2)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    assert rounds.run(GridInMemory({1: answers, 2: answers}))
    stream, terms = rounds.stream, rounds.stream.terms
    stream.close()
    assert has_ended(stream.folder)

    ended, state = ended_stream(stream.folder, stream.home, terms)
    assert np.array_equal(state.weights, rounds.state.weights)
    assert (ended.next_index, ended.entry) == (2, stream.entry)
    assert ended.noise.noise_multiplier == stream.noise.noise_multiplier
    assert ended.noise.mechanism == stream.noise.mechanism
    with pytest.raises(Exception, match="ends after 2"):
        ended.noise.noise(2, 3)
    ended.close()


def test_stream_whose_key_is_gone_before_its_step_is_released_goes_on_nowhere(tmp_path):
    rounds, _ = interrupted(tmp_path)
    rounds.stream.close()
    (rounds.stream.folder / KEY_FILE).unlink()
    with pytest.raises(StreamRefusedError, match="is not released"):
        ended_stream(rounds.stream.folder, rounds.stream.home, rounds.stream.terms)


def test_facts_of_a_step_are_of_that_step_alone_and_damage_tells_nothing(tmp_path):
    write_facts(tmp_path, StepFacts(index=3, replied=2, refused={"late": 1}, noise_only=True))
    kept = read_facts(tmp_path, index=3)
    assert (kept.replied, kept.refused, kept.noise_only) == (2, {"late": 1}, True)
    assert read_facts(tmp_path, index=2) is None
    (tmp_path / STEP_FACTS_FILE).write_bytes(b"[1]")
    assert read_facts(tmp_path, index=3) is None
    (tmp_path / STEP_FACTS_FILE).unlink()
    assert read_facts(tmp_path, index=3) is None


def test_process_that_ends_twice_between_count_and_mark_leaves_a_stream_that_goes_on(
    tmp_path, monkeypatch
):
    def dies(*_):
        raise Killed

    config = config_of(epsilon=2.0, num_rounds=3)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    (rounds.stream.folder / "run.json").write_text("{}")
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr("server.streams.stream_state.write_mark", dies)
            with pytest.raises(Killed):
                rounds.run(GridInMemory({1: answers, 2: answers}))
        rounds = resumed(rounds)
    assert rounds.run(GridInMemory({1: answers, 2: answers}))
    assert [entry.event.noise_only for entry in ledger_of(rounds)] == [False] * 3
