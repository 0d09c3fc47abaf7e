"""The configurations that devices were sent, and which of them each device has in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Subquery, func, insert, select, update

from .tables import configurations

if TYPE_CHECKING:
    from datetime import datetime

    from models.wire.messages import Configuration


@dataclass(frozen=True, slots=True)
class SentConfiguration:
    """The latest configuration that a device was sent.

    Attributes:
        message_id: its id.
        sequence: its sequence number.
        settings: what it says, by field; fields that it leaves out are missing.
        applied_at: when the device said that it is in force, None before.
    """

    message_id: str
    sequence: int
    settings: dict[str, Any]
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class Configurations:
    """The configurations, within one transaction."""

    connection: Connection

    def add(self, configuration: Configuration, settings: dict[str, Any]) -> None:
        """Add a configuration that was not sent before."""
        self.connection.execute(
            insert(configurations).values(
                message_id=configuration.id,
                device_id=configuration.device,
                sequence=configuration.sequence,
                settings=settings,
                issued_at=configuration.issued,
                expires_at=configuration.expires,
            )
        )

    def latest(self, device_id: str) -> SentConfiguration | None:
        """Return the latest configuration of a device, None where it was never sent one."""
        row = self.connection.execute(
            select(
                configurations.c.message_id,
                configurations.c.sequence,
                configurations.c.settings,
                configurations.c.applied_at,
            )
            .where(configurations.c.device_id == device_id)
            .order_by(configurations.c.sequence.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else SentConfiguration(*row)

    def rings(self) -> dict[str, str]:
        """Return the ring that each device was told last, of those that were told one."""
        rows = self.connection.execute(
            select(configurations.c.device_id, configurations.c.settings).join(*_newest())
        )
        return {row.device_id: row.settings["ring"] for row in rows if row.settings.get("ring")}

    def applied(self, message_id: str, *, now: datetime) -> None:
        """Note that a device has a configuration in force."""
        self.connection.execute(
            update(configurations)
            .where(configurations.c.message_id == message_id, configurations.c.applied_at.is_(None))
            .values(applied_at=now)
        )

    def count_latest(self) -> dict[str, int]:
        """Return for how many devices the latest configuration is in force, and waits."""
        rows = self.connection.execute(
            select(configurations.c.applied_at.is_not(None), func.count())
            .join(*_newest())
            .group_by(configurations.c.applied_at.is_not(None))
        )
        return {"in_force" if row[0] else "waiting": row[1] for row in rows}


def _newest() -> tuple[Subquery, ColumnElement[bool]]:
    """Return what leaves of each device's configurations the latest, and how it is joined."""
    newest = (
        select(func.max(configurations.c.sequence).label("sequence"), configurations.c.device_id)
        .group_by(configurations.c.device_id)
        .subquery()
    )
    is_newest = (newest.c.device_id == configurations.c.device_id) & (
        newest.c.sequence == configurations.c.sequence
    )
    return newest, is_newest
