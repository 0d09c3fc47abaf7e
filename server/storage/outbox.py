"""The messages that wait for a device's own acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from models.wire.topics import Down

from .tables import outbox

if TYPE_CHECKING:
    from datetime import datetime


_IS_NOTICE = outbox.c.topic.like(f"%/dn/{Down.NOTIFY.value}")


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message that a device has not acknowledged.

    Attributes:
        message_id: its id, by which a device knows it again.
        device_id: for whom.
        topic: where it is published.
        payload: the signed bytes.
        attempts: how often it was published.
        expires_at: after this it is not published any more.
    """

    message_id: str
    device_id: str
    topic: str
    payload: bytes
    attempts: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OutboxMessages:
    """The outbox, within one transaction."""

    connection: Connection

    def add(self, message: OutboxMessage, *, first_attempt_at: datetime) -> None:
        """Add a message; one with the same id must not be there."""
        self.connection.execute(
            insert(outbox).values(
                message_id=message.message_id,
                device_id=message.device_id,
                topic=message.topic,
                payload=message.payload,
                attempts=message.attempts,
                next_attempt_at=first_attempt_at,
                expires_at=message.expires_at,
            )
        )

    def due(self, *, now: datetime, limit: int) -> tuple[OutboxMessage, ...]:
        """Return the messages whose next attempt is due, the longest due first."""
        return self._select(outbox.c.next_attempt_at <= now, limit=limit)

    def expired(self, *, now: datetime, limit: int) -> tuple[OutboxMessage, ...]:
        """Return the messages that are still waiting though their time is over."""
        waiting = outbox.c.next_attempt_at.is_not(None)
        return self._select(waiting & (outbox.c.expires_at <= now), limit=limit)

    def notices_for(self, device_id: str) -> tuple[OutboxMessage, ...]:
        """Return the notices to a device that are still published."""
        waiting = outbox.c.next_attempt_at.is_not(None) & _IS_NOTICE
        return self._select(waiting & (outbox.c.device_id == device_id), limit=None)

    def attempted(self, message_id: str, *, attempts: int, next_attempt_at: datetime) -> None:
        """Note an attempt, unless the message was acknowledged meanwhile."""
        self.connection.execute(
            update(outbox)
            .where(outbox.c.message_id == message_id, outbox.c.next_attempt_at.is_not(None))
            .values(attempts=attempts, next_attempt_at=next_attempt_at)
        )

    def acknowledged(self, message_id: str, *, now: datetime) -> None:
        """Note that the device has the message."""
        self.connection.execute(
            update(outbox)
            .where(outbox.c.message_id == message_id, outbox.c.acked_at.is_(None))
            .values(acked_at=now, next_attempt_at=None)
        )

    def give_up(self, message_id: str) -> None:
        """Publish a message no more."""
        self.connection.execute(
            update(outbox).where(outbox.c.message_id == message_id).values(next_attempt_at=None)
        )

    def hasten(self, *, at: datetime, device_id: str | None = None) -> int:
        """Bring attempts forward, of one device or of all, and return of how many messages."""
        later = update(outbox).where(outbox.c.next_attempt_at > at, outbox.c.attempts > 0)
        if device_id is not None:
            later = later.where(outbox.c.device_id == device_id)
        return self.connection.execute(later.values(next_attempt_at=at)).rowcount

    def is_waiting(self, message_id: str) -> bool:
        """Tell whether a message is still published."""
        waiting = outbox.c.next_attempt_at.is_not(None)
        return self._count(waiting & (outbox.c.message_id == message_id)) > 0

    def count_waiting_notices(self) -> int:
        """Return how many notices are still published."""
        return self._count(outbox.c.next_attempt_at.is_not(None) & _IS_NOTICE)

    def count_acknowledged_notices(self) -> int:
        """Return how many notices devices have acknowledged."""
        return self._count(outbox.c.acked_at.is_not(None) & _IS_NOTICE)

    def _select(
        self, condition: ColumnElement[bool], *, limit: int | None
    ) -> tuple[OutboxMessage, ...]:
        rows = self.connection.execute(
            select(
                outbox.c.message_id,
                outbox.c.device_id,
                outbox.c.topic,
                outbox.c.payload,
                outbox.c.attempts,
                outbox.c.expires_at,
            )
            .where(condition)
            .order_by(outbox.c.next_attempt_at)
            .limit(limit)
        )
        return tuple(OutboxMessage(*row) for row in rows)

    def _count(self, condition: ColumnElement[bool]) -> int:
        found = self.connection.scalar(select(func.count()).select_from(outbox).where(condition))
        return int(found or 0)
