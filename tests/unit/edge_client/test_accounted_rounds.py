"""A real device in rounds: its update leaves once it is debited, zeros where it may not."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_client.errors import InputError
from edge_client.flower_app import client_app
from edge_client.own_training import (
    OWN_EPSILON_KEY,
    OWN_MIN_COHORT_KEY,
    OWN_PARTICIPATIONS_KEY,
    POLICY_KEYS_KEY,
    STORE_KEY,
    own_device,
)
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import REFUSAL_FACT
from edge_client.privacy.receipts import read_receipts
from edge_client.sensing.conditions import POWER_SUPPLIES_KEY
from edge_client.store.erasure import ledger_path
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.training.local_epochs import new_flat_weights
from models.wire.counts import (
    COUNTS_QUERY,
    COUNTS_RECORD,
    QUESTION_RECORD,
    Bins,
    CountKind,
    CountQuestion,
    CountTask,
)
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    DeviceReceipt,
    NodeFailure,
)
from privacy import CountChannel
from simulations import simulate_fleet
from tests.support.training_tasks import (
    KEYS,
    POLICY,
    PSEUDONYM,
    receipt_of,
    release_of,
    signed,
    task_of,
)

WEIGHTS = new_flat_weights(seed=1)


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=1, num_days=260, seed=5)


@pytest.fixture
def device(fleet, tmp_path):
    """The app of a device with readings and consent, its store, and its node's configuration."""
    now = datetime.fromtimestamp(int(fleet.telemetry.at_s.max()), UTC) + timedelta(hours=1)
    path, keys = tmp_path / "device.db", tmp_path / "policy-keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))
    with TelemetryStore.create(path, profile=fleet.profiles[0]) as store:
        store.record_many(readings_of(fleet.telemetry), now=now)
        store.set_consent(Purpose.TRAINING, granted=True, now=now)
    node = {STORE_KEY: str(path), POLICY_KEYS_KEY: str(keys), POWER_SUPPLIES_KEY: "/nowhere"}
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    app = client_app(lambda context: own_device(context.node_config, now=now))
    return SimpleNamespace(app=app, path=path, node=node, id=fleet.telemetry.device_ids[0], now=now)


def told(device, message_type, content):
    message = Message(content, dst_node_id=2, message_type=message_type)
    return device.app(message=message, context=SimpleNamespace(node_config=device.node))


def asked(device, task, *, weights=WEIGHTS):
    content = RecordDict({WEIGHTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(weights)})})
    content[TASK_RECORD] = ConfigRecord({**replace(task, device_ids=(device.id,)).to_plain()})
    return told(device, MessageType.TRAIN, content)


def parts_of(reply):
    total = reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    plain = dict(reply.content.config_records[CONTRIBUTION_RECORD])
    (line,) = Contribution.from_plain(plain).receipts
    return total, DeviceReceipt.from_line(line), plain


def test_update_leaves_once_and_its_receipt_says_what_was_debited(device):
    total, receipt, _ = parts_of(asked(device, task_of()))
    assert total.any()
    with TelemetryStore(device.path) as store:
        ledger = read_device_ledger(device.path, store)
    assert (receipt.pseudonym, receipt.participations, receipt.head) == (PSEUDONYM, 1, ledger.head)

    for weights in (WEIGHTS, WEIGHTS + 1):
        other, after, _ = parts_of(asked(device, task_of(), weights=weights))
        assert (other.dtype, other.shape, other.any()) == (total.dtype, total.shape, False)
        assert after == receipt


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (task_of(policy=""), "policy_missing"),
        (task_of(clipping_norm=0.2), "task_differs"),
        (task_of(index=POLICY.num_rounds), "stream_ended"),
    ],
)
def test_refusal_is_zeros_of_the_same_form_and_its_reason_stays_here(device, caplog, task, reason):
    caplog.set_level(logging.WARNING)
    refused, said, plain = parts_of(asked(device, task))
    total, _, other = parts_of(asked(device, task_of()))
    assert (refused.dtype, refused.shape, refused.any()) == (total.dtype, total.shape, False)
    assert plain.keys() == other.keys()
    assert (said.participations, said.mu_squared) == (0, 0.0)
    assert reason not in json.dumps(plain)
    assert reason in caplog.text
    with TelemetryStore(device.path) as store:
        assert store.fact(REFUSAL_FACT)["reason"] == reason


def test_device_whose_ledger_is_gone_sends_zeros_and_says_nothing_of_why(device):
    ledger_path(device.path).unlink()
    total, receipt, _ = parts_of(asked(device, task_of()))
    assert not total.any()
    assert (receipt.participations, receipt.head) == (0, "0" * 64)
    assert not ledger_path(device.path).exists()


