"""Task and contribution: what reads back, and what is refused."""

import pytest

from models.wire.rounds import Contribution, LocalRecipe, RoundTask

TASK = {
    "stream": "s",
    "index": 0,
    "clipping_norm": 0.5,
    "cohort_size": 3,
    "device_ids": ("a", "b"),
    "recipe": LocalRecipe(learning_rate=0.125),
}


def test_task_reads_back_as_written():
    task = RoundTask(**TASK)
    assert RoundTask.from_plain(task.to_plain()) == task


def test_whole_numbers_are_read_as_fractions_and_unknown_values_ignored():
    plain = RoundTask(**TASK).to_plain() | {"clipping_norm": 1, "colour": "blue"}
    assert RoundTask.from_plain(plain).clipping_norm == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stream", 7),
        ("index", "0"),
        ("index", True),
        ("index", -1),
        ("clipping_norm", 0.0),
        ("clipping_norm", float("nan")),
        ("cohort_size", 1),
        ("device_ids", ["a", "a"]),
        ("device_ids", "ab"),
        ("steps", 0),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.1),
        ("expected_batch_size", 0),
        ("learning_rate", 0.0),
        ("least_rows", 0),
        ("record_noise_multiplier", -1.0),
        ("record_max_grad_norm", 0.0),
    ],
)
def test_task_that_no_honest_server_sends_is_refused_by_name(name, value):
    plain = RoundTask(**TASK).to_plain() | {name: value}
    with pytest.raises(ValueError, match=name):
        RoundTask.from_plain(plain)


def test_record_level_privacy_is_off_at_zero_noise():
    assert LocalRecipe().is_record_private
    assert not LocalRecipe(record_noise_multiplier=0.0).is_record_private


def test_contribution_reads_back_and_lacks_nothing():
    facts = Contribution(stream="s", index=2, num_devices=5)
    assert Contribution.from_plain(facts.to_plain()) == facts
    with pytest.raises(ValueError, match="num_devices"):
        Contribution.from_plain({"stream": "s", "index": 2})
