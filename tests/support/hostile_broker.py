"""A broker on loopback that takes every client, and then does what a test has it do."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT, CONNACK, SUBSCRIBE, SUBACK, PUBLISH, DISCONNECT = 0x10, 0x20, 0x80, 0x90, 0x30, 0xE0
_CLEAN = 0x02
_CHUNK = b"x" * 65_536


@dataclass
class Guest:
    """One client that connected.

    Attributes:
        number: how many came before it.
        is_clean: whether it asked for its session to be forgotten.
        version: of the protocol: 5, or 4 for 3.1.1.
    """

    number: int
    connection: socket.socket
    is_clean: bool = False
    version: int = 0

    def send(self, kind: int, body: bytes, *, claimed: int | None = None) -> None:
        """Send a packet, or the beginning of one that claims to be longer."""
        length = len(body) if claimed is None else claimed
        self.connection.sendall(bytes([kind]) + _varint(length) + body)

    def publish(self, topic: str, num_bytes: int, *, qos: int = 1, packet_id: int = 7) -> None:
        """Send a message of so many bytes, in pieces."""
        body = struct.pack(">H", len(topic)) + topic.encode() + struct.pack(">H", packet_id)
        body += b"\0" if self.version == 5 else b""
        self.send(PUBLISH | qos << 1, body, claimed=len(body) + num_bytes)
        for _ in range(num_bytes // len(_CHUNK)):
            self.connection.sendall(_CHUNK)
        self.connection.sendall(_CHUNK[: num_bytes % len(_CHUNK)])

    def wait_for_its_end(self) -> None:
        """Take what it says until it hangs up."""
        while self.connection.recv(4096):
            continue


@dataclass
class HostileBroker:
    """What a test knows of the broker.

    Attributes:
        host: where it listens.
        port: where it listens.
        guests: the clients so far.
    """

    host: str
    port: int
    guests: list[Guest] = field(default_factory=list)


@contextmanager
def hostile_broker(
    welcome: Callable[[Guest], None] | None, *, takes_subscriptions: bool = True
) -> Iterator[HostileBroker]:
    """Run one; `welcome` is called with each client once it has subscribed.

    Args:
        welcome: None: it takes connections and never says a word.
        takes_subscriptions: whether it answers them before; else it welcomes who has connected.
    """
    server = socket.create_server(("127.0.0.1", 0))
    broker = HostileBroker(*server.getsockname()[:2])
    threading.Thread(
        target=_serve, args=(server, broker, welcome, takes_subscriptions), daemon=True
    ).start()
    try:
        yield broker
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        for guest in broker.guests:
            guest.connection.close()


def _serve(
    server: socket.socket,
    broker: HostileBroker,
    welcome: Callable[[Guest], None] | None,
    takes_subscriptions: bool,
) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        guest = Guest(len(broker.guests), connection)
        broker.guests.append(guest)
        if welcome is not None:
            threading.Thread(
                target=_host, args=(guest, welcome, takes_subscriptions), daemon=True
            ).start()


def _host(
    guest: Guest,
    welcome: Callable[[Guest], None],
    takes_subscriptions: bool,
) -> None:
    with suppress(OSError, ValueError, IndexError), guest.connection:
        kind, body = _packet(guest.connection)
        assert kind == CONNECT
        guest.version, guest.is_clean = body[6], bool(body[7] & _CLEAN)
        is_v5 = guest.version == 5
        guest.send(CONNACK, b"\0\0\0" if is_v5 else b"\0\0")
        if takes_subscriptions:
            kind, body = _packet(guest.connection)
            assert kind == SUBSCRIBE | 0x02
            num_filters = _filters_in(body[2 + is_v5 :])
            properties = b"\0" if is_v5 else b""
            guest.send(SUBACK, body[:2] + properties + b"\1" * num_filters)
        welcome(guest)


def _filters_in(text: bytes) -> int:
    found = 0
    while text:
        text = text[2 + struct.unpack(">H", text[:2])[0] + 1 :]
        found += 1
    return found


def _packet(connection: socket.socket) -> tuple[int, bytes]:
    kind = connection.recv(1)[0]
    length = shift = 0
    while True:
        byte = connection.recv(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    body = b""
    while len(body) < length:
        piece = connection.recv(length - len(body))
        if not piece:
            raise ConnectionResetError("the client has gone")
        body += piece
    return kind, body


def _varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = divmod(number, 128)
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out
