"""Fleets with authorities, an enrolment service and a secured Mosquitto, all real, on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from edge_client.provisioning.device_certificate import make_request, make_supernode_key
from models.wire.enrolment import (
    EnrolmentRequest,
    RenewalRequest,
    signed_enrolment,
    signed_renewal,
)
from models.wire.envelope import SigningKey
from models.wire.errors import LinkError
from models.wire.link import Link, LinkSettings, MqttVersion
from models.wire.link_settings import LinkTls
from models.wire.sealing import OpeningKey
from server.authority.certificates import (
    certificate_pem,
    certify,
    fingerprint,
    key_pem,
    make_authority,
    new_key,
)
from server.authority.enrolment import enrol, renew
from server.authority.home import AuthorityHome, Fleet, Kind, make_home, open_home
from server.authority.services import certify_revoked_probe, certify_service, services_of
from server.authority.tokens import make_token
from server.broker import LOOPBACK, free_port
from server.broker_setup.broker_folder import chosen_place, write_broker_folder
from server.broker_setup.configuration import CONFIGURATION_FILE
from server.mosquitto import find_mosquitto
from server.storage.database import Database, open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.wire.enrolment import EnrolmentAnswer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON = timedelta(hours=1)


@dataclass
class DeviceOnPaper:
    """A device's keys and requests, without its disk."""

    device_id: str
    signing_key: SigningKey = field(default_factory=SigningKey.generate)
    opening_key: OpeningKey = field(default_factory=OpeningKey.generate)
    supernode: str = field(default_factory=lambda: make_supernode_key()[1])

    def __post_init__(self) -> None:
        self.new_request()

    def new_request(self) -> None:
        self.key, self.request = make_request(self.device_id)

    def enrolment(self, token: str) -> bytes:
        request = EnrolmentRequest(
            device_id=self.device_id,
            token=token,
            certificate_request=self.request,
            sign=self.signing_key.verify_key.to_bytes().hex(),
            seal=self.opening_key.seal_key.to_bytes().hex(),
            supernode=self.supernode,
        )
        return signed_enrolment(request, self.signing_key)

    def renewal(self, replaces: str) -> bytes:
        request = RenewalRequest(
            device_id=self.device_id, replaces=replaces, certificate_request=self.request
        )
        return signed_renewal(request, self.signing_key)


@dataclass
class SecuredFleet:
    """Authorities and their database."""

    folder: Path
    database: Database

    @property
    def home(self) -> AuthorityHome:
        return open_home(self.folder / "authority")

    @property
    def pinned(self) -> str:
        home = self.home
        return fingerprint(home.certificate(home.fleet.issuing(Kind.SERVER)))

    def token(self, *, device_id: str | None = None, now: datetime = NOW) -> str:
        with self.database.transaction() as connection:
            return make_token(connection, life=SOON, now=now, device_id=device_id)

    def enrol(
        self, device: DeviceOnPaper, *, now: datetime = NOW, token: str = ""
    ) -> EnrolmentAnswer:
        body = device.enrolment(token or self.token(now=now))
        return enrol(self.database, self.home, body, now=now)

    def renew(self, device: DeviceOnPaper, replaces: str, *, now: datetime) -> EnrolmentAnswer:
        return renew(self.database, self.home, device.renewal(replaces), now=now)

    def client(self, name: str, *, now: datetime | None = None) -> LinkTls:
        """Enrol a device now, and return the files that its link shows."""
        device = DeviceOnPaper(name)
        answer = self.enrol(device, now=now or datetime.now(UTC))
        return self.shown(name, answer.certificate, device.key)

    def shown(self, name: str, certificate: str, key: str) -> LinkTls:
        """Write a certificate and its key as a device does."""
        pem, authorities = self.folder / f"{name}.pem", self.folder / "servers.pem"
        pem.write_text(certificate + key)
        authorities.write_bytes(self.home.trusted_pem(Kind.SERVER))
        return LinkTls(authorities=authorities, certificate=pem)

    def signed_by_us(self, name: str, *, start: datetime, end: datetime) -> LinkTls:
        """Certify a name by the fleet's own authority, for any time."""
        home = self.home
        issuing = home.fleet.issuing(Kind.DEVICE)
        key = new_key()
        made = certify(
            key.public_key(),
            name=name,
            authority=home.certificate(issuing),
            authority_key=home.key(issuing),
            now=end,
            start=start,
            end=end,
        )
        return self.shown(name, certificate_pem(made).decode(), key_pem(key).decode())

    def signed_by_a_rogue(self, name: str) -> LinkTls:
        """Certify a name by an authority that calls itself as the fleet's does."""
        now, key = datetime.now(UTC), new_key()
        authority, authority_key = make_authority(
            "test device authority 1", now=now, life=timedelta(days=10)
        )
        made = certify(
            key.public_key(),
            name=name,
            authority=authority,
            authority_key=authority_key,
            now=now,
            end=now + timedelta(days=1),
        )
        return self.shown(f"{name}-rogue", certificate_pem(made).decode(), key_pem(key).decode())

    @property
    def hub(self) -> LinkTls:
        folder = self.home.folder
        authorities = self.folder / "servers.pem"
        authorities.write_bytes(self.home.trusted_pem(Kind.SERVER))
        return LinkTls(
            authorities=authorities, certificate=folder / "hub.pem", key=folder / "hub.key"
        )


