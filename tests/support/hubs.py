"""Hubs for tests: on a recording link with a clock of one's own, or on a real broker."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

from models.wire import topics
from models.wire.codec import decode, encode
from models.wire.envelope import SigningKey, open_signed, trusted_keys
from models.wire.messages import Message, Notice
from server.clock import machine_clock
from server.hub import Hub, HubPolicy
from server.hub_status import hub_status
from server.outbox import DeliveryPolicy
from server.replacements import NoticePolicy
from server.signer import Signer
from server.storage.audit import AuditLine, AuditTrail
from server.storage.database import Database, open_database
from tests.support.brokers import RecordingLink, link_to
from tests.support.wire_messages import ISSUED, numbered_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.broker import BrokerProcess
    from server.clock import Clock
    from server.device_keys import DeviceKeyFile
    from server.hub_status import HubStatus

SIGNER = Signer(SigningKey.from_bytes(bytes(range(32))))
QUICK = DeliveryPolicy(
    first_retry=timedelta(seconds=0.4),
    after_birth=timedelta(seconds=0.1),
    after_reconnect=timedelta(seconds=0.1),
)


class Steady:
    """A source of jitter without any."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


@dataclass
class HubOnPaper:
    """A hub whose link records and whose clock stands until it is moved."""

    database: Database
    now: datetime = ISSUED
    link: RecordingLink = field(default_factory=RecordingLink)
    device_keys: DeviceKeyFile | None = None

    def __post_init__(self) -> None:
        self.ids = (numbered_id(number) for number in range(100, 10_000))
        self.restart()

    def restart(self) -> None:
        """Put a new hub in place of the old one, as after a crash."""
        self.hub = Hub(
            database=self.database,
            link=self.link,  # type: ignore[arg-type]
            signer=SIGNER,
            clock=lambda: self.now,
            policy=HubPolicy(
                notices=NoticePolicy(), delivery=DeliveryPolicy(), human_contact="help@example.org"
            ),
            jitter=Steady(),  # type: ignore[arg-type]
            device_keys=self.device_keys,
            new_id=lambda: next(self.ids),
        )

    def hear(self, message: Message) -> None:
        """Hand the hub a message on its sender's topic."""
        assert isinstance(message.TOPIC, topics.Up)
        self.hub.receive(topics.up(message.device, message.TOPIC), encode(message))

    def pass_time(self, **duration: float) -> None:
        """Move the clock and let the hub do what has become due."""
        self.now += timedelta(**duration)
        self.hub.tick()

    @property
    def sent(self) -> list[Notice]:
        """The notices published so far, repetitions included."""
        trusted = trusted_keys(SIGNER.verify_key)
        return [
            decode(open_signed(payload, trusted), Notice) for _, payload, _ in self.link.published
        ]

    def status(self) -> HubStatus:
        """Count what the database holds."""
        return hub_status(self.database)

    def trail(self, device: str = "device-1") -> list[AuditLine]:
        """Return the audit trail of a device."""
        with self.database.transaction() as connection:
            return list(AuditTrail(connection).of_device(device))


@contextmanager
def running_hub(
    broker: BrokerProcess,
    directory: Path,
    *,
    delivery: DeliveryPolicy = QUICK,
    clock: Clock = machine_clock,
    device_keys: DeviceKeyFile | None = None,
) -> Iterator[tuple[Hub, Database]]:
    """Run a hub in a thread, on a real broker and a real database."""
    link = link_to(broker, topics.HUB_CLIENT_ID)
    stop = threading.Event()
    with open_database(f"sqlite:///{directory / 'hub.db'}") as database:
        hub = Hub(
            database=database,
            link=link,
            signer=SIGNER,
            clock=clock,
            policy=HubPolicy(
                notices=NoticePolicy(), delivery=delivery, human_contact="help@example.org"
            ),
            jitter=Random(3),
            device_keys=device_keys,
        )
        with link:
            thread = threading.Thread(target=hub.run, args=(stop,), daemon=True)
            thread.start()
            try:
                yield hub, database
            finally:
                stop.set()
                hub.wake()
                thread.join(5)
