"""The audit trail: lines are added and read, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select

from .tables import audit

if TYPE_CHECKING:
    from datetime import datetime


class AuditedDecision(StrEnum):
    """What a line is about."""

    SENT = "sent"
    SUPPRESSED = "suppressed"
    NOTICE_STATE = "notice_state"
    CONFIGURED = "configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One decision, or one change of state.

    Attributes:
        at: when.
        device_id: about which device; a pseudonym, the only personal thing in a line.
        decision: what happened.
        reason_code: why: what made a notice due, what stood against it, or the new state.
        model_version: which model's prediction it was about.
        notice_id: which notice, where there is one.
        recheck_at: when to look again, where nothing was sent.
    """

    at: datetime
    device_id: str
    decision: AuditedDecision
    reason_code: str
    model_version: str | None = None
    notice_id: str | None = None
    recheck_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """The audit trail, within one transaction."""

    connection: Connection

    def append(self, line: AuditLine) -> None:
        """Add a line."""
        self.connection.execute(
            insert(audit).values(
                at=line.at,
                device_id=line.device_id,
                decision=line.decision.value,
                reason_code=line.reason_code,
                model_version=line.model_version,
                notice_id=line.notice_id,
                recheck_at=line.recheck_at,
            )
        )

    def of_device(self, device_id: str) -> tuple[AuditLine, ...]:
        """Return the lines about a device, in order."""
        rows = self.connection.execute(
            select(audit).where(audit.c.device_id == device_id).order_by(audit.c.number)
        )
        return tuple(
            AuditLine(
                at=row.at,
                device_id=row.device_id,
                decision=AuditedDecision(row.decision),
                reason_code=row.reason_code,
                model_version=row.model_version,
                notice_id=row.notice_id,
                recheck_at=row.recheck_at,
            )
            for row in rows
        )

    def count_by_reason(self, decision: AuditedDecision) -> dict[str, int]:
        """Return how many lines of one kind there are by reason."""
        rows = self.connection.execute(
            select(audit.c.reason_code, func.count())
            .where(audit.c.decision == decision.value)
            .group_by(audit.c.reason_code)
        )
        return {row[0]: row[1] for row in rows}