@contextmanager
def secured_fleet(folder: Path, *, port: int = 8883, now: datetime = NOW) -> Iterator[SecuredFleet]:
    """Make a fleet's authorities, and certify its services."""
    fleet = Fleet(
        name="test",
        broker=f"{LOOPBACK}:{port}",
        broker_hosts=(LOOPBACK, "localhost"),
        enrolment_hosts=(LOOPBACK,),
        superlink=f"{LOOPBACK}:9092",
        superlink_hosts=(LOOPBACK, "localhost"),
        release_hosts=(LOOPBACK,),
        server_keys={"0123456789abcdef": "00" * 32},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_database(f"sqlite:///{folder / 'hub.db'}") as database:
        home = make_home(folder / "authority", fleet, now=now)
        with database.transaction() as connection:
            for service in services_of(home):
                certify_service(connection, home, service, now=now)
            certify_revoked_probe(connection, home, now=now)
        yield SecuredFleet(folder, database)


@dataclass
class SecuredBroker:
    """A Mosquitto that a fleet's folder configures."""

    fleet: SecuredFleet
    folder: Path
    port: int
    host: str = LOOPBACK
    process: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        place = chosen_place(self.folder, host=self.host, port=self.port, user=None)
        with self.fleet.database.transaction() as connection:
            write_broker_folder(connection, self.fleet.home, place, now=datetime.now(UTC))

    def start(self, configuration: Path | None = None) -> None:
        """Start it, and wait until it listens."""
        self.begin(configuration)
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError):
                socket.create_connection((self.host, self.port), 1).close()
                return
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def begin(self, configuration: Path | None = None) -> None:
        """Start it, and wait until it has said which process it is."""
        program = find_mosquitto()
        assert program is not None
        chosen = configuration or self.folder / CONFIGURATION_FILE
        log = (self.folder / "mosquitto.log").open("ab")
        self.process = subprocess.Popen(
            [str(program), "-c", str(chosen)], stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + 10
        while not (self.folder / "mosquitto.pid").exists() and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def link(self, client_id: str, tls: LinkTls, **settings: object) -> Link:
        quick: dict[str, object] = {
            "first_wait_s": 0.02,
            "longest_wait_s": 0.05,
            "connect_timeout_s": 3.0,
            "version": MqttVersion.V5,
            "session_expiry_s": 0,
        }
        values = {"host": self.host, "port": self.port, "client_id": client_id} | quick | settings
        return Link(LinkSettings(**values, tls=lambda: tls), jitter=Random(7))  # type: ignore[arg-type]

    def lets_in(self, client_id: str, tls: LinkTls) -> bool:
        """Tell whether a client may connect."""
        link = self.link(client_id, tls)
        try:
            link.connect()
        except LinkError:
            return False
        link.close()
        return True


@contextmanager
def secured_broker(fleet: SecuredFleet, *, port: int | None = None) -> Iterator[SecuredBroker]:
    """Run a Mosquitto as the fleet's commands configure it."""
    broker = SecuredBroker(fleet, fleet.folder / "broker", port or free_port())
    broker.write()
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
