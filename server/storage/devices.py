"""The devices that spoke: their latest summary, and the counters against replay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select, update

from models.wire.codec import decode, encode
from models.wire.messages import Birth, Presence, Summary

from .tables import devices

if TYPE_CHECKING:
    from datetime import datetime

NOTHING_SAID = -1
"""`last_sequence` of a device that has sent no summary yet."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """What is kept of a device.

    Attributes:
        device_id: which.
        summary: its latest, None before the first.
        summary_received_at: when that came, by the server's clock.
        last_sequence: sequence number of its latest summary.
        notice_sequence: sequence number of the last notice to it.
    """

    device_id: str
    summary: Summary | None
    summary_received_at: datetime | None
    last_sequence: int
    notice_sequence: int


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices, within one transaction."""

    connection: Connection

    def seen(self, device_id: str, *, now: datetime) -> KnownDevice:
        """Return a device, which is added the first time, and note that it spoke."""
        touched = self.connection.execute(
            update(devices).where(devices.c.device_id == device_id).values(last_seen_at=now)
        )
        if touched.rowcount == 0:
            self.connection.execute(
                insert(devices).values(
                    device_id=device_id,
                    first_seen_at=now,
                    last_seen_at=now,
                    last_sequence=NOTHING_SAID,
                    notice_sequence=0,
                )
            )
        return self.get(device_id)

    def get(self, device_id: str) -> KnownDevice:
        """Return a device that has spoken.

        Raises:
            sqlalchemy.exc.NoResultFound: it never has.
        """
        row = self.connection.execute(
            select(
                devices.c.summary,
                devices.c.summary_received_at,
                devices.c.last_sequence,
                devices.c.notice_sequence,
            ).where(devices.c.device_id == device_id)
        ).one()
        return KnownDevice(
            device_id=device_id,
            summary=None if row[0] is None else decode(json.dumps(row[0]).encode(), Summary),
            summary_received_at=row[1],
            last_sequence=row[2],
            notice_sequence=row[3],
        )

    def keep_summary(self, summary: Summary, *, now: datetime) -> None:
        """Keep a summary in place of the one before; older ones are not kept."""
        self.connection.execute(
            update(devices)
            .where(devices.c.device_id == summary.device)
            .values(
                summary=json.loads(encode(summary)),
                summary_received_at=now,
                last_sequence=summary.sequence,
            )
        )

    def keep_birth(self, birth: Birth) -> None:
        """Keep what a device can run, what it refused, and which configuration it has."""
        refused_because = birth.refused_because
        self.connection.execute(
            update(devices)
            .where(devices.c.device_id == birth.device)
            .values(
                client_version=birth.client_version,
                feature_spec_version=birth.feature_spec_version,
                model_version=birth.model_version,
                refused_model=birth.refused_model,
                refused_because=None if refused_because is None else refused_because.value,
                configuration_sequence=birth.configuration_sequence,
            )
        )

    def keep_presence(self, device_id: str, presence: Presence) -> None:
        """Keep whether a device is connected."""
        self.connection.execute(
            update(devices).where(devices.c.device_id == device_id).values(presence=presence.value)
        )

    def keep_notice_sequence(self, device_id: str, sequence: int) -> None:
        """Keep the sequence number of the last notice."""
        self.connection.execute(
            update(devices).where(devices.c.device_id == device_id).values(notice_sequence=sequence)
        )

    def recheck(self, device_id: str, *, at: datetime | None) -> None:
        """Note when to decide on the latest summary again; None: when the next one comes."""
        self.connection.execute(
            update(devices).where(devices.c.device_id == device_id).values(recheck_at=at)
        )

    def due_for_recheck(self, *, now: datetime, limit: int) -> tuple[str, ...]:
        """Return devices to decide on again, the longest due first."""
        rows = self.connection.execute(
            select(devices.c.device_id)
            .where(devices.c.recheck_at <= now)
            .order_by(devices.c.recheck_at)
            .limit(limit)
        )
        return tuple(row[0] for row in rows)

    def ids(self) -> tuple[str, ...]:
        """Return every device that ever spoke."""
        rows = self.connection.execute(select(devices.c.device_id).order_by(devices.c.device_id))
        return tuple(row[0] for row in rows)

    def refused_models(self) -> dict[str, int]:
        """Return on how many devices the model they were given last was refused, by reason."""
        rows = self.connection.execute(
            select(devices.c.refused_because, func.count())
            .where(devices.c.refused_because.is_not(None))
            .group_by(devices.c.refused_because)
        )
        return {row[0]: row[1] for row in rows}

    def count(self) -> int:
        """Return how many devices ever spoke."""
        return int(self.connection.scalar(select(func.count()).select_from(devices)) or 0)
