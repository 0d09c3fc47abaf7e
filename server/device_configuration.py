"""What an operator tells devices not to do: signed, numbered, sent until the device has it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import NoResultFound

from models.telemetry import DeviceId
from models.wire import topics
from models.wire.messages import Configuration

from .errors import DeviceUnknownError
from .storage.audit import AuditedDecision, AuditLine, AuditTrail
from .storage.configurations import Configurations
from .storage.devices import Devices
from .storage.outbox import OutboxMessage, OutboxMessages

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from models.wire.messages import Birth

    from .signer import Signer

MOST_REASON = 64
LIFETIME = timedelta(days=90)
"""How long a configuration is sent; a device that comes back later is sent it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What a device is told; None leaves it as the owner agreed, and as the device is set up.

    Attributes:
        training: False stops training.
        prediction: False stops predictions.
        summaries: False stops summaries.
        notices: False stops notices.
        predict_every_h: hours from one prediction to the next.
        ring: whose releases it takes; None: the ring that it was told before.
    """

    training: bool | None = None
    prediction: bool | None = None
    summaries: bool | None = None
    notices: bool | None = None
    predict_every_h: int | None = None
    ring: str | None = None

    def said(self) -> dict[str, Any]:
        """Return what is not None, by name."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ConfigurationSender:
    """Puts configurations into the outbox, within one transaction.

    Attributes:
        connection: of the transaction.
        signer: signs them.
        new_id: names messages: 32 hex digits.
    """

    connection: Connection
    signer: Signer
    new_id: Callable[[], str]

    def send(self, device_id: str, settings: DeviceSettings, *, now: datetime) -> Configuration:
        """Send a device a configuration in place of whatever was sent before.

        Raises:
            DeviceUnknownError: the device has never spoken; nothing was written.
            models.wire.errors.WireError: a setting is out of its bounds.
        """
        try:
            Devices(self.connection).get(device_id)
        except NoResultFound:
            raise DeviceUnknownError(device_id) from None
        configurations, outbox = Configurations(self.connection), OutboxMessages(self.connection)
        before = configurations.latest(device_id)
        if settings.ring is None and before is not None:
            settings = replace(settings, ring=before.settings.get("ring"))
        issued = now.replace(microsecond=0)
        message = Configuration(
            id=self.new_id(),
            device=DeviceId(device_id),
            # Never below what a device may have seen from a server that was restored since.
            sequence=max(0 if before is None else before.sequence + 1, int(now.timestamp())),
            issued=issued,
            expires=issued + LIFETIME,
            **settings.said(),
        )
        if before is not None:
            outbox.give_up(before.message_id)
        configurations.add(message, settings.said())
        outbox.add(
            OutboxMessage(
                message_id=message.id,
                device_id=device_id,
                topic=topics.down(device_id, topics.Down.CONFIG),
                payload=self.signer.signed(message),
                attempts=0,
                expires_at=message.expires,
            ),
            first_attempt_at=now,
        )
        AuditTrail(self.connection).append(
            AuditLine(
                at=now,
                device_id=device_id,
                decision=AuditedDecision.CONFIGURED,
                reason_code=_in_words(settings),
            )
        )
        return message

    def device_said(self, birth: Birth, *, now: datetime) -> None:
        """Note which configuration a device has in force, and send it the latest if it lost it."""
        latest = Configurations(self.connection).latest(birth.device)
        if latest is None:
            return
        outbox = OutboxMessages(self.connection)
        if (birth.configuration_sequence or 0) >= latest.sequence:
            Configurations(self.connection).applied(latest.message_id, now=now)
            outbox.acknowledged(latest.message_id, now=now)
        elif not outbox.is_waiting(latest.message_id):
            self.send(birth.device, DeviceSettings(**latest.settings), now=now)


def _in_words(settings: DeviceSettings) -> str:
    said = settings.said()
    stopped = [f"no_{name}" for name, value in said.items() if value is False]
    every = settings.predict_every_h
    told = [] if every is None else [f"every_{every}h"]
    told += [] if settings.ring is None else [f"ring_{settings.ring}"]
    return "+".join(stopped + told)[:MOST_REASON] or "all_as_agreed"
