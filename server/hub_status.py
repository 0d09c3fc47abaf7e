"""What a hub's database says: how many notices, where they are, and what was not sent and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .storage.audit import AuditedDecision, AuditTrail
from .storage.configurations import Configurations
from .storage.dead_letters import DeadLetters
from .storage.devices import Devices
from .storage.notices import Notices
from .storage.outbox import OutboxMessages

if TYPE_CHECKING:
    from .device_keys import DeviceKeySource
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
        configurations: devices whose latest configuration is in force, or waits for them.
        refused_models: devices that do not run the model they were given last, by reason.
        devices_without_key: those of `devices` that nothing can be sealed to; None: nothing is
            sealed.
    """

    devices: int
    sent: int
    acknowledged: int
    waiting: int
    notices: dict[str, int]
    suppressed: dict[str, int]
    dead_letters: dict[str, int]
    configurations: dict[str, int]
    refused_models: dict[str, int]
    devices_without_key: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return asdict(self)


def hub_status(database: Database, *, device_keys: DeviceKeySource | None = None) -> HubStatus:
    """Count.

    Args:
        database: of the hub.
        device_keys: the keys that the hub seals to.
    """
    with database.transaction() as connection:
        states = Notices(connection).count_by_state()
        rows = OutboxMessages(connection)
        devices = Devices(connection)
        keyless = None
        if device_keys is not None:
            keyless = sum(device_keys.of(device) is None for device in devices.ids())
        return HubStatus(
            devices=devices.count(),
            sent=sum(states.values()),
            acknowledged=rows.count_acknowledged_notices(),
            waiting=rows.count_waiting_notices(),
            notices=states,
            suppressed=AuditTrail(connection).count_by_reason(AuditedDecision.SUPPRESSED),
            dead_letters=DeadLetters(connection).count_by_reason(),
            configurations=Configurations(connection).count_latest(),
            refused_models=devices.refused_models(),
            devices_without_key=keyless,
        )
