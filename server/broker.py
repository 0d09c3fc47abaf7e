"""A real TCP broker on this machine: Mosquitto where installed, else the embedded one.

Both listen on loopback only. Mosquitto keeps sessions, queues and retained messages in its folder
over a stop; the embedded broker (rumqttd in a process of its own) keeps nothing and is for
demonstrations. TLS, identities and access rules of a fleet's broker are no part of this.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from models.wire.codec import MAX_PAYLOAD_BYTES
from models.wire.link import IN_FLIGHT_WINDOW

from .errors import BrokerError, BrokerMissingError
from .mosquitto import INSTALL, find_mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
PACKET_HEADER_BYTES = 1024
QUEUED_MESSAGES = 1_000
INSTALL_REMEDY = f"{INSTALL}, or pip install fedcell[server]"


class BrokerKind(StrEnum):
    """Which broker."""

    MOSQUITTO = "mosquitto"
    EMBEDDED = "embedded"


class BrokerProcess(Protocol):
    """A broker that can be started, stopped and killed."""

    kind: BrokerKind
    host: str
    port: int

    def start(self) -> None:
        """Start, and return once connections are accepted."""
        ...

    def stop(self) -> None:
        """Stop it in order; nothing happens where it does not run."""
        ...

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        ...

    def is_running(self) -> bool:
        """Tell whether its process lives."""
        ...


@dataclass(slots=True)
class Mosquitto:
    """Mosquitto with its configuration, log and persistence in one folder."""

    directory: Path
    port: int
    program: Path
    host: str = LOOPBACK
    kind: BrokerKind = BrokerKind.MOSQUITTO
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start, and return once connections are accepted.

        Raises:
            BrokerError: the port is taken, or it ended at once.
        """
        _refuse_taken_port(self.port)
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(mosquitto_configuration(self.directory, port=self.port))
        log = self.directory / "mosquitto.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(self.program), "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                what = f"Mosquitto did not start: {_last_line(log)}"
                raise BrokerError(port=self.port, what=what, remedy=f"see {log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it in order: it writes sessions and queues to its folder."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it with SIGKILL: what it had not written is lost."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def is_running(self) -> bool:
        """Tell whether its process lives."""
        return self._process is not None and self._process.poll() is None


@dataclass(slots=True)
class Embedded:
    """The embedded broker, rumqttd by way of `iotcore`, in a process of its own."""

    directory: Path
    port: int
    host: str = LOOPBACK
    kind: BrokerKind = BrokerKind.EMBEDDED
    _broker: Any = field(default=None, repr=False)

    def start(self) -> None:
        """Start, and return once connections are accepted.

        Raises:
            BrokerError: the port is taken, or it ended at once.
        """
        from iotcore import Broker

        _refuse_taken_port(self.port)
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "rumqttd.toml"
        configuration.write_text(embedded_configuration(port=self.port))
        self._broker = Broker(config_path=str(configuration))
        try:
            self._broker.start(timeout=START_TIMEOUT_S)
        except (OSError, RuntimeError, ValueError) as error:
            what = f"the embedded broker did not start: {error}"
            raise BrokerError(port=self.port, what=what, remedy="try another port") from None

    def stop(self) -> None:
        """Stop it; it keeps nothing."""
        if self._broker is not None:
            self._broker.stop(timeout=STOP_TIMEOUT_S)
            self._broker = None

    kill = stop

    def is_running(self) -> bool:
        """Tell whether its process lives."""
        return self._broker is not None and bool(self._broker.is_running)


@contextmanager
def running_broker(
    directory: Path, *, port: int | None = None, kind: BrokerKind | None = None
) -> Iterator[BrokerProcess]:
    """Run a broker on this machine for as long as the context lasts.

    Args:
        directory: for its configuration, log and persistence.
        port: TCP port on loopback; None takes a free one.
        kind: which broker; None takes Mosquitto where installed, else the embedded one.

    Yields:
        The broker, accepting connections at `.host` and `.port`.

    Raises:
        BrokerMissingError: this kind is not installed.
        BrokerError: the port is taken, or it did not start.
    """
    broker = choose_broker(directory, port=port, kind=kind)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def choose_broker(
    directory: Path, *, port: int | None = None, kind: BrokerKind | None = None
) -> BrokerProcess:
    """Return a broker that is not started yet; arguments as for `running_broker`."""
    chosen_port = free_port() if port is None else port
    program = find_mosquitto()
    if kind is not BrokerKind.EMBEDDED and program is not None:
        return Mosquitto(directory, chosen_port, program)
    if kind is BrokerKind.MOSQUITTO:
        raise BrokerMissingError(
            port=chosen_port, what="Mosquitto is not installed", remedy=INSTALL_REMEDY
        )
    if find_spec("iotcore") is None:
        raise BrokerMissingError(
            port=chosen_port, what="no broker is installed here", remedy=INSTALL_REMEDY
        )
    return Embedded(directory, chosen_port)


def free_port() -> int:
    """Return a TCP port that is free on loopback just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def mosquitto_configuration(directory: Path, *, port: int) -> str:
    """Return the configuration of a Mosquitto that serves this machine alone."""
    lines = [
        f"listener {port} {LOOPBACK}",
        "allow_anonymous true",
        # Started by root it would become a user who cannot write the folder.
        f"user {pwd.getpwuid(os.getuid()).pw_name}",
        "persistence true",
        f"persistence_location {directory.resolve()}/",
        "autosave_interval 60",
        f"max_packet_size {MAX_PAYLOAD_BYTES + PACKET_HEADER_BYTES}",
        f"max_inflight_messages {IN_FLIGHT_WINDOW}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        "persistent_client_expiration 14d",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    return "\n".join(lines) + "\n"


def embedded_configuration(*, port: int) -> str:
    """Return the configuration of an embedded broker that speaks MQTT 5."""
    return f"""id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "{LOOPBACK}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {MAX_PAYLOAD_BYTES + PACKET_HEADER_BYTES}
max_inflight_count = {IN_FLIGHT_WINDOW}
"""


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            remedy = "choose a port above 1023"
            raise BrokerError(port=port, what="may not be opened by you", remedy=remedy) from None
        except OSError:
            remedy = f"stop what listens there (ss -ltnp 'sport = :{port}'), or choose another port"
            raise BrokerError(port=port, what="the port is in use", remedy=remedy) from None


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.2):
            return True
    except OSError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
