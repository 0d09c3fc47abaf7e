"""A deployment as it is run: SuperLink, SuperNodes and `flwr run`, each a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId, DeviceProfile
from server.engine.early_stop import REFERENCE_QUALITY
from server.signer import make_key_file
from tests.support.command_line import fedcell
from tests.support.edge_devices import fading_life
from tests.support.operator_keys import make_stream_key_file
from tests.support.system_parts import REPOSITORY

BIN = Path(sys.executable).parent
WAIT_S = 180.0
DEVICES = ("d-2", "d-5")
"""Neither is held out."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def environment(tmp_path):
    home = tmp_path / "flwr"
    home.mkdir()
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


@contextmanager
def process(words, *, log, environment):
    """A process of its own, ended with the block."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(word) for word in words], stdout=out, stderr=out, env=environment
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def wait_until(holds, *, what, logs=()):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.5)
    said = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-3000:]}" for log in logs)
    pytest.fail(f"waited {WAIT_S:g} s for {what}\n{said}")


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def store_of(name, folder):
    now = datetime.now(UTC)
    profile = DeviceProfile(
        device_id=DeviceId(name),
        device_model="Meter 3",
        chemistry="NMC111",
        design_capacity_mah=3000.0,
        end_of_life_capacity_mah=2400.0,
        manufactured_at=now - timedelta(days=400),
    )
    path = folder / f"{name}.db"
    with TelemetryStore.create(path, profile=profile) as store:
        store.record_many(fading_life(until=now - timedelta(hours=1), days=300), now=now)
        store.set_consent(Purpose.TRAINING, granted=True, now=now)
    return path


def as_words(values):
    """Key=value pairs as Flower's command lines take them."""
    return " ".join(
        f'{key}="{value}"' if isinstance(value, str | Path) else f"{key}={value}"
        for key, value in values.items()
    )


def node_words(name, folder, *, superlink):
    config = {
        "telemetry-db": store_of(name, folder),
        "policy-keys": folder / "policy.pem.public.json",
        "power-supplies": "/nowhere",
        "train-most-load": 0.0,
    }
    return (
        *(BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{superlink}"),
        *("--port", free_port(), "--node-config", as_words(config)),
    )


@pytest.mark.soak
def test_a_real_deployment_trains_as_it_is_told_is_looked_at_and_judged(tmp_path, environment):
    make_key_file(tmp_path / "policy.pem")
    make_stream_key_file(tmp_path / "stream.operator")
    reference = tmp_path / "reference"
    fedcell(
        *("simulate", "fleet", "--devices", 60, "--days", 300, "--seed", 21), "--out", reference
    )
    port, out = free_port(), tmp_path / "run"
    (tmp_path / "flwr" / "config.toml").write_text(
        f'[superlink.loopback]\naddress = "127.0.0.1:{port}"\ninsecure = true\n', encoding="utf-8"
    )
    run_config = {
        "out": out,
        "start-weights": "default",
        "policy-key": tmp_path / "policy.pem",
        "privacy-home": tmp_path / "home",
        "stream-key-file": tmp_path / "stream.operator",
        "least-nodes": 2,
        "rounds": 2,
        "cohort": 1,
        "deadline-s": 120.0,
        "local-steps": 3,
        "local-rate": 0.05,
        "proximal": 1.0,
        "optimizer": "fedavgm",
        "server-rate": 0.2,
        "reference": reference,
        "patience": 2,
        "log-level": "debug",
    }
    link_log = tmp_path / "superlink.log"
    with ExitStack() as running:
        running.enter_context(
            process(
                (
                    *(BIN / "flower-superlink", "--insecure", "--host", "127.0.0.1"),
                    *("--port", port, "--database", tmp_path / "state.db"),
                ),
                log=link_log,
                environment=environment,
            )
        )
        wait_until(lambda: answers(port), what="the SuperLink", logs=[link_log])
        logs = [link_log]
        for name in DEVICES:
            logs.append(tmp_path / f"{name}.log")
            words = node_words(name, tmp_path, superlink=port)
            running.enter_context(process(words, log=logs[-1], environment=environment))
        started = subprocess.run(
            [BIN / "flwr", "run", REPOSITORY, "loopback", "--run-config", as_words(run_config)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert started.returncode == 0, started.stdout + started.stderr
        wait_until(lambda: is_over(out), what="the run", logs=logs)

    report = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert report["status"] == "finished"
    assert [record["replied"] for record in report["rounds"]] == [1, 1]
    assert report["config"]["server"]["optimizer"] == "fedavgm"
    assert report["config"]["recipe"]["proximal"] == 1.0
    assert all(0 < record["metrics"][REFERENCE_QUALITY] < 1 for record in report["rounds"])
    words = ("--start", "default", "--reference", reference)
    assert fedcell("rounds", "export", out, *words).code == 0
    judged = fedcell("rounds", "judge", out, "--reference", reference, "--json")
    assert judged.code in {0, 1}
    assert (out / "proposal.json").exists()


def is_over(out):
    try:
        report = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return report["status"] in {"finished", "interrupted", "cancelled"}
