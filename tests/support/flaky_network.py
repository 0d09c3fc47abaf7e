"""A TCP relay before a broker that can be made to stop forwarding, to crawl, or to hang up."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 512


@dataclass
class Relay:
    """Forwards between clients and one target; looks like a broker at `host` and `port`.

    Attributes:
        host: where it listens.
        port: where it listens.
        is_stuck: whether it takes bytes and forwards none, as a half-open connection does.
        bytes_per_s: how fast it forwards each way; None: at once.
        bytes_up: bytes that clients have sent through.
        bytes_down: bytes that the target has sent through.
        sent_up: what clients have sent through, one entry a connection.
    """

    target: tuple[str, int]
    host: str = "127.0.0.1"
    port: int = 0
    is_stuck: bool = False
    bytes_per_s: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    connections: int = 0
    sent_up: list[bytearray] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)
    _server: socket.socket | None = None

    def start(self) -> None:
        self._server = socket.create_server((self.host, self.port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End every connection, both ends at once."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
                upstream = socket.create_connection(self.target)
            except OSError:
                return
            self.connections += 1
            self._open += [client, upstream]
            self.sent_up.append(bytearray())
            for source, sink, sent_up in (
                (client, upstream, self.sent_up[-1]),
                (upstream, client, None),
            ):
                threading.Thread(
                    target=self._forward, args=(source, sink, sent_up), daemon=True
                ).start()

    def _forward(
        self, source: socket.socket, sink: socket.socket, sent_up: bytearray | None
    ) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                # A connection that was half-open never comes back to life.
                if self.is_stuck or source.fileno() < 0:
                    while source.recv(CHUNK_BYTES):
                        continue
                    return
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
                if sent_up is not None:
                    sent_up += data
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay_to(host: str, port: int, **choices: object) -> Iterator[Relay]:
    """Run a relay before a broker."""
    relay = Relay((host, port), **choices)  # type: ignore[arg-type]
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
