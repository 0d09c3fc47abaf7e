"""A server that dies with one device's answer in its hands, and asks for the step once more."""

import json
import threading
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from edge_client.flower_app import client_app
from edge_client.own_training import own_device
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import REFUSAL_FACT
from edge_client.privacy.receipts import read_receipts
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId, Reading
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    Contribution,
    DeviceReceipt,
    LocalRecipe,
)
from privacy import Participation
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from tests.support.edge_devices import NOW, PROFILE
from tests.support.flower_grid import GridInMemory
from tests.support.training_tasks import KEY, KEYS

CONFIG = RoundsConfig(
    stream="first",
    num_rounds=3,
    cohort_size=2,
    clipping_norm=1.0,
    epsilon=2.0,
    delta=1e-8,
    recipe=LocalRecipe(least_rows=1, steps=2, proximal=0.5),
    deadline_s=5.0,
)


class Killed(BaseException):
    """Stands for the end of the server's process: nothing catches it."""


class Node:
    """A SuperNode's app over a real device; notes what leaves it."""

    def __init__(self, folder, name):
        folder.mkdir()
        self.path, keys = folder / "device.db", folder / "keys.json"
        keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))
        readings = [
            Reading(at=NOW - timedelta(days=300 - day), full_charge_capacity_mah=2900.0 - day)
            for day in range(300)
        ]
        profile = replace(PROFILE, device_id=DeviceId(name))
        with TelemetryStore.create(self.path, profile=profile) as store:
            store.record_many(readings, now=NOW)
            store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        config = {
            "telemetry-db": str(self.path),
            "policy-keys": str(keys),
            "power-supplies": "/nowhere",
        }
        self.context = Context(
            run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={}
        )
        self.app = client_app(lambda context: own_device(context.node_config, now=NOW))
        self.sent, self.said = [], []

    def __call__(self, message):
        reply = self.app(message=message, context=self.context)
        if reply.has_error():
            return [reply.error.reason]
        if SUM_RECORD in reply.content:
            self.sent.append(reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy())
            plain = dict(reply.content.config_records[CONTRIBUTION_RECORD])
            (line,) = Contribution.from_plain(plain).receipts
            self.said.append(DeviceReceipt.from_line(line).participations)
        return [reply.content]

    def debited(self):
        with TelemetryStore(self.path) as store:
            events = read_device_ledger(self.path, store).events
        return [event.index for event in events if isinstance(event, Participation)]


class DyingGrid(GridInMemory):
    """Carries tasks one by one; the server dies when so many devices have answered."""

    dies_after = None

    def push_messages(self, messages):
        ids = []
        for message in messages:
            ids += super().push_messages([message])
            if sum(len(node.sent) for node in self.nodes.values()) == self.dies_after:
                raise Killed
        return ids


@pytest.fixture
def nodes(tmp_path):
    return {number: Node(tmp_path / str(number), f"BT-{number}") for number in (1, 2)}


def run_rounds(grid, folder, *, is_resumed=False):
    stop = threading.Event()
    run = PlannedRun(
        config=CONFIG,
        folder=RunFolder(folder, is_resumed=is_resumed),
        start=new_flat_weights(seed=1),
        signing_key=KEY,
        is_resumed=is_resumed,
    )
    roster = ask_for_devices(grid, num_nodes=2, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    return json.loads((folder / "run.json").read_text())["rounds"]


def test_no_update_leaves_twice_for_a_server_that_dies_with_it_and_asks_again(nodes, tmp_path):
    step = 1
    before = DyingGrid(nodes)
    before.dies_after = 2 * step + 1
    with pytest.raises(Killed):
        run_rounds(before, tmp_path / "run")
    (had,) = (node for node in nodes.values() if node.debited() == list(range(step + 1)))
    (had_not,) = (node for node in nodes.values() if node is not had)
    assert had_not.debited() == list(range(step))
    lost = had.sent[-1]
    assert lost.any()

    rounds = run_rounds(GridInMemory(nodes), tmp_path / "run", is_resumed=True)
    again = had.sent[step + 1]
    assert (again.dtype, again.shape, again.any()) == (lost.dtype, lost.shape, False)
    assert had_not.sent[step].any()
    assert sum(np.array_equal(vector, lost) for vector in had.sent) == 1
    assert [len(node.sent) for node in (had, had_not)] == [4, 3]
    # Both answer the step; the one says no more than it did, the other has debited it now.
    (told,) = (told for told in rounds if told["index"] == step)
    assert (told["invited"], told["replied"]) == (2, 2)
    assert had.said == [*range(1, step + 2), *range(step + 1, 4)]
    assert had_not.said == [1, 2, 3]
    for node in nodes.values():
        assert node.debited() == [0, 1, 2]
        assert [receipt["state"] for receipt in read_receipts(node.path)] == ["matches"] * 3
    with TelemetryStore(had.path) as store:
        refusal = store.fact(REFUSAL_FACT)
    assert (refusal["index"], refusal["reason"]) == (step, "index_used")
