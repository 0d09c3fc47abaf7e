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

from ..errors import NoticeRefusedError, StoreError
from ..store.mailbox import Mailbox, Purpose
from .admission import open_notice, require_admissible
from .configuration import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from models.wire.envelope import VerifyKey
    from models.wire.messages import Notice
    from models.wire.sealing import OpeningKey

    from ..store.mailbox import StoredNotice
    from ..store.row_cipher import KeySource

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
        configurations: configurations that were kept, or came again.
    """

    predictions: int = 0
    summaries: int = 0
    shown: int = 0
    repeated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    confirmed: int = 0
    configurations: int = 0

    def refuse(self, error: WireError | NoticeRefusedError) -> None:
        """Count a message that was not believed or not admitted; the first of each kind is told.

        Whoever can send noise shall not fill the log with it.
        """
        before = self.refused.get(error.reason, 0)
        self.refused[error.reason] = before + 1
        level = logging.DEBUG if before else logging.WARNING
        logger.log(level, "a message was refused: %s", error)


def acknowledge(mailbox: Mailbox, notice: StoredNotice, *, device_id: str, now: datetime) -> None:
    """Put the acknowledgement of a notice's present state into the outbox.

    Where the server's configuration has stopped notices, nothing is said.
    """
    if Purpose.NOTICES.value in stopped(mailbox):
        return
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
        path: of the store; each group opens it anew, because SQLite binds it to a thread.
        device_id: of this device.
        trusted: the server's keys, by key id.
        clock: the device's time.
        counters: shared with the agent.
        wake: called after notices were looked at.
        opening_key: the device's own; None where it has no identity.
        key: the store is sealed under, None for one in the clear.
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
        opening_key: OpeningKey | None = None,
        key: KeySource | None = None,
    ) -> None:
        self._path = path
        self._device_id = device_id
        self._trusted = trusted
        self._clock = clock
        self._counters = counters
        self._wake = wake
        self._opening_key = opening_key
        self._key = key

    def __call__(self, topic: str, message: bytes) -> None:
        """Keep one notice, as `take` does."""
        self.take([(topic, message)])

    def take(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Keep notices that have come together in one transaction, or count why one is not kept.

        Raises:
            DeliverAgainError: the store cannot take them; the broker keeps them all.
        """
        genuine = [notice for notice in map(self._genuine, messages) if notice is not None]
        try:
            if genuine:
                with Mailbox(self._path, key=self._key) as mailbox:
                    self._keep_all(mailbox, genuine)
        except StoreError as error:
            raise DeliverAgainError(str(error)) from error
        self._wake()

    def _genuine(self, arrived: tuple[str, bytes]) -> Notice | None:
        topic, message = arrived
        try:
            return open_notice(
                message,
                topic=topic,
                device_id=self._device_id,
                trusted=self._trusted,
                opening_key=self._opening_key,
            )
        except (WireError, NoticeRefusedError) as error:
            self._counters.refuse(error)
            return None

    def _keep_all(self, mailbox: Mailbox, notices: Sequence[Notice]) -> None:
        now = self._clock()
        refused: list[NoticeRefusedError] = []
        repeated = 0
        with mailbox.transaction():
            is_granted = mailbox.consents()[Purpose.NOTICES].granted
            is_stopped = Purpose.NOTICES.value in stopped(mailbox)
            for notice in notices:
                known = _known(mailbox, notice.id)
                if known is None:
                    try:
                        require_admissible(
                            notice,
                            last_sequence=mailbox.last_notice_sequence,
                            now=now,
                            notices_wanted=is_granted,
                            is_stopped=is_stopped,
                        )
                    except NoticeRefusedError as error:
                        refused.append(error)
                        continue
                    known = _keep(mailbox, notice, now=now)
                else:
                    repeated += 1
                if is_granted:
                    acknowledge(mailbox, known, device_id=self._device_id, now=now)
        # Counted once it is certain that they do not come again.
        self._counters.repeated += repeated
        for refusal in refused:
            self._counters.refuse(refusal)


def _known(mailbox: Mailbox, message_id: str) -> StoredNotice | None:
    try:
        return mailbox.notice(message_id)
    except KeyError:
        return None


def _keep(mailbox: Mailbox, notice: Notice, *, now: datetime) -> StoredNotice:
    mailbox.keep_notice(
        notice.id,
        sequence=notice.sequence,
        version=notice.version + 1,
        body=encode(notice).decode(),
        now=now,
    )
    return mailbox.notice(notice.id)
