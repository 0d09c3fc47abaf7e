"""SIGKILL while recording: what was acknowledged is there afterwards, in a sound store."""

import subprocess
import sys
import time
from datetime import timedelta
from random import Random

import pytest

from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW, new_store
from tests.support.system_parts import REPOSITORY

RECORDER = """
import sys
from datetime import timedelta
from pathlib import Path
from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW, reading

number = int(sys.argv[2])
with TelemetryStore(Path(sys.argv[1])) as store:
    while True:
        number += 1
        store.record(reading(NOW - timedelta(days=300) + timedelta(minutes=number)), now=NOW)
        print(number, flush=True)
"""


def record_until_killed(path, *, from_number, after_s):
    """Let a process record, kill it, and return the last number that it acknowledged."""
    recorder = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(path), str(from_number)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    first = recorder.stdout.readline()
    time.sleep(after_s)
    recorder.kill()
    rest = recorder.stdout.read()
    recorder.wait()
    recorder.stdout.close()
    said = (first + rest).rpartition("\n")[0].split()
    return int(said[-1])


def kill_again_and_again(folder, *, rounds, seed):
    random = Random(seed)
    path = folder / "device.db"
    new_store(folder).close()
    number = 0
    for _ in range(rounds):
        acknowledged = record_until_killed(
            path, from_number=number, after_s=random.uniform(0.0, 0.1)
        )
        with TelemetryStore(path) as store:
            assert store.rows("PRAGMA integrity_check") == [("ok",)]
            minutes = (store.telemetry().at_s - int((NOW - timedelta(days=300)).timestamp())) // 60
        assert set(range(1, acknowledged + 1)) <= set(minutes.tolist())
        number = int(minutes.max())
    return number


def test_killed_recorder_loses_nothing_it_acknowledged(tmp_path):
    assert kill_again_and_again(tmp_path, rounds=4, seed=1) > 4


@pytest.mark.soak
def test_killed_recorder_loses_nothing_in_a_hundred_rounds(tmp_path):
    assert kill_again_and_again(tmp_path, rounds=100, seed=2) > 100


def test_killed_maker_leaves_no_half_store(tmp_path):
    """A store appears whole under its name or not at all."""
    aside = tmp_path / "device.db.new"
    aside.write_bytes(b"half of something")
    with new_store(tmp_path) as store:
        assert store.num_readings() == 0
    assert not aside.exists()
