"""Attempts at a broker that runs, as two probe devices whose certificates live for minutes.

Nothing is left behind: probes have clean sessions, retain nothing, and speak on topics that the
server does not listen to. No probe ever uses the server's name, which would push the server out.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
import warnings
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import SystemRandom
from typing import TYPE_CHECKING

from models.wire import topics
from models.wire.errors import LinkError
from models.wire.link import Link, LinkSettings, MqttVersion
from models.wire.link_settings import LinkTls

from ..authority.certificates import (
    certificate_pem,
    certify,
    key_pem,
    make_authority,
    new_key,
)
from ..authority.home import Kind, write_private
from ..authority.services import service_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

    from ..authority.home import AuthorityHome

WAIT_S = 3.0
SILENCE_S = 0.4
PROBE_LIFE = timedelta(minutes=10)
_CONNECT = bytes.fromhex("101000044d5154540502003c0000036162 63".replace(" ", ""))
"""MQTT 5: CONNECT, clean start, keep-alive 60 s, client id `abc`."""
_OVERSIZE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class ProbeDevice:
    """A device that exists for as long as a check.

    Attributes:
        device_id: its name.
        tls: what it shows.
    """

    device_id: str
    tls: LinkTls

    def up(self) -> str:
        """Return a topic that it speaks on, and that the server does not listen to."""
        return topics.up(self.device_id, topics.Up.REPLY)

    def down(self) -> str:
        """Return a topic that it listens to."""
        return topics.down(self.device_id, topics.Down.NOTIFY)


@dataclass(frozen=True, slots=True)
class Prober:
    """Connects to one broker in all sorts of ways.

    Attributes:
        host: the broker's name or address.
        port: its TCP port for TLS.
        folder: private, for certificates of probes.
        home: the fleet's authorities.
        now: aware time.
    """

    host: str
    port: int
    folder: Path
    home: AuthorityHome
    now: datetime

    def device(self, *, number: int) -> ProbeDevice:
        """Make a device whose certificate holds for minutes."""
        name = f"probe-{number}-{secrets.token_hex(6)}"
        return ProbeDevice(name, self._certified(name, start=None, end=self.now + PROBE_LIFE))

    def of_probe_site(self, name: str) -> LinkTls:
        """Make a certificate for the gateway, or the meter, of the site that is nobody's."""
        return self._certified(name, start=None, end=self.now + PROBE_LIFE)

    def expired(self) -> LinkTls:
        """Make a certificate of the fleet that was over an hour ago."""
        hour = timedelta(hours=1)
        return self._certified("probe-expired", start=self.now - 2 * hour, end=self.now - hour)

    def rogue(self, name: str) -> LinkTls:
        """Make a certificate by an authority that calls itself as the fleet's does."""
        fleet = self.home.fleet
        named = fleet.title(fleet.issuing(Kind.DEVICE))
        authority, authority_key = make_authority(named, now=self.now, life=PROBE_LIFE)
        return self._certified(
            name, start=None, end=self.now + PROBE_LIFE, by=(authority, authority_key)
        )

    def revoked(self) -> LinkTls:
        """Return the certificate that is revoked since there are authorities."""
        files = service_files(self.home, "revoked-probe")
        return LinkTls(
            authorities=self._authorities(), certificate=files.certificate, key=files.key
        )

    def nobody(self) -> LinkTls:
        """Return what one has who has no certificate."""
        return LinkTls(authorities=self._authorities())

    def link(self, client_id: str, tls: LinkTls | None, *, port: int | None = None) -> Link:
        """Return a link that is not connected yet, and leaves no session."""
        settings = LinkSettings(
            host=self.host,
            port=self.port if port is None else port,
            client_id=client_id,
            session_expiry_s=0,
            connect_timeout_s=WAIT_S,
            # Who is pushed out stays out, or two probes would take turns.
            first_wait_s=60.0,
            longest_wait_s=60.0,
            version=MqttVersion.V5,
            tls=None if tls is None else lambda: tls,
        )
        return Link(settings, jitter=SystemRandom())

    def lets_in(self, client_id: str, tls: LinkTls | None, *, port: int | None = None) -> bool:
        """Tell whether somebody is let in."""
        link = self.link(client_id, tls, port=port)
        try:
            link.connect()
        except LinkError:
            return False
        link.close(drain_s=0.0)
        return True

    def speaks_tls_1_1(self) -> bool | None:
        """Tell whether the broker agrees on TLS 1.1, None where this machine cannot ask."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                # That it is old is the point.
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            with (
                socket.create_connection((self.host, self.port), WAIT_S) as opened,
                context.wrap_socket(opened, server_hostname=self.host),
            ):
                return True
        except (ssl.SSLError, ConnectionError):
            return False
        except (OSError, ValueError):
            return None

    def reads_oversize(self, device: ProbeDevice) -> bool:
        """Tell whether the broker goes on reading a packet that is far too large."""
        from models.wire.link_tls import tls_context

        context = tls_context(device.tls)
        body = b"x" * _OVERSIZE_BYTES
        topic = device.up().encode()
        rest = len(topic).to_bytes(2, "big") + topic + b"\0" + body
        packet = b"\x30" + _length(len(rest)) + rest
        with (
            socket.create_connection((self.host, self.port), WAIT_S) as opened,
            closing(context.wrap_socket(opened, server_hostname=self.host)) as secured,
        ):
            secured.settimeout(WAIT_S)
            secured.sendall(_CONNECT)
            if not secured.recv(64):
                return False
            try:
                secured.sendall(packet + b"\xc0\x00")
                # A broker that read it all answers the ping behind it.
                return _has_ping_answer(secured)
            except OSError:
                return False

    def _certified(
        self,
        name: str,
        *,
        start: datetime | None,
        end: datetime,
        by: tuple[Certificate, EllipticCurvePrivateKey] | None = None,
    ) -> LinkTls:
        issuing = self.home.fleet.issuing(Kind.DEVICE)
        authority, authority_key = by or (self.home.certificate(issuing), self.home.key(issuing))
        key = new_key()
        made = certify(
            key.public_key(),
            name=name,
            authority=authority,
            authority_key=authority_key,
            now=self.now,
            start=start,
            end=end,
        )
        path = self.folder / f"{secrets.token_hex(8)}.pem"
        write_private(path, certificate_pem(made) + key_pem(key))
        return LinkTls(authorities=self._authorities(), certificate=path)

    def _authorities(self) -> Path:
        path = self.folder / "servers.pem"
        if not path.exists():
            path.write_bytes(self.home.trusted_pem(Kind.SERVER))
        return path


@contextmanager
def counting(link: Link, topic_filter: str) -> Iterator[list[str]]:
    """Subscribe, connect, and give the topics of everything that comes."""
    heard: list[str] = []
    link.subscribe(topic_filter, _ignore)
    # Whatever comes, also under a filter that the link would not know a message by.
    link.on_traffic(lambda is_up, topic, _size: None if is_up else heard.append(topic))
    with link:
        yield heard


def wait_for(heard: list[str]) -> None:
    """Wait until something comes, and not longer than silence is listened to."""
    deadline = time.monotonic() + SILENCE_S
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)


def private_folder(parent: Path) -> Path:
    """Make a folder that nobody else may look into."""
    folder = parent / f"probes-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def _ignore(_topic: str, _payload: bytes) -> None:
    """Let the observer of the traffic count."""


def _length(number: int) -> bytes:
    """Return a remaining length as MQTT writes it (MQTT 5, 1.5.5)."""
    written = bytearray()
    while True:
        number, digit = divmod(number, 128)
        written.append(digit | (128 if number else 0))
        if not number:
            return bytes(written)


def _has_ping_answer(secured: ssl.SSLSocket) -> bool:
    while received := secured.recv(4096):
        if b"\xd0\x00" in received:
            return True
    return False
