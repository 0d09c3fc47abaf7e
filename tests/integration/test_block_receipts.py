"""Real devices behind one node: one reply, and the receipt of each device's own ledger in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_client.flower_app import client_app
from edge_client.local_training import local_trainer, train_on_device
from edge_client.own_training import OwnDevice
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.sensing.conditions import ConditionSources
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    DeviceReceipt,
)
from privacy import Participation, UpdateGrid
from simulations.seeded_noise import SeededNoise
from tests.support.edge_devices import NOW, PROFILE
from tests.support.made_up_rows import made_up_rows
from tests.support.training_tasks import TERMS, task_of

WEIGHTS = new_flat_weights(seed=1)
TASK = task_of(
    device_ids=tuple(f"device-{number}" for number in range(3)),
    pseudonyms=tuple(f"{number:032x}" for number in range(3)),
)


def alone(device_id):
    """Return what a device sends of itself."""
    return train_on_device(
        local_trainer(TASK.recipe),
        made_up_rows(200, seed=int(device_id[-1])),
        weights=WEIGHTS,
        grid=UpdateGrid(clipping_norm=TASK.clipping_norm),
        source=SeededNoise(1, device_id),
    )


class Gateway:
    """Real devices behind one node, each with its store and its ledger."""

    def __init__(self, devices):
        self.devices = devices
        self.device_ids = tuple(devices)
        self.trained = []

    def rows(self, device_id):
        raise AssertionError(f"{device_id} makes its rows itself")

    source = rows

    def keep_receipt(self, receipt):
        for device in self.devices.values():
            device.keep_receipt(receipt)

    def answer(self, task, _train):
        total, receipts = np.zeros(WEIGHTS.size, np.int64), ()
        for device_id, pseudonym in zip(task.device_ids, task.pseudonyms, strict=True):
            own = replace(task, device_ids=(device_id,), pseudonyms=(pseudonym,))
            update, lines = self.devices[device_id].answer(
                own, lambda name=device_id: self._train(name)
            )
            total += 0 if update is None else update
            receipts += lines
        return total, receipts

    def _train(self, device_id):
        self.trained.append(device_id)
        return alone(device_id)


def device_named(folder, name):
    folder.mkdir()
    profile = replace(PROFILE, device_id=DeviceId(name))
    with TelemetryStore.create(folder / "device.db", profile=profile) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    sources = ConditionSources(power_supplies=Path("/nowhere"))
    return OwnDevice(folder / "device.db", NOW, (), None, TERMS, sources=sources)


def asked(gateway):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    content = RecordDict({WEIGHTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(WEIGHTS)})})
    content[TASK_RECORD] = ConfigRecord({**TASK.to_plain()})
    message = Message(content, dst_node_id=2, message_type=MessageType.TRAIN)
    reply = client_app(lambda _: gateway)(message=message, context=None).content
    said = Contribution.from_plain(dict(reply.config_records[CONTRIBUTION_RECORD]))
    return reply.array_records[SUM_RECORD][FLAT_ARRAY].numpy(), said


def test_receipts_of_each_device_pass_and_asked_again_none_of_them_sends_anything(tmp_path):
    gateway = Gateway({name: device_named(tmp_path / name, name) for name in TASK.device_ids})

    total, said = asked(gateway)
    receipts = [DeviceReceipt.from_line(line) for line in said.receipts]
    assert tuple(one.pseudonym for one in receipts) == TASK.pseudonyms
    assert [one.participations for one in receipts] == [1, 1, 1]
    assert np.array_equal(total, sum(alone(name) for name in TASK.device_ids))
    assert total.any()

    again, said_again = asked(gateway)
    assert not again.any()
    assert (again.dtype, again.shape) == (total.dtype, total.shape)
    assert said_again == said
    assert gateway.trained == list(TASK.device_ids)
    for device in gateway.devices.values():
        with TelemetryStore(device.store) as store:
            events = read_device_ledger(store.path, store).events
        assert sum(isinstance(event, Participation) for event in events) == 1
