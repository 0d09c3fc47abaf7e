"""Brokers and those who speak through them: links, simulated devices, a link that only records."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Self

from models.wire import topics
from models.wire.codec import decode, encode
from models.wire.envelope import VerifyKey, open_signed, trusted_keys
from models.wire.errors import LinkError
from models.wire.link import Link, LinkSettings
from models.wire.messages import Ack, Message, Notice, NoticeState
from server.broker import BrokerKind, running_broker
from tests.support.wire_messages import ISSUED, numbered_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from server.broker import BrokerProcess

PATIENCE_S = 10.0


@contextmanager
def mosquitto_in(directory: Path) -> Iterator[BrokerProcess]:
    """Run Mosquitto; the test bears the marker `broker`."""
    with running_broker(directory / "mosquitto", kind=BrokerKind.MOSQUITTO) as broker:
        yield broker


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> bool:
    """Wait until something holds, and tell whether it does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def link_to(broker: BrokerProcess, client_id: str, **settings: object) -> Link:
    """Make a link that comes back at once, and is not connected yet."""
    quick: dict[str, object] = {"first_wait_s": 0.02, "longest_wait_s": 0.05}
    values = {"host": broker.host, "port": broker.port, "client_id": client_id} | quick | settings
    return Link(LinkSettings(**values), jitter=Random(7))  # type: ignore[arg-type]


@dataclass
class Heard:
    """Collects what a link hears."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)

    def __call__(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.messages]

    def wait_for(self, count: int, timeout_s: float = PATIENCE_S) -> list[bytes]:
        wait_until(lambda: len(self.messages) >= count, timeout_s)
        return self.payloads


class WireDevice:
    """A device as the wire sees it: says what it is told, verifies notices, acknowledges them."""

    def __init__(
        self,
        broker: BrokerProcess,
        verify_key: VerifyKey,
        *,
        device: str = "device-1",
        answers: bool = True,
        **settings: object,
    ) -> None:
        self.device = device
        self.link = link_to(broker, device, **settings)
        self.notices: list[Notice] = []
        self._trusted = trusted_keys(verify_key)
        self._answers = answers
        self._acks = 0
        self.link.subscribe(topics.down(device, topics.Down.NOTIFY), self._hear)

    def __enter__(self) -> Self:
        self.link.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def say(self, message: Message) -> bool:
        """Send a message and wait for the broker."""
        assert isinstance(message.TOPIC, topics.Up)
        topic = topics.up(self.device, message.TOPIC)
        return self.link.publish(topic, encode(message)).wait(PATIENCE_S)

    def answer(self, notice: Notice, state: NoticeState, *, version: int) -> Ack:
        """Send an acknowledgement."""
        self._acks += 1
        said = Ack(
            id=numbered_id(1000 + self._acks),
            device=notice.device,
            sequence=self._acks,
            issued=ISSUED,
            correlation=notice.id,
            state=state,
            version=version,
        )
        self.link.publish(topics.up(self.device, topics.Up.ACK), encode(said))
        return said

    def _hear(self, _topic: str, payload: bytes) -> None:
        notice = decode(open_signed(payload, self._trusted), Notice)
        self.notices.append(notice)
        if self._answers:
            self.answer(notice, NoticeState.RECEIVED, version=notice.version + 1)


class RecordingLink:
    """Stands in for a link where the subject is time or storage, not the network."""

    def __init__(self) -> None:
        self.is_connected = True
        self.is_full = False
        self.published: list[tuple[str, bytes, int | None]] = []
        self.handlers: dict[str, Callable[[str, bytes], None]] = {}
        self.hooks: list[Callable[[bool], None]] = []

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        self.handlers[topic_filter] = handler

    def on_connected(self, hook: Callable[[bool], None]) -> None:
        self.hooks.append(hook)

    def publish(self, topic: str, payload: bytes, *, expires_in_s: int | None = None) -> None:
        if self.is_full:
            raise LinkError(host="h", port=1, what="full", remedy="wait")
        self.published.append((topic, payload, expires_in_s))
