"""A fleet's deployment, served by `fedcell rounds serve`: SuperLink, SuperExec, nginx, all real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from server.deployment.app_bundle import AppBundle
from server.deployment.app_pin import keep_bundle
from server.deployment.folder import open_deployment
from server.signer import load_signer, make_key_file
from server.storage.database import open_database
from tests.support.command_line import Ran, fedcell
from tests.support.node_deployments import HOST, TinyBundle, wait_for
from tests.support.secured_fleets import SecuredFleet, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.deployment.place import Deployment

PROGRAM = Path(sys.executable).with_name("fedcell")


@dataclass
class DeployedFleet:
    """A fleet with a deployment's folder beside it."""

    folder: Path
    fleet: SecuredFleet
    port: int = field(default_factory=free_port)
    inner_port: int = field(default_factory=free_port)

    @property
    def key(self) -> Path:
        return self.folder / "server.pem"

    @property
    def directory(self) -> Path:
        return self.folder / "deployment"

    @property
    def place(self) -> Deployment:
        return open_deployment(self.directory)

    @property
    def places(self) -> tuple[object, ...]:
        """Options by which commands find authority and database."""
        return (
            *("--authority", self.folder / "authority"),
            *("--db", f"sqlite:///{self.folder / 'hub.db'}"),
        )

    @property
    def server_keys(self) -> dict[str, str]:
        key = load_signer(self.key).verify_key
        return {key.key_id: key.to_bytes().hex()}

    def write(self, *words: object) -> Ran:
        """Write the deployment's folder."""
        told = ("--policy-key", self.key, "--inner-port", self.inner_port)
        return fedcell(
            *("rounds", "deployment", self.directory, *told), *self.places, *words, "--json"
        )

    def pin(self, bundle: TinyBundle) -> None:
        """Put a bundle of a few lines in the place of the whole app, pinned."""
        made = AppBundle(bundle.content, bundle.version, "1.41.0", "fedcell/tiny")
        keep_bundle(self.place, made, load_signer(self.key).key, now=datetime.now(UTC))


@contextmanager
def deployed_fleet(folder: Path) -> Iterator[DeployedFleet]:
    """Make a fleet that names a SuperLink on loopback."""
    make_key_file(folder / "server.pem")
    with open_database(f"sqlite:///{folder / 'hub.db'}") as database:
        deployed = DeployedFleet(folder, SecuredFleet(folder, database))
        made = fedcell(
            *("fleet", "init", "--name", "test", "--broker", f"{HOST}:8883"),
            *("--enrolment-host", HOST, "--superlink", f"{HOST}:{deployed.port}"),
            *("--superlink-host", "localhost"),
            *("--server-key", folder / "server.pem.public.json", *deployed.places),
        )
        assert made.code == 0, made.err
        yield deployed


@dataclass
class Serving:
    """`fedcell rounds serve`, as a process of its own."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.said")

    def start(self) -> None:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [PROGRAM, "rounds", "serve", self.directory, "--json", "--nodes-every", "1"],
                stdout=said,
                stderr=said,
                env={**os.environ, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"},
            )

    def events(self, name: str, part: str | None = None) -> list[dict[str, object]]:
        """Return what it told of one kind, and of one part if need be."""
        lines = [json.loads(line) for line in self.said.read_text().splitlines() if line[:1] == "{"]
        return [
            line
            for line in lines
            if line["event"] == name and (part is None or line.get("part") == part)
        ]

    def pid(self, part: str) -> int:
        """Return the process of a part that was started last."""
        return int(str(self.events("part_started", part)[-1]["pid"]))

    def wait_for(
        self, name: str, part: str | None = None, *, times: int = 1, seconds: float = 180.0
    ) -> None:
        logs = [self.said, *sorted((self.directory / "logs").glob("*.log"))]
        wait_for(
            lambda: len(self.events(name, part)) >= times,
            what=f"{name} {part or ''} of the deployment",
            logs=logs,
            seconds=seconds,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return what it ended with."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(directory: Path) -> Iterator[Serving]:
    """Serve a deployment; it is ended with the block."""
    served = Serving(directory)
    served.start()
    try:
        served.wait_for("ready")
        yield served
    finally:
        served.stop()
