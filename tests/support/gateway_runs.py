"""A run over real Flower whose one node is a gateway: every part a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.held_out_devices import held_out_devices
from models.wire.envelope import SigningKey
from server.broker import free_port
from server.signer import make_key_file
from tests.support.brokers import mosquitto_in
from tests.support.gateway_sites import GatewayOnDisk, MadeUpData
from tests.support.node_deployments import answers, wait_for
from tests.support.operator_keys import make_stream_key_file
from tests.support.system_parts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
START_S = 300.0
PSS_EVERY_S = 0.25


@dataclass
class GatewayRun:
    """SuperLink, broker, gateway and its devices, ready for a run.

    Attributes:
        folder: of everything.
        site: the gateway and its devices.
        node: the gateway's SuperNode, which starts all of its other processes.
        most_pss_mb: of all of the gateway's processes together, so far.
    """

    folder: Path
    site: GatewayOnDisk
    environment: dict[str, str]
    node: subprocess.Popen[bytes]
    most_pss_mb: float = 0.0
    _gone: threading.Event = field(default_factory=threading.Event)

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def watch(self) -> None:
        """Note how much memory the gateway takes, until the run is left."""
        while not self._gone.wait(PSS_EVERY_S):
            self.most_pss_mb = max(self.most_pss_mb, pss_of_family_mb(self.node.pid))

    def run(self, **said: object) -> dict[str, Any]:
        """Carry one run out, and return its report."""
        told = {
            "out": self.out,
            "start-weights": "default",
            "policy-key": self.folder / "policy.pem",
            "privacy-home": self.folder / "home",
            "stream-key-file": self.folder / "stream.operator",
            "least-nodes": 1,
            "rounds": 1,
            "cohort": len(self.site.device_ids),
            "deadline-s": 100.0,
            **said,
        }
        words = [*map(str, (BIN / "flwr", "run", REPOSITORY, "loopback")), "--run-config"]
        words.append(as_words(told))
        subprocess.run(
            words, env=self.environment, check=True, capture_output=True, timeout=START_S
        )
        wait_for(
            lambda: self.report().get("status") in {"finished", "interrupted", "cancelled"},
            what="the run",
            logs=[self.folder / "node.log", self.folder / "link.log"],
            seconds=START_S,
        )
        return self.report()

    def report(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.out / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def as_words(values: dict[str, object]) -> str:
    """Return key=value pairs as Flower's command lines take them."""
    return " ".join(
        f'{key}="{value}"' if isinstance(value, str | Path) else f"{key}={value}"
        for key, value in values.items()
    )


def pss_of_family_mb(pid: int) -> float:
    """Return the proportional memory of a process and all that came of it, MB."""
    total, family = 0.0, [pid]
    while family:
        one = family.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        pss = [line for line in rollup.splitlines() if line.startswith("Pss:")]
        total += sum(float(line.split()[1]) for line in pss) / 1024
    return total


@contextmanager
def gateway_run(folder: Path, *, num_devices: int) -> Iterator[GatewayRun]:
    """Bring everything up; all of it ends with the block."""
    flower, port = folder / "flwr", free_port()
    flower.mkdir(parents=True)
    environment = {
        **os.environ,
        "FLWR_HOME": str(flower),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    (flower / "config.toml").write_text(
        f'[superlink.loopback]\naddress = "{LOOPBACK}:{port}"\ninsecure = true\n'
    )
    make_key_file(folder / "policy.pem")
    make_stream_key_file(folder / "stream.operator")
    with ExitStack() as running:
        broker = running.enter_context(mosquitto_in(folder))
        site = _site(folder, (broker.host, broker.port), num_devices)
        database = ("--database", folder / "state.db")
        running.enter_context(
            _process(
                ("flower-superlink", "--insecure", "--host", LOOPBACK, "--port", port, *database),
                log=folder / "link.log",
                environment=environment,
            )
        )
        wait_for(lambda: answers(port), what="the SuperLink", logs=[folder / "link.log"])
        config = as_words(site.node_config)
        node = running.enter_context(
            _process(
                (
                    *("flower-supernode", "--insecure", "--superlink", f"{LOOPBACK}:{port}"),
                    *("--port", free_port(), "--node-config", config),
                ),
                log=folder / "node.log",
                environment=environment,
            )
        )
        running.enter_context(site.devices())
        made = GatewayRun(folder, site, environment, node)
        threading.Thread(target=made.watch, daemon=True).start()
        running.callback(made._gone.set)
        yield made


def _site(folder: Path, broker: tuple[str, int], num_devices: int) -> GatewayOnDisk:
    """Make a gateway whose devices all train: none is held out to measure."""
    named = [f"meter-{number:05d}" for number in range(2 * num_devices)]
    training = [
        name for name, is_out in zip(named, held_out_devices(named), strict=True) if not is_out
    ]
    key = SigningKey.from_pem((folder / "policy.pem").read_bytes())
    site = GatewayOnDisk(
        folder / "gateway", training[:num_devices], broker, key, data=MadeUpData(200)
    )
    site.folder.mkdir()
    (site.folder / "machine-id").write_text("this machine")
    site.write_site(site.devices().site_devices())
    return site


@contextmanager
def _process(
    words: tuple[object, ...], *, log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    program, *rest = words
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(BIN / str(program)), *map(str, rest)], stdout=out, stderr=out, env=environment
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
            time.sleep(0.2)
