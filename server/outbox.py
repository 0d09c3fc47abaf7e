"""Durable sending: a message is published until the device itself acknowledges it, or it expires.

A broker's acknowledgement proves nothing: a broker that was killed had acknowledged 3,000 messages
and delivered 223. So a message is stored in the transaction that decided on it, published at
QoS 1, and published again with growing waits. A device knows a repeated message by its id.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from models.wire.errors import LinkError, SealError
from models.wire.messages import NoticeState
from models.wire.sealing import seal_envelope
from models.wire.topics import Down, parse

from .storage.audit import AuditedDecision, AuditLine, AuditTrail
from .storage.notices import Notices
from .storage.outbox import OutboxMessage, OutboxMessages

if TYPE_CHECKING:
    from datetime import datetime
    from random import Random

    from sqlalchemy import Connection

    from models.wire.link import Link

    from .device_keys import DeviceKeySource
    from .storage.database import Database

logger = logging.getLogger(__name__)

BATCH = 200
"""Messages published between two transactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How long and how often a message is delivered.

    Attributes:
        lifetime: from issue to expiry.
        first_retry: wait after the first attempt.
        longest_retry: bound to which the wait doubles.
        after_birth: wait after a device said that it is back: its broker queue comes first.
        after_reconnect: messages are spread over this time once the broker is back.
    """

    lifetime: timedelta = timedelta(days=14)
    first_retry: timedelta = timedelta(seconds=60)
    longest_retry: timedelta = timedelta(days=1)
    after_birth: timedelta = timedelta(seconds=5)
    after_reconnect: timedelta = timedelta(seconds=5)

    def wait_after(self, attempts: int) -> timedelta:
        """Return how long to wait after so many attempts, at least one."""
        doublings = min(attempts - 1, 32)
        return min(self.longest_retry, self.first_retry * 2.0**doublings)


class Outbox:
    """The outbox of one hub: rows in the database, publications on the link."""

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        policy: DeliveryPolicy,
        jitter: Random,
        device_keys: DeviceKeySource | None = None,
    ) -> None:
        """Use a database and a link.

        Args:
            database: where the messages are.
            link: over which they go.
            policy: how long and how often.
            jitter: source of the random part of the waits.
            device_keys: to whose keys messages are sealed as they leave, so that a device that
                got new keys can read what waited for it. None seals nothing; with a file, a device
                that is not in it gets nothing.
        """
        self._device_keys = device_keys
        self._database = database
        self._link = link
        self._jitter = jitter
        self.policy = policy

    def publish_due(self, *, now: datetime) -> int:
        """Publish what is due, note it, close what has expired, and return how many were sent.

        A crash in between publishes again: devices know repeated messages by their ids.

        Raises:
            StorageUnavailableError: nothing was noted; the messages stay due.
        """
        with self._database.transaction() as connection:
            overdue = OutboxMessages(connection).expired(now=now, limit=BATCH)
            expired = self._close(connection, overdue, now=now)
            due = () if not self._link.is_connected else self._due(connection, now=now)
        sealed = [(message, self._sealed(message)) for message in due]
        published = [
            message
            for message, payload in sealed
            if payload is not None and self._publish(message, payload, now=now)
        ]
        keyless = [message for message, payload in sealed if payload is None]
        if published or keyless:
            with self._database.transaction() as connection:
                rows = OutboxMessages(connection)
                for message in published:
                    attempts = message.attempts + 1
                    rows.attempted(
                        message.message_id,
                        attempts=attempts,
                        next_attempt_at=now + self._wait_after(attempts),
                    )
                for message in keyless:
                    rows.attempted(
                        message.message_id,
                        attempts=message.attempts,
                        next_attempt_at=now + self._wait_after(max(1, message.attempts)),
                    )
        if expired:
            logger.info("%d notices expired without an answer", expired)
        return len(published)

    def device_is_back(self, connection: Connection, device_id: str, *, now: datetime) -> None:
        """Repeat soon what a device that came back has not acknowledged."""
        OutboxMessages(connection).hasten(at=now + self.policy.after_birth, device_id=device_id)

    def owner_wants_none(self, connection: Connection, device_id: str, *, now: datetime) -> None:
        """Publish no more to a device without consent: it would neither keep it nor answer."""
        waiting = OutboxMessages(connection).notices_for(device_id)
        if self._close(connection, waiting, now=now):
            logger.info("the owner of %s wants no notices: those that wait are closed", device_id)

    def broker_is_back(self, *, now: datetime) -> None:
        """Repeat soon what nobody has acknowledged: the broker may have lost it."""
        with self._database.transaction() as connection:
            hastened = OutboxMessages(connection).hasten(at=now + self.policy.after_reconnect)
        if hastened:
            logger.info("%d unacknowledged messages are published again", hastened)

    @staticmethod
    def _due(connection: Connection, *, now: datetime) -> tuple[OutboxMessage, ...]:
        return OutboxMessages(connection).due(now=now, limit=BATCH)

    @staticmethod
    def _close(
        connection: Connection, messages: tuple[OutboxMessage, ...], *, now: datetime
    ) -> int:
        rows, notices, trail = (
            OutboxMessages(connection),
            Notices(connection),
            AuditTrail(connection),
        )
        for message in messages:
            rows.give_up(message.message_id)
            progress = notices.progress(message.message_id)
            if progress is None:
                continue
            # The version stays: should the device answer yet, its answer counts.
            notices.move(message.message_id, NoticeState.EXPIRED, version=progress.version, now=now)
            trail.append(
                AuditLine(
                    at=now,
                    device_id=message.device_id,
                    decision=AuditedDecision.NOTICE_STATE,
                    reason_code=NoticeState.EXPIRED.value,
                    model_version=progress.model_version,
                    notice_id=message.message_id,
                )
            )
        return len(messages)

    def _sealed(self, message: OutboxMessage) -> bytes | None:
        """Return what is published; None: it must not be read by others, and cannot be sealed."""
        if self._device_keys is None:
            return message.payload
        keys = self._device_keys.of(message.device_id)
        if keys is None:
            # What stops a device tells nobody anything of its owner, and has to reach it.
            is_configuration = parse(message.topic).kind is Down.CONFIG
            return message.payload if is_configuration else None
        try:
            return seal_envelope(message.payload, keys.seal, topic=message.topic)
        except SealError as error:
            logger.warning("nothing is sealed to %s: %s", message.device_id, error)
            return None

    def _publish(self, message: OutboxMessage, payload: bytes, *, now: datetime) -> bool:
        left_s = int((message.expires_at - now).total_seconds())
        try:
            self._link.publish(message.topic, payload, expires_in_s=left_s)
        except LinkError as error:
            logger.debug("stays in the outbox: %s", error)
            return False
        return True

    def _wait_after(self, attempts: int) -> timedelta:
        return self.policy.wait_after(attempts) * self._jitter.uniform(0.75, 1.25)
