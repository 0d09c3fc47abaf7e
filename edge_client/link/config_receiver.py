"""Configurations as they arrive: believed, in order, and kept before the broker may forget them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.codec import decode
from models.wire.errors import DeliverAgainError, WireError
from models.wire.messages import Configuration

from ..errors import NoticeRefusedError, StoreError
from ..store.mailbox import Purpose
from .admission import open_payload, require_meant_for, within_time
from .configuration import CONFIGURATION_FACT, in_force

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ..store.mailbox import Mailbox
    from .listener import Listener


def keep_configuration(mailbox: Mailbox, told: Configuration, *, now: datetime) -> bool:
    """Put a configuration in force in place of the one before; what it stops waits no longer.

    Returns:
        False where this very one is in force already.

    Raises:
        NoticeRefusedError: `replayed`: it is not later than the one in force; or `expired`.
    """
    before = in_force(mailbox).get("sequence", -1)
    if told.sequence == before:
        return False
    if told.sequence < before:
        what = f"configuration {told.sequence} is not above {before}"
        raise NoticeRefusedError("replayed", what)
    if not within_time(told.expires, now=now):
        what = f"configuration {told.sequence} was to be taken until {told.expires}"
        raise NoticeRefusedError("expired", what)
    said = {
        "training": told.training,
        "prediction": told.prediction,
        "summaries": told.summaries,
        "notices": told.notices,
        "predict_every_h": told.predict_every_h,
        "ring": told.ring,
    }
    content: dict[str, object] = {name: value for name, value in said.items() if value is not None}
    content |= {"sequence": told.sequence, "received_at": now.isoformat(timespec="seconds")}
    with mailbox.transaction():
        mailbox.keep_fact(CONFIGURATION_FACT, content)
        gone = {purpose for purpose in Purpose if content.get(purpose.value) is False}
        for message in mailbox.outbox():
            if message.purpose in gone:
                mailbox.sent(message.number)
    return True


class ConfigurationReceiver:
    """Takes configurations in the link's thread; kept before it returns.

    Args:
        listener: the device; its store is opened anew for each message.
        changed: called after a configuration was kept, and where the server repeats one.
    """

    def __init__(self, listener: Listener, *, changed: Callable[[], None]) -> None:
        self._listener = listener
        self._changed = changed

    def __call__(self, topic: str, message: bytes) -> None:
        """Keep a configuration, or count why it is not kept.

        Raises:
            DeliverAgainError: the store cannot take it; the broker keeps it.
        """
        listener = self._listener
        try:
            payload = open_payload(
                message, topic=topic, trusted=listener.trusted, opening_key=listener.opening_key
            )
            told = decode(payload, Configuration)
            require_meant_for(told, listener.device_id)
            with listener.mailbox() as mailbox:
                keep_configuration(mailbox, told, now=listener.clock())
        except (WireError, NoticeRefusedError) as error:
            listener.counters.refuse(error)
            return
        except StoreError as error:
            raise DeliverAgainError(str(error)) from error
        listener.counters.configurations += 1
        self._changed()
