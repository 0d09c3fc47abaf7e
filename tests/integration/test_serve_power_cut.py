"""The service killed at random moments: what it acknowledged is stored, and it starts again."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW, new_store

KILLS_OF_TEST, KILLS_OF_SOAK = 3, 60
PROGRAM = [sys.executable, "-m", "edge_client.cli"]


def started(folder):
    """Start the service, over whatever the last one left; returns it once it listens."""
    place = folder / "device.sock"
    settings = ["--store", str(folder / "device.db"), "--socket", str(place)]
    service = subprocess.Popen([*PROGRAM, "serve", *settings])
    until = time.monotonic() + 30
    while True:
        client = socket.socket(socket.AF_UNIX)
        if client.connect_ex(str(place)) == 0:
            client.settimeout(10)
            return service, client
        client.close()
        assert service.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


def killed_soon(service, after_s):
    timer = threading.Timer(after_s, os.kill, (service.pid, signal.SIGKILL))
    timer.start()
    return timer


def record_until_killed(client, first):
    """Send readings one by one; returns those that were acknowledged, by their capacity."""
    acknowledged = []
    stream = client.makefile("rb")
    for number in range(first, first + 10_000):
        at = NOW + timedelta(minutes=number)
        reading = {"at": at.isoformat(), "full_charge_capacity_mah": 1000 + number}
        request = {"do": "record", "reading": reading, "now": at.isoformat()}
        try:
            client.sendall(json.dumps(request).encode() + b"\n")
            answer = stream.readline()
        except OSError:
            break
        if not answer.endswith(b"\n"):
            break
        assert json.loads(answer)["ok"] is True
        acknowledged.append(1000 + number)
    return acknowledged


def survive(folder, kills, seed):
    new_store(folder).close()
    acknowledged = []
    moments = random.Random(seed)
    for number in range(kills):
        service, client = started(folder)
        timer = killed_soon(service, moments.uniform(0.0, 0.15))
        with client:
            acknowledged += record_until_killed(client, 20_000 * number)
        timer.join()
        assert service.wait(30) == -signal.SIGKILL
    service, client = started(folder)
    client.close()
    service.terminate()
    assert service.wait(30) == 0
    with TelemetryStore(folder / "device.db") as store:
        store.check()
        stored = store.telemetry().values[:, 0].tolist()
    assert not (folder / "device.sock").exists()
    assert set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + kills
    assert len(stored) == len(set(stored))
    return acknowledged


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


def test_reading_that_was_acknowledged_survives_a_killed_service(folder):
    assert len(survive(folder, KILLS_OF_TEST, seed=1)) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_readings_survive_many_kills(folder, seed):
    assert len(survive(folder, KILLS_OF_SOAK // 3, seed=100 + seed)) > 0
