"""A SuperLink with TLS and authenticated nodes, and devices that joined its fleet, on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from edge_client.provisioning.device_certificate import make_supernode_key
from edge_client.provisioning.membership import Membership, membership_folder, write_membership
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId, DeviceProfile
from models.wire.app_pin import AppPin
from models.wire.envelope import SigningKey
from server.authority.certificates import certificate_pem, certify, key_pem, new_key
from server.authority.home import Fleet, Kind, make_home
from server.storage.database import open_database
from tests.support.edge_devices import fading_life
from tests.support.secured_fleets import DeviceOnPaper, SecuredFleet, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
QUICK = {"OMP_NUM_THREADS": "1", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
QUIET = {
    **QUICK,
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
MANIFEST = """[project]
name = "tiny"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedcell"

[tool.flwr.app.components]
serverapp = "tiny.apps:server"
clientapp = "tiny.apps:client"

[tool.flwr.app.config]
out = ""
asks = 1
timeout-s = 60.0
"""
APPS = '''"""Asks its nodes, and keeps what they answered."""
import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

{at_import}
client = ClientApp()
server = ServerApp()


@client.query()
def told(message, context):
    said = {{"pid": os.getpid(), "store": str(context.node_config.get("telemetry-db", ""))}}
    return Message(RecordDict({{"said": ConfigRecord(said)}}), reply_to=message)


@server.main()
def main(grid, context):
    out = Path(context.run_config["out"])
    for ask in range(int(context.run_config["asks"])):
        while not (nodes := list(grid.get_node_ids())):
            time.sleep(0.2)
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type="query", group_id=str(ask))
            for node in nodes
        ]
        replies = grid.send_and_receive(messages, timeout=float(context.run_config["timeout-s"]))
        lines = [
            {{"error": reply.error.code, "reason": reply.error.reason}}
            if reply.has_error()
            else dict(reply.content.config_records["said"])
            for reply in replies
        ]
        with out.open("a") as file:
            file.write(json.dumps({{"ask": ask, "replies": lines}}) + "\\n")
'''


@dataclass(frozen=True)
class TinyBundle:
    """A bundle of a few lines, in place of the whole app."""

    content: bytes
    version: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def pin(self, key: SigningKey, *, issued: datetime, flwr: str = "1.41.0") -> bytes:
        """Return its pin, signed."""
        pin = AppPin(
            app="fedcell/tiny",
            version=self.version,
            fab_sha256=self.sha256,
            flwr=flwr,
            issued=issued.replace(microsecond=0),
        )
        return pin.signed(key)


def tiny_bundle(*, version: str = "1.0.0", at_import: str = "") -> TinyBundle:
    """Make a bundle whose client says which process it is; `at_import` runs as it is loaded."""
    files: dict[str, bytes | Path] = {
        "pyproject.toml": MANIFEST.format(version=version).encode(),
        "tiny/__init__.py": b"",
        "tiny/apps.py": APPS.format(at_import=at_import).encode(),
    }
    content, _ = build_fab_from_files(files)
    return TinyBundle(bytes(content), version)


@dataclass
class SuperLink:
    """A real SuperLink, whose state is on disk."""

    folder: Path
    fleet: SecuredFleet
    port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=lambda: QUIET)
    process: subprocess.Popen[bytes] | None = None

    AUTHENTICATES: ClassVar[tuple[str, ...]] = ("--enable-supernode-auth",)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "superlink.log"

    def certify(self) -> None:
        """Write a certificate by the fleet's authority over services."""
        home, key, now = self.fleet.home, new_key(), datetime.now(UTC)
        issuing = home.fleet.issuing(Kind.SERVER)
        made = certify(
            key.public_key(),
            name="superlink",
            authority=home.certificate(issuing),
            authority_key=home.key(issuing),
            now=now,
            end=now + timedelta(days=30),
            hosts=(HOST, "localhost"),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "superlink.pem").write_bytes(certificate_pem(made))
        (self.folder / "superlink.key").write_bytes(key_pem(key))
        (self.folder / "authorities.pem").write_bytes(home.trusted_pem(Kind.SERVER))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(BIN / "flower-superlink", "--host", HOST, "--port", str(self.port)),
                    *("--ssl-ca-certfile", self.folder / "authorities.pem"),
                    *("--ssl-certfile", self.folder / "superlink.pem"),
                    *("--ssl-keyfile", self.folder / "superlink.key"),
                    *(*self.AUTHENTICATES, "--database", self.folder / "state.db"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    **self.environment,
                    "FLWR_HOME": str(self.folder / "flwr"),
                    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                },
            )
        wait_for(lambda: answers(self.port), what="the SuperLink", logs=[self.log])

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def register(self, store: Path) -> int:
        """Let a device's node in, and return its number."""
        public = (store.parent / f"{store.stem}.pub").read_bytes()
        pem = load_ssh_public_key(public).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        with self.control() as client:
            asked = RegisterNodeRequest(public_key=pem, name=store.stem)
            return int(client.RegisterNode(asked).node_id)

    def unregister(self, node_id: int) -> None:
        with self.control() as client:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def run(self, bundle: TinyBundle, said: Mapping[str, str | int | float]) -> int:
        """Start a run of a bundle."""
        with self.control() as client:
            asked = StartRunRequest(
                fab=fab_to_proto(Fab(bundle.sha256, bundle.content, {})),
                override_config=user_config_to_proto(dict(said)),
            )
            return int(client.StartRun(asked).run_id)

    @contextmanager
    def control(self) -> Iterator[ControlHttpClient]:
        with ControlHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=str(self.folder / "authorities.pem"),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        ) as client:
            yield client


