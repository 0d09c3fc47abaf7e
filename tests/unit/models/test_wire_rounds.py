"""Task and contribution: what reads back, and what is refused."""

import json

import pytest

from models.wire.rounds import (
    Contribution,
    DeviceReceipt,
    LocalRecipe,
    ReleaseReceipt,
    RoundTask,
)

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
        ("policy", 7),
        ("pseudonyms", ["a"]),
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


def test_task_with_policy_and_pseudonyms_reads_back():
    task = RoundTask(**TASK, policy='{"alg":"ed25519"}', pseudonyms=("11" * 16, "22" * 16))
    assert RoundTask.from_plain(task.to_plain()) == task


def test_task_and_contribution_of_yesterday_have_neither_policy_nor_receipts():
    plain = RoundTask(**TASK).to_plain()
    del plain["policy"], plain["pseudonyms"]
    assert RoundTask.from_plain(plain) == RoundTask(**TASK)
    facts = {"schema_version": 1, "stream": "s", "index": 2, "num_devices": 5}
    assert Contribution.from_plain(facts).receipts == ()


RECEIPT = {"pseudonym": "0f" * 16, "participations": 3, "mu_squared": 0.125, "head": "ab" * 32}


def test_receipts_of_devices_and_of_releases_read_back():
    receipt = DeviceReceipt(**RECEIPT)
    assert DeviceReceipt.from_line(receipt.to_line()) == receipt
    facts = Contribution(stream="s", index=2, num_devices=1, receipts=(receipt.to_line(),))
    assert Contribution.from_plain(facts.to_plain()) == facts
    released = ReleaseReceipt(stream="s", index=2, entry="{}")
    assert ReleaseReceipt.from_plain(released.to_plain()) == released


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pseudonym", "device-1"),
        ("participations", -1),
        ("participations", True),
        ("mu_squared", float("nan")),
        ("mu_squared", float("inf")),
        ("head", "short"),
    ],
)
def test_receipt_that_no_ledger_gives_is_refused_by_name(name, value):
    line = json.dumps(RECEIPT | {name: value})
    with pytest.raises(ValueError, match=name):
        DeviceReceipt.from_line(line)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "Expecting value"),
        ("[]", "a receipt must be"),
        ("7", "a receipt must be"),
        ("{}", "pseudonym"),
    ],
)
def test_line_that_is_no_receipt_is_refused(line, named):
    with pytest.raises(ValueError, match=named):
        DeviceReceipt.from_line(line)
