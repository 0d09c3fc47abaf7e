"""Notices as they arrive: believed, kept, and answered, in whatever thread the link has."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.telemetry import DeviceId
from models.wire.codec import encode
from models.wire.errors import DeliverAgainError, WireError
from models.wire.messages import Ack, NoticeState
from models.wire.topics import Up, up

from .admission import open_notice, require_admissible
from .errors import NoticeRefusedError, StoreError
from .mailbox import Mailbox, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from models.wire.envelope import VerifyKey
    from models.wire.messages import Notice

    from .mailbox import StoredNotice

logger = logging.getLogger(__name__)

ANSWERS = {
    "accept": NoticeState.ACCEPTED,
    "decline": NoticeState.DECLINED,
    "snooze": NoticeState.SNOOZED,
    "request_replacement": NoticeState.ACCEPTED,
    "schedule_replacement": NoticeState.ACCEPTED,
    "book_appointment": NoticeState.ACCEPTED,
    "remind_next_week": NoticeState.SNOOZED,
}
"""What an owner may say to a notice, in a word or by the code of a button, and the state it moves
to."""


@dataclass(slots=True)
class AgentCounters:
    """What the agent did.

    Attributes:
        predictions: predictions made.
        summaries: summaries put out.
        shown: notices shown.
        repeated: notices that came again.
        refused: messages that were not believed or not admitted, by reason.
        confirmed: messages that the broker took.
    """

    predictions: int = 0
    summaries: int = 0
    shown: int = 0
    repeated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    confirmed: int = 0


def acknowledge(mailbox: Mailbox, notice: StoredNotice, *, device_id: str, now: datetime) -> None:
    """Put the acknowledgement of a notice's present state into the outbox."""
    ack = Ack(
        id=os.urandom(16).hex(),
        device=DeviceId(device_id),
        sequence=mailbox.next_sequence("ack", now=now),
        issued=now.replace(microsecond=0),
        correlation=notice.message_id,
        state=notice.state,
        version=notice.version,
    )
    mailbox.put_out(Purpose.NOTICES, up(device_id, Up.ACK), encode(ack))


def answer_notice(
    mailbox: Mailbox, message_id: str, state: NoticeState, *, device_id: str, now: datetime
) -> StoredNotice:
    """Keep what the owner chose, and put the acknowledgement out.

    Raises:
        KeyError: no notice has this identifier.
        ConsentMissingError: the owner has withdrawn the consent to notices; nothing changed.
    """
    with mailbox.transaction():
        before = mailbox.notice(message_id)
        notice = mailbox.set_notice_state(message_id, state)
        if notice.version != before.version:
            acknowledge(mailbox, notice, device_id=device_id, now=now)
    return notice


class NoticeReceiver:
    """Takes notices in the link's thread: believed, kept and acknowledged before it returns.

    Args:
        path: of the store; each message opens it anew, because SQLite binds it to a thread.
        device_id: of this device.
        trusted: the server's keys, by key id.
        clock: the device's time.
        counters: shared with the agent.
        wake: called after a notice was kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        device_id: str,
        trusted: Mapping[str, VerifyKey],
        clock: Callable[[], datetime],
        counters: AgentCounters,
        wake: Callable[[], None],
    ) -> None:
        self._path = path
        self._device_id = device_id
        self._trusted = trusted
        self._clock = clock
        self._counters = counters
        self._wake = wake

    def __call__(self, _topic: str, payload: bytes) -> None:
        """Keep a notice, or count why it is not kept.

        Raises:
            DeliverAgainError: the store cannot take it; the broker keeps it.
        """
        try:
            notice = open_notice(payload, device_id=self._device_id, trusted=self._trusted)
            with Mailbox(self._path) as mailbox:
                self._keep(mailbox, notice)
        except (WireError, NoticeRefusedError) as error:
            refused = self._counters.refused
            refused[error.reason] = refused.get(error.reason, 0) + 1
            logger.warning("a message was refused: %s", error)
        except StoreError as error:
            raise DeliverAgainError(str(error)) from error
        self._wake()

    def _keep(self, mailbox: Mailbox, notice: Notice) -> None:
        now = self._clock()
        with mailbox.transaction():
            known = {kept.message_id: kept for kept in mailbox.notices()}.get(notice.id)
            if known is None:
                require_admissible(
                    notice,
                    last_sequence=mailbox.last_notice_sequence,
                    now=now,
                    notices_wanted=mailbox.consents()[Purpose.NOTICES].granted,
                )
                mailbox.keep_notice(
                    notice.id,
                    sequence=notice.sequence,
                    version=notice.version + 1,
                    body=encode(notice).decode(),
                    now=now,
                )
                known = mailbox.notice(notice.id)
            else:
                self._counters.repeated += 1
            if mailbox.consents()[Purpose.NOTICES].granted:
                acknowledge(mailbox, known, device_id=self._device_id, now=now)
