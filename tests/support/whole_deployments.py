"""A whole deployment as its commands bring it up: fleet, server's folder, proxy, nodes, runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.storage.database import open_database
from tests.support.command_line import fedcell
from tests.support.node_deployments import (
    BIN,
    HOST,
    QUICK,
    NodeProcess,
    joined_device,
    wait_for,
)
from tests.support.secured_fleets import SecuredFleet, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRAINS_ANYHOW = '[node]\npower-supplies = "/nowhere"\ntrain-most-load = 0\n'
"""Settings of a node on this machine: its batteries and its load are not the test's subject."""


@dataclass
class WholeDeployment:
    """Everything that one machine needs to be server and devices of a fleet at once."""

    folder: Path
    port: int = field(default_factory=free_port)
    inner_port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=lambda: QUICK)
    process: subprocess.Popen[bytes] | None = None
    nodes: dict[str, NodeProcess] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        return self.folder / "rounds"

    @property
    def events_file(self) -> Path:
        return self.folder / "serve.jsonl"

    @property
    def authority(self) -> tuple[str, ...]:
        url = f"sqlite:///{self.folder / 'hub.db'}"
        return ("--authority", str(self.folder / "authority"), "--db", url)

    def make(self) -> None:
        """Make key, fleet and the server's folder."""
        key = self.folder / "server.pem"
        self.folder.mkdir(parents=True, exist_ok=True)
        for words in (
            ("server", "key", "--out", key),
            (
                *("fleet", "init", "--name", "plant", "--broker", f"{HOST}:8883"),
                *("--enrolment-host", HOST, "--superlink", f"{HOST}:{self.port}"),
                *("--server-key", f"{key}.public.json", *self.authority),
            ),
            (
                *("rounds", "deployment", self.place, "--policy-key", key, "--listen", HOST),
                *("--inner-port", self.inner_port, "--requests-per-s", 1000, *self.authority),
            ),
        ):
            made = fedcell(*words)
            assert made.code == 0, made.err

    def join(self, name: str, *, settings: str = "") -> NodeProcess:
        """Make a device that has joined, and its node, which is not started yet."""
        with open_database(f"sqlite:///{self.folder / 'hub.db'}") as database:
            store = joined_device(self.folder / name, SecuredFleet(self.folder, database), name)
        self.nodes[name] = NodeProcess(store, settings=TRAINS_ANYHOW + settings)
        return self.nodes[name]

    def start(self) -> None:
        """Serve, and wait until everything is ready."""
        before = self.names().count("ready")
        with self.events_file.open("ab") as said:
            self.process = subprocess.Popen(
                [BIN / "fedcell", "rounds", "serve", self.place, "--json", "--nodes-every", "2"],
                stdout=said,
                stderr=said,
                env={**os.environ, **self.environment},
            )
        wait_for(
            lambda: self.names().count("ready") > before,
            what="the deployment",
            logs=[self.events_file, *self.place.glob("logs/*.log")],
            seconds=120,
        )

    def events(self) -> list[dict[str, Any]]:
        if not self.events_file.exists():
            return []
        return [json.loads(line) for line in self.events_file.read_text().splitlines() if line]

    def names(self) -> list[str]:
        return [str(event["event"]) for event in self.events()]

    def pid_of(self, part: str) -> int:
        """Return the process that was started last for a part."""
        started = [
            e for e in self.events() if (e["event"], e.get("part")) == ("part_started", part)
        ]
        return int(started[-1]["pid"])

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    def begin(self, said: Mapping[str, object], *words: object) -> dict[str, Any]:
        """Begin a run, and return what the command said."""
        told = [f"{key}={value}" for key, value in said.items()]
        began = subprocess.run(
            [BIN / "fedcell", "rounds", "begin", self.place, *told, *map(str, words), "--json"],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, **QUICK},
        )
        assert began.returncode == 0, began.stdout + began.stderr
        return dict(json.loads(began.stdout))

    def logs(self) -> list[Path]:
        own = [path for node in self.nodes.values() for path in (node.said, node.flower_log)]
        return [self.events_file, *sorted(self.place.glob("logs/*.log")), *own]


def children_of(pid: int) -> dict[str, int]:
    """Return a process's children by the last word of what they run that names a program."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        for word in words:
            for name in ("rounds_node.supernode", "flower-superexec", "flwr-clientapp"):
                if word.decode(errors="replace").endswith(name):
                    found[name] = int(child)
    return found


@contextmanager
def whole_deployment(
    folder: Path,
    *devices: str,
    node_settings: str = "",
    environment: Mapping[str, str] = QUICK,
) -> Iterator[WholeDeployment]:
    """Bring a deployment up whose nodes are connected; all of it ends with the block."""
    deployment = WholeDeployment(folder, environment=environment)
    deployment.make()
    for name in devices:
        node = deployment.join(name, settings=node_settings)
        node.environment = environment
    try:
        deployment.start()
        for node in deployment.nodes.values():
            node.start()
        for node in deployment.nodes.values():
            node.wait_for("connected", seconds=120)
        yield deployment
    finally:
        for node in deployment.nodes.values():
            node.stop()
        deployment.stop()


def report_of(run: Path) -> dict[str, Any]:
    """Return a run's report, empty before there is one."""
    try:
        return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
