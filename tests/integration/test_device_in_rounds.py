"""A real device and a real server: two ledgers of the same steps, and receipts between them."""

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from flwr.app import Context, RecordDict

from edge_client.cli import main
from edge_client.flower_app import client_app
from edge_client.own_training import own_device
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.receipts import read_receipts
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import Reading
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import Participation
from privacy.accountant import device_epsilon, release_epsilon
from privacy.ledger import events_of
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import FleetSpentError, RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.ledger_file import LEDGER_FILE, read_ledger_file
from server.runs.folder import RunFolder
from server.runs.status import RunState, read_status
from server.streams.stream_key import KEY_FILE
from tests.support.command_line import fedcell
from tests.support.edge_devices import NOW, PROFILE
from tests.support.flower_grid import GridInMemory
from tests.support.training_tasks import KEY, KEYS

CONFIG = RoundsConfig(
    stream="first",
    num_rounds=2,
    cohort_size=1,
    clipping_norm=1.0,
    epsilon=2.0,
    delta=1e-8,
    recipe=LocalRecipe(least_rows=1, record_noise_multiplier=0.0),
    deadline_s=5.0,
)


@pytest.fixture
def device(tmp_path):
    path, keys = tmp_path / "device.db", tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in KEYS.items()}))
    readings = [
        Reading(at=NOW - timedelta(days=300 - day), full_charge_capacity_mah=2900.0 - day)
        for day in range(300)
    ]
    with TelemetryStore.create(path, profile=PROFILE) as store:
        store.record_many(readings, now=NOW)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    node = {
        "telemetry-db": str(path),
        "policy-keys": str(keys),
        "power-supplies": "/nowhere",
    }
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
    app = client_app(lambda context: own_device(context.node_config, now=NOW))

    def answer(message):
        reply = app(message=message, context=context)
        return [reply.error.reason if reply.has_error() else reply.content]

    return path, answer


def run_rounds(grid, folder, *, home=None, config=CONFIG):
    stop = threading.Event()
    run = PlannedRun(
        config=config,
        folder=RunFolder(folder, home=home),
        start=new_flat_weights(seed=1),
        signing_key=KEY,
    )
    roster = ask_for_devices(grid, num_nodes=1, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)


def test_both_ledgers_come_to_one_figure_and_every_receipt_matches(device, tmp_path, capsys):
    path, answer = device
    home = tmp_path / "home"
    home.mkdir()
    run_rounds(GridInMemory({1: answer}), tmp_path / "run", home=home)

    with TelemetryStore(path) as store:
        events = read_device_ledger(path, store).events
    released = events_of(read_ledger_file(home / LEDGER_FILE))
    assert [event.index for event in events if isinstance(event, Participation)] == [0, 1]
    assert device_epsilon(events, delta=1e-8) == pytest.approx(
        release_epsilon(released, delta=1e-8), rel=1e-6
    )
    assert [receipt["state"] for receipt in read_receipts(path)] == ["matches", "matches"]
    assert main(["--store", str(path), "ledger", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["participations_left"] == 0
    assert told["epsilon"] <= 2.0 * (1 + 1e-6)


def test_device_stops_where_a_server_forgets_what_it_has_spent(device, tmp_path):
    """Another home knows nothing of the first run; the device does, and its receipt tells it."""
    path, answer = device
    run_rounds(GridInMemory({1: answer}), tmp_path / "first")
    with TelemetryStore(path) as store:
        before = read_device_ledger(path, store).entries
    second = replace(CONFIG, stream="second")
    with pytest.raises(FleetSpentError, match="round 1: 0 of 1 devices"):
        run_rounds(GridInMemory({1: answer}), tmp_path / "second", config=second)
    with TelemetryStore(path) as store:
        assert read_device_ledger(path, store).entries == before
        assert store.fact("training_refusal")["reason"] == "retired"


def test_run_of_a_spent_fleet_keeps_its_key_until_somebody_cancels_it(device, tmp_path):
    _, answer = device
    run = tmp_path / "second"
    run_rounds(GridInMemory({1: answer}), tmp_path / "first")
    with pytest.raises(FleetSpentError, match="fedcell rounds cancel"):
        run_rounds(GridInMemory({1: answer}), run, config=replace(CONFIG, stream="second"))
    assert read_status(run).state is RunState.FAILED
    assert (run / KEY_FILE).exists()

    done = fedcell("rounds", "cancel", run, "--yes")
    assert (done.code, "the stream's key is destroyed" in done.out) == (0, True)
    assert not (run / KEY_FILE).exists()
    assert read_status(run).state is RunState.CANCELLED
    assert fedcell("rounds", "cancel", run, "--yes").code == 1
