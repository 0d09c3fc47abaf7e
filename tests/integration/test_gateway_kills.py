"""Gateway and broker killed at random points of ten steps: who is in a sum is in it once.

A step is asked for until it was answered, as an operator's resumed runs would. Then it is asked for
once more, as a server would that was put back: nobody is in that sum.
"""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edge_client.gateway.record import gateway_folder, read_answered
from models.network_shape import NUM_WEIGHTS
from models.wire.rounds import DeviceReceipt
from simulations.site_devices import expected_sum
from tests.support.brokers import mosquitto_in
from tests.support.gateway_sites import gateway_on_disk, pseudonym_of
from tests.support.system_parts import REPOSITORY

pytestmark = pytest.mark.broker
WEIGHTS = np.random.default_rng(1).normal(0, 0.1, NUM_WEIGHTS).astype(np.float32)
NUM_DEVICES, STEPS = 8, 10

ASK = """
import os
import sys
from pathlib import Path
import numpy as np
from tests.support.gateway_sites import gateway_on_disk
folder, port, index = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
site = gateway_on_disk(folder, ("127.0.0.1", port), num_devices={devices})
weights = np.random.default_rng(1).normal(0, 0.1, {weights}).astype(np.float32)
print("asks", flush=True)
task = site.task(index=index, deadline_s=20.0)
total, num_devices, receipts = site.block().relay_task(task, weights, waited_s=0.0)
aside = folder / f"{{os.getpid()}}.part"
with aside.open("wb") as file:
    np.savez(file, total=total, num_devices=num_devices, receipts=np.array(receipts))
aside.replace(folder / f"answer-{{index}}-{{os.getpid()}}.npz")
"""


class Asking:
    """The gateway's app in a process of its own, as a SuperNode starts one for each message."""

    def __init__(self, site, index):
        words = [sys.executable, "-c", ASK.format(devices=NUM_DEVICES, weights=NUM_WEIGHTS)]
        told = [str(site.folder), str(site.broker[1]), str(index)]
        self.child = subprocess.Popen(
            [*words, *told], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self.child.stdout.readline() == "asks\n"

    def kill_after(self, seconds):
        time.sleep(seconds)
        self.child.send_signal(signal.SIGKILL)
        self._end()

    def wait(self):
        assert self._end() == 0

    def _end(self):
        with self.child.stdout:
            return self.child.wait(40)


def live(tmp_path, *, kills, steps, seed):
    """Run the steps with kills among them, and hold every sum to the devices that are in it."""
    choose = random.Random(seed)
    points = sorted(choose.choices(range(steps), k=kills))
    counted = dict.fromkeys(range(steps), 0)
    with mosquitto_in(tmp_path) as broker:
        site = gateway_on_disk(
            tmp_path / "gateway", (broker.host, broker.port), num_devices=NUM_DEVICES
        )
        record = gateway_folder(site.folder / "gateway.db")
        with site.devices():
            for index in range(steps):
                for _ in range(points.count(index)):
                    asking = Asking(site, index)
                    if choose.random() < 0.5:
                        time.sleep(choose.uniform(0.0, 0.4))
                        broker.kill()
                        broker.start()
                        asking.wait()
                    else:
                        asking.kill_after(choose.uniform(0.0, 0.6))
                if not read_answered(record).has_answered("update/run-1", index):
                    Asking(site, index).wait()
                counted[index] = hold_to_its_devices(site, index)
                _, num_again, _ = site.block().relay_task(
                    site.task(index=index), WEIGHTS, waited_s=0.0
                )
                assert num_again == 0
    return counted


def hold_to_its_devices(site, index):
    """Return how many devices are in a step's sum; 0 where its answer was killed on its way."""
    answers = [np.load(path) for path in site.folder.glob(f"answer-{index}-*.npz")]
    with_devices = [one for one in answers if one["num_devices"]]
    assert all(not one["total"].any() for one in answers if not one["num_devices"])
    assert len(with_devices) <= 1, "a step left the gateway twice"
    for answer in with_devices:
        device_of = {pseudonym_of(device): device for device in site.device_ids}
        said = [DeviceReceipt.from_line(str(line)).pseudonym for line in answer["receipts"]]
        assert len(set(said)) == len(said) == int(answer["num_devices"])
        among = [device_of[one] for one in said]
        alone = expected_sum(among, data=site.data, task=site.task(index=index), weights=WEIGHTS)
        assert (answer["total"] == alone).all()
        return len(among)
    return 0


@pytest.mark.slow
def test_kills_lose_answers_and_count_nobody_twice(tmp_path):
    counted = live(tmp_path, kills=2, steps=1, seed=4)

    assert set(counted.values()) <= {0, NUM_DEVICES}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_thirty_kills_in_ten_steps_count_nobody_twice(tmp_path, seed):
    counted = live(tmp_path, kills=30, steps=STEPS, seed=seed)

    print(counted)
    assert set(counted.values()) <= {0, NUM_DEVICES}
    assert sum(counted.values()) > 0
