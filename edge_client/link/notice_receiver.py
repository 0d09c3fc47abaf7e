"""Notices as they arrive: believed, kept, and answered, in whatever thread the link has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from models.telemetry import DeviceId
from models.wire.codec import encode
from models.wire.errors import DeliverAgainError, WireError
from models.wire.messages import Ack, NoticeState
from models.wire.topics import Up, up

from ..errors import NoticeRefusedError, StoreError
from ..store.mailbox import Purpose
from .admission import open_notice, require_admissible
from .configuration import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from models.wire.messages import Notice

    from ..store.mailbox import Mailbox, StoredNotice
    from .listener import Listener

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
        listener: the device; its store is opened anew for each group.
        wake: called after notices were looked at.
    """

    def __init__(self, listener: Listener, *, wake: Callable[[], None]) -> None:
        self._listener = listener
        self._wake = wake

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
                with self._listener.mailbox() as mailbox:
                    self._keep_all(mailbox, genuine)
        except StoreError as error:
            raise DeliverAgainError(str(error)) from error
        self._wake()

    def _genuine(self, arrived: tuple[str, bytes]) -> Notice | None:
        (topic, message), listener = arrived, self._listener
        try:
            return open_notice(
                message,
                topic=topic,
                device_id=listener.device_id,
                trusted=listener.trusted,
                opening_key=listener.opening_key,
            )
        except (WireError, NoticeRefusedError) as error:
            listener.counters.refuse(error)
            return None

    def _keep_all(self, mailbox: Mailbox, notices: Sequence[Notice]) -> None:
        device_id, counters = self._listener.device_id, self._listener.counters
        now = self._listener.clock()
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
                    acknowledge(mailbox, known, device_id=device_id, now=now)
        # Counted once it is certain that they do not come again.
        counters.repeated += repeated
        for refusal in refused:
            counters.refuse(refusal)


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
