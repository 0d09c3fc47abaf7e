"""The notices: what each said in bands, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select, update

from models.wire.messages import Notice, NoticeState, Template

from ..replacements import PastNotice
from .tables import notices

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class NoticeProgress:
    """How far a notice has come.

    Attributes:
        device_id: whose it is.
        state: the latest known.
        version: the number of that state.
        model_version: which model's prediction gave rise to it.
    """

    device_id: str
    state: NoticeState
    version: int
    model_version: str


@dataclass(frozen=True, slots=True)
class Notices:
    """The notices, within one transaction."""

    connection: Connection

    def add(
        self, notice: Notice, *, model_version: str, reason_codes: Iterable[str], now: datetime
    ) -> None:
        """Add a notice that is queued."""
        self.connection.execute(
            insert(notices).values(
                notice_id=notice.id,
                device_id=notice.device,
                sequence=notice.sequence,
                summary_id=notice.correlation,
                template=notice.template.value,
                language=notice.language,
                urgency=notice.urgency.value,
                days_band=notice.days_band.value,
                probability_band=notice.probability_band.value,
                health_band=notice.health_band.value,
                confidence=notice.confidence.value,
                model_version=model_version,
                reason_codes=list(reason_codes),
                state=NoticeState.QUEUED.value,
                version=notice.version,
                issued_at=notice.issued,
                expires_at=notice.expires,
                state_at=now,
            )
        )

    def progress(self, notice_id: str) -> NoticeProgress | None:
        """Return how far a notice has come, None where there is no such notice."""
        row = self.connection.execute(
            select(
                notices.c.device_id, notices.c.state, notices.c.version, notices.c.model_version
            ).where(notices.c.notice_id == notice_id)
        ).one_or_none()
        if row is None:
            return None
        return NoticeProgress(row[0], NoticeState(row[1]), row[2], row[3])

    def move(self, notice_id: str, state: NoticeState, *, version: int, now: datetime) -> None:
        """Keep a notice's new state."""
        self.connection.execute(
            update(notices)
            .where(notices.c.notice_id == notice_id)
            .values(state=state.value, version=version, state_at=now)
        )

    def history(self, device_id: str) -> tuple[PastNotice, ...]:
        """Return what a device was sent, in order."""
        rows = self.connection.execute(
            select(notices.c.template, notices.c.issued_at, notices.c.state, notices.c.state_at)
            .where(notices.c.device_id == device_id)
            .order_by(notices.c.issued_at)
        )
        return tuple(
            PastNotice(Template(row[0]), row[1], NoticeState(row[2]), row[3]) for row in rows
        )

    def count_by_state(self) -> dict[str, int]:
        """Return how many notices are in each state."""
        rows = self.connection.execute(
            select(notices.c.state, func.count()).group_by(notices.c.state)
        )
        return {row[0]: row[1] for row in rows}
