"""A server that dies with a real device's answer in its hands, and asks for it once more."""

import json
import threading
from datetime import timedelta

import pytest
from flwr.app import Context, RecordDict

from edge_client.flower_app import client_app
from edge_client.own_training import own_device
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.receipts import read_receipts
from edge_client.store.mailbox import KEPT_ANSWER_FACT, Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import Reading
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import FLAT_ARRAY, SUM_RECORD, LocalRecipe
from privacy import Participation
from server.flower_app import PlannedRun, carry_out
from server.flower_messages import ask_for_devices
from server.rounds import RoundsConfig
from server.run_folder import RunFolder
from tests.support.edge_devices import NOW, PROFILE
from tests.support.flower_grid import GridInMemory
from tests.support.training_tasks import KEY, KEYS

CONFIG = RoundsConfig(
    stream="first",
    num_rounds=3,
    cohort_size=1,
    clipping_norm=1.0,
    epsilon=2.0,
    delta=1e-8,
    recipe=LocalRecipe(least_rows=1, steps=2, proximal=0.5),
    deadline_s=5.0,
)


class Killed(BaseException):
    """Stands for the end of the server's process: nothing catches it."""


@pytest.fixture
def device(tmp_path):
    """The path of a real device's store, and its node."""
    path, keys = tmp_path / "device.db", tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))
    readings = [
        Reading(at=NOW - timedelta(days=300 - day), full_charge_capacity_mah=2900.0 - day)
        for day in range(300)
    ]
    with TelemetryStore.create(path, profile=PROFILE) as store:
        store.record_many(readings, now=NOW)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    node = {"telemetry-db": str(path), "policy-keys": str(keys), "power-supplies": "/nowhere"}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
    app = client_app(lambda context: own_device(context.node_config, now=NOW))

    def answer(message):
        reply = app(message=message, context=context)
        return [reply.error.reason if reply.has_error() else reply.content]

    return path, answer


class DyingGrid(GridInMemory):
    """Notes what the device sends; the server dies with one of the sums in its hands."""

    dies_with = None

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        sums = [
            reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
            for reply in replies
            if SUM_RECORD in reply.content
        ]
        self.sent = [*getattr(self, "sent", []), *sums]
        if sums and len(self.sent) == self.dies_with:
            raise Killed
        return replies


def run_rounds(grid, folder, *, is_resumed=False):
    stop = threading.Event()
    run = PlannedRun(
        config=CONFIG,
        folder=RunFolder(folder, is_resumed=is_resumed),
        start=new_flat_weights(seed=1),
        signing_key=KEY,
        is_resumed=is_resumed,
    )
    roster = ask_for_devices(grid, num_nodes=1, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)


def events_of(path):
    with TelemetryStore(path) as store:
        events = read_device_ledger(path, store).events
    return [event.index for event in events if isinstance(event, Participation)]


@pytest.mark.parametrize("dies_with", [1, 2])
def test_server_that_dies_with_an_answer_gets_the_very_same_again(device, tmp_path, dies_with):
    path, answer = device
    before = DyingGrid({1: answer})
    before.dies_with = dies_with
    with pytest.raises(Killed):
        run_rounds(before, tmp_path / "run")
    assert events_of(path) == list(range(dies_with))

    after = DyingGrid({1: answer})
    run_rounds(after, tmp_path / "run", is_resumed=True)
    lost, again = before.sent[-1], after.sent[0]
    assert lost.any()
    assert (again.dtype, again.tobytes()) == (lost.dtype, lost.tobytes())
    assert len(after.sent) == CONFIG.num_rounds - dies_with + 1
    assert events_of(path) == [0, 1, 2]
    assert [receipt["state"] for receipt in read_receipts(path)] == ["matches"] * 3
    with TelemetryStore(path) as store:
        assert store.fact(KEPT_ANSWER_FACT) is None
