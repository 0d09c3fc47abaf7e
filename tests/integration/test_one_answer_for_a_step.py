"""What a device has debited leaves once: the step is refused from then on, and nothing is kept."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.errors import TaskRefusedError
from edge_client.own_training import OwnDevice
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import REFUSAL_FACT
from edge_client.sensing.conditions import ConditionSources
from edge_client.store.erasure import erase_device
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.wire.rounds import DeviceReceipt
from privacy import Participation
from tests.support.edge_devices import NOW
from tests.support.training_tasks import (
    POLICY,
    TERMS,
    agreeing_store,
    receipt_of,
    release_of,
    task_of,
)

NO_POWER_SUPPLIES = ConditionSources(power_supplies=Path("/nowhere"))


@pytest.fixture
def device(tmp_path):
    with agreeing_store(tmp_path) as store:
        return OwnDevice(store.path, NOW, (), None, TERMS, sources=NO_POWER_SUPPLIES)


def train_anew():
    return np.frombuffer(os.urandom(40), np.int64)


def never():
    pytest.fail("the device trained twice for one step")


def debited(device):
    with TelemetryStore(device.store) as store:
        events = read_device_ledger(store.path, store).events
    return [event.index for event in events if isinstance(event, Participation)]


def refused(device, task):
    before = debited(device)
    total, (line,) = device.answer(task, never)
    assert total is None
    assert DeviceReceipt.from_line(line).participations == len(before) == len(debited(device))
    with TelemetryStore(device.store) as store:
        return store.fact(REFUSAL_FACT)["reason"]


AGAIN = {
    "the very same": task_of(),
    "other pseudonyms": task_of(pseudonyms=("a1" * 16,)),
    "another recipe": task_of(recipe=replace(task_of().recipe, learning_rate=0.125)),
}


@pytest.mark.parametrize("again", AGAIN)
def test_debited_step_is_refused_however_it_is_asked_again(device, again):
    total, _ = device.answer(task_of(), train_anew)
    assert total.any()
    assert refused(device, AGAIN[again]) == "index_used"
    device.keep_receipt(receipt_of(release_of()))
    assert refused(device, AGAIN[again]) == "index_used"
    later, _ = device.answer(task_of(index=POLICY.privacy.min_separation), train_anew)
    assert later.any()
    assert debited(device) == [0, POLICY.privacy.min_separation]


def test_no_update_stays_on_the_disk(device):
    total, _ = device.answer(task_of(), train_anew)
    for file in device.store.parent.iterdir():
        assert total.tobytes() not in file.read_bytes()
    with TelemetryStore(device.store) as store:
        assert store.fact("kept_answer") is None


def test_owner_who_withdraws_and_agrees_again_is_not_asked_a_step_twice(device):
    device.answer(task_of(), train_anew)
    for granted in (False, True):
        with TelemetryStore(device.store) as store:
            store.set_consent(Purpose.TRAINING, granted=granted, now=NOW)
        if not granted:
            with pytest.raises(TaskRefusedError, match="does not agree"):
                device.answer(task_of(), never)
    assert refused(device, task_of()) == "index_used"


def test_erased_device_says_so_and_answers_no_step(device):
    device.answer(task_of(), train_anew)
    erase_device(device.store, now=NOW)
    with agreeing_store(device.store.parent):
        pass
    assert refused(device, task_of(index=2)) == "erased"
