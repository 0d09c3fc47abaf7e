"""What a hub's database says: how many notices, where they are, and what was not sent and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .storage.audit import AuditedDecision, AuditTrail
from .storage.dead_letters import DeadLetters
from .storage.devices import Devices
from .storage.notices import Notices
from .storage.outbox import OutboxMessages

if TYPE_CHECKING:
    from .storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatus:
    """Counts since the database was made.

    Attributes:
        devices: devices that ever spoke.
        sent: notices that were decided to be sent.
        acknowledged: notices that devices have acknowledged themselves.
        waiting: notices that are still published until then.
        notices: notices by state.
        suppressed: decisions not to send, by reason.
        dead_letters: messages that could not be used, by reason.
    """

    devices: int
    sent: int
    acknowledged: int
    waiting: int
    notices: dict[str, int]
    suppressed: dict[str, int]
    dead_letters: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return asdict(self)


def hub_status(database: Database) -> HubStatus:
    """Count."""
    with database.transaction() as connection:
        states = Notices(connection).count_by_state()
        rows = OutboxMessages(connection)
        return HubStatus(
            devices=Devices(connection).count(),
            sent=sum(states.values()),
            acknowledged=rows.count_acknowledged(),
            waiting=rows.count_waiting(),
            notices=states,
            suppressed=AuditTrail(connection).count_by_reason(AuditedDecision.SUPPRESSED),
            dead_letters=DeadLetters(connection).count_by_reason(),
        )