def test_device_with_too_few_rows_is_charged_like_any_other(device):
    policy = replace(POLICY, record=replace(POLICY.record, least_rows=10_000))
    total, receipt, _ = parts_of(asked(device, task_of(policy)))
    assert not total.any()
    assert receipt.participations == 1


def test_owner_who_withdraws_while_the_device_trains_has_the_last_word(device):
    own = own_device(device.node, now=device.now)
    from edge_client.errors import TaskRefusedError

    def train():
        with TelemetryStore(device.path) as store:
            store.set_consent(Purpose.TRAINING, granted=False, now=device.now)
        return np.ones(3, np.int64)

    with pytest.raises(TaskRefusedError, match="does not agree"):
        own.answer(replace(task_of(), device_ids=(device.id,)), train)
    with TelemetryStore(device.path) as store:
        assert read_device_ledger(device.path, store).entries == ()


def test_node_without_keys_believes_no_policy(device):
    del device.node[POLICY_KEYS_KEY]
    total, receipt, _ = parts_of(asked(device, task_of()))
    assert not total.any()
    assert receipt.participations == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (OWN_PARTICIPATIONS_KEY, -1),
        (OWN_PARTICIPATIONS_KEY, "many"),
        (OWN_EPSILON_KEY, "little"),
        (OWN_MIN_COHORT_KEY, 0),
        (OWN_MIN_COHORT_KEY, 2.5),
        (OWN_EPSILON_KEY, float("nan")),
        (POLICY_KEYS_KEY, "/nowhere/keys.json"),
    ],
)
def test_configuration_that_cannot_be_is_refused_by_name(device, key, value):
    device.node[key] = value
    with pytest.raises(InputError, match=key):
        own_device(device.node, now=device.now)
    assert asked(device, task_of()).error.reason == NodeFailure.MISCONFIGURED


@pytest.mark.parametrize(
    ("key", "value"),
    [(OWN_PARTICIPATIONS_KEY, 0), (OWN_EPSILON_KEY, 0.5), (OWN_MIN_COHORT_KEY, 10_000)],
)
def test_own_limits_of_the_node_stop_a_participation(device, key, value):
    device.node[key] = value
    total, _, _ = parts_of(asked(device, task_of()))
    assert not total.any()


def receipt_told(device, receipt):
    content = RecordDict({RECEIPT_RECORD: ConfigRecord({**receipt.to_plain()})})
    return told(device, RECEIPT_MESSAGE, content)


def test_receipt_of_the_server_is_held_against_the_ledger_and_kept(device):
    asked(device, task_of())
    reply = receipt_told(device, receipt_of(release_of()))
    assert (len(reply.content), reply.has_error()) == (0, False)
    (kept,) = read_receipts(device.path)
    assert (kept["state"], kept["entry"]["event"]["stream"]) == ("matches", "s")


def test_receipt_that_differs_is_said_loudly_and_answered_like_any_other(device, caplog):
    asked(device, task_of())
    reply = receipt_told(device, receipt_of(release_of(cohort_size=99)))
    assert len(reply.content) == 0
    assert "differs from what was debited: cohort_size" in caplog.text
    assert [one["state"] for one in read_receipts(device.path)] == ["differs"]


def test_receipt_that_is_none_is_refused_and_one_of_a_stranger_dropped(device):
    assert told(device, RECEIPT_MESSAGE, RecordDict()).error.reason == NodeFailure.TASK_REFUSED
    asked(device, task_of())
    forged = replace(receipt_of(release_of()), entry=signed(POLICY).replace('"sig":"', '"sig":"A'))
    assert len(receipt_told(device, forged).content) == 0
    assert read_receipts(device.path) == ()


def test_question_for_counts_is_debited_in_the_same_ledger(device):
    policy = replace(
        POLICY, channels=(CountChannel(name="drift", noise_multiplier=30.0, max_answers=2),)
    )
    day = 24 * 3600
    question = CountQuestion(
        kind=CountKind.DRIFT,
        as_of_s=int(device.now.timestamp()) // day * day,
        bins=(Bins("usage_intensity", (3.0,)),),
    )
    task = CountTask(
        channel="drift",
        index=0,
        cohort_size=9,
        device_ids=(device.id,),
        question=question,
        policy=signed(policy),
    )
    content = RecordDict({QUESTION_RECORD: ConfigRecord({**task.to_plain()})})
    answers = [
        told(device, f"query.{COUNTS_QUERY}", content)
        .content.array_records[COUNTS_RECORD][FLAT_ARRAY]
        .numpy()
        for _ in range(2)
    ]
    assert [answer.sum() for answer in answers] == [1, 0]
    with TelemetryStore(device.path) as store:
        (event,) = read_device_ledger(device.path, store).events
    assert (event.channel, event.index) == ("drift", 0)
