"""A device without torch and Opacus trains on its own store, from readings to update."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge_client.local_training import TrainingPath, local_trainer, train_on_device
from edge_client.own_training import own_device
from edge_client.store.mailbox import Mailbox, Purpose
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import UpdateGrid
from simulations import simulate_fleet
from tests.support.system_parts import REPOSITORY

TRAIN = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "opacus", "dp_accounting", "scipy", "sklearn"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())

from datetime import datetime
import numpy as np
from edge_client.local_training import local_trainer, train_on_device
from edge_client.own_training import own_device
from models.wire.rounds import LocalRecipe
from privacy import OperatingSystemNoise, UpdateGrid

store, weights, now, noise = sys.argv[1:]
recipe = LocalRecipe(sampling_rate=1.0, record_noise_multiplier=float(noise))
device = own_device({"telemetry-db": store}, now=datetime.fromisoformat(now))
(device_id,) = device.device_ids
sent = train_on_device(
    local_trainer(recipe),
    device.rows(device_id),
    weights=np.load(weights),
    grid=UpdateGrid(clipping_norm=5.0),
    source=OperatingSystemNoise(),
)
print(json.dumps({"sent": sent.tolist(), "loaded": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    fleet = simulate_fleet(num_devices=1, num_days=260, seed=5)
    path = tmp_path_factory.mktemp("device") / "device.db"
    now = datetime.fromtimestamp(int(fleet.telemetry.at_s.max()), UTC) + timedelta(hours=1)
    with TelemetryStore.create(path, profile=fleet.profiles[0]) as store:
        store.record_many(readings_of(fleet.telemetry), now=now)
    with Mailbox(path) as mailbox:
        mailbox.set_consent(Purpose.TRAINING, granted=True, now=now)
    return own_device({"telemetry-db": str(path)}, now=now)


def trained_without_torch(device, weights, tmp_path, *, noise):
    np.save(tmp_path / "weights.npy", weights)
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            TRAIN,
            str(device.store),
            str(tmp_path / "weights.npy"),
            device.now.isoformat(),
            str(noise),
        ],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(answer.stdout)


def test_device_without_torch_trains_as_the_reference_does(device, tmp_path):
    weights = new_flat_weights(seed=2)
    answer = trained_without_torch(device, weights, tmp_path, noise=0.0)
    assert {"torch", "opacus", "dp_accounting", "flwr"}.isdisjoint(answer["loaded"])

    grid = UpdateGrid(clipping_norm=5.0)
    (device_id,) = device.device_ids
    expected = train_on_device(
        local_trainer(
            LocalRecipe(sampling_rate=1.0, record_noise_multiplier=0.0), path=TrainingPath.OPACUS
        ),
        device.rows(device_id),
        weights=weights,
        grid=grid,
        source=device.source(device_id, stream="s", index=0),
    )
    sent = grid.restore(np.array(answer["sent"], np.int64))
    assert sent == pytest.approx(grid.restore(expected), abs=1e-7)
    assert np.linalg.norm(sent) > 1e-3


def test_device_without_torch_trains_with_record_level_noise(device, tmp_path):
    answer = trained_without_torch(device, new_flat_weights(seed=2), tmp_path, noise=1.25)
    sent = UpdateGrid(clipping_norm=5.0).restore(np.array(answer["sent"], np.int64))
    # Noise of 0.25/96 · 1.25 a coordinate; its norm over 2,493 of them varies by 1.4 %.
    assert np.linalg.norm(sent) >= 0.9 * 0.25 / 96 * 1.25 * np.sqrt(len(sent))