@contextmanager
def rounds_fleet(folder: Path) -> Iterator[SecuredFleet]:
    """Make a fleet's authorities now; its services are certified by whoever runs them."""
    fleet = Fleet(
        name="test",
        broker=f"{HOST}:8883",
        broker_hosts=(HOST,),
        enrolment_hosts=(HOST,),
        server_keys={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_database(f"sqlite:///{folder / 'hub.db'}") as database:
        make_home(folder / "authority", fleet, now=datetime.now(UTC))
        yield SecuredFleet(folder, database)


@contextmanager
def superlink(folder: Path, fleet: SecuredFleet) -> Iterator[SuperLink]:
    """Run a SuperLink of the fleet."""
    link = SuperLink(folder, fleet)
    link.certify()
    link.start()
    try:
        yield link
    finally:
        link.stop()


def joined_device(
    folder: Path,
    fleet: SecuredFleet,
    name: str,
    *,
    keys: Mapping[str, str] | None = None,
    superlink: str | None = None,
) -> Path:
    """Make a device with readings and consent that is a member of the fleet; return its store.

    Keys and SuperLink are those that the fleet names, unless others are given.
    """
    now = datetime.now(UTC)
    profile = DeviceProfile(
        device_id=DeviceId(name),
        device_model="Meter 3",
        chemistry="NMC111",
        design_capacity_mah=3000.0,
        end_of_life_capacity_mah=2400.0,
        manufactured_at=now - timedelta(days=400),
    )
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"{name}.db"
    with TelemetryStore.create(store, profile=profile) as made:
        made.record_many(fading_life(until=now - timedelta(hours=1), days=300), now=now)
        made.set_consent(Purpose.TRAINING, granted=True, now=now)
    private, public = make_supernode_key()
    (folder / f"{name}.pub").write_text(public)
    device = DeviceOnPaper(name, supernode=public)
    answer = fleet.enrol(device, now=now)
    place = membership_folder(store)
    place.mkdir(mode=0o700)
    membership = Membership(
        folder=place,
        device_id=name,
        service=f"https://{HOST}:1",
        broker=answer.broker,
        server_keys=dict(answer.server_keys if keys is None else keys),
        number=1,
        serial="0" * 40,
        not_before=now,
        not_after=now + timedelta(days=30),
        server_time=now,
        superlink=answer.superlink if superlink is None else superlink,
    )
    write_membership(
        membership,
        certificate=answer.certificate,
        key=device.key,
        authorities=answer.authorities,
        supernode=private,
    )
    return store


@dataclass
class NodeProcess:
    """`fedcell-device node`, as a process of its own."""

    store: Path
    words: tuple[object, ...] = ()
    settings: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: QUICK)
    process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> Path:
        return self.store.with_suffix(".said")

    @property
    def flower_log(self) -> Path:
        return self.store.with_name(self.store.name + ".node") / "flower.log"

    def start(self) -> None:
        config = self.store.with_suffix(".toml")
        config.write_text(f'store = "{self.store}"\n{self.settings}')
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "edge_client.cli", "--config", str(config)),
                    *("node", "--json", *map(str, self.words)),
                ],
                stdout=said,
                stderr=said,
                env={**os.environ, **self.environment},
            )

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said.read_text().splitlines() if line[:1] == "{"]

    def names(self) -> list[str]:
        return [str(event["event"]) for event in self.events()]

    def wait_for(self, name: str, *, times: int = 1, seconds: float = 60.0) -> None:
        wait_for(
            lambda: self.names().count(name) >= times,
            what=f"{name} of {self.store.name}",
            logs=[self.said, self.flower_log],
            seconds=seconds,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(40)


@contextmanager
def node_process(store: Path, *words: object, settings: str = "") -> Iterator[NodeProcess]:
    """Run a device's node; it is stopped with the block."""
    node = NodeProcess(store, words, settings)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def wait_for(holds, *, what: str, logs=(), seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.1)
    said = "\n".join(
        f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists()
    )
    raise AssertionError(f"waited {seconds:g} s for {what}\n{said}")


def lines_of(path: Path) -> list[dict[str, object]]:
    """Return what a run of a tiny bundle has kept."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
