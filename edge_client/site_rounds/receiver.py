"""What a gateway says to this device, in the link's thread: believed, decided, kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from models.wire.errors import DeliverAgainError, WireError
from models.wire.site_grant import DeviceGrant
from models.wire.site_rounds import (
    CountOffer,
    MissingParts,
    RoundOffer,
    StepRelease,
    open_from_gateway,
)
from models.wire.topics import Up, up

from ..errors import ConsentMissingError, IdentityError, InputError, NoticeRefusedError, StoreError
from ..link.configuration import allowed, stopped
from ..store.mailbox import Purpose
from .kept_step import keep_step, kept_step
from .offers import Todo, after_release, judge_offer, parts_to_send_again
from .time_left import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from ..link.listener import Listener
    from ..own_training import OwnDevice
    from ..store.mailbox import Mailbox
    from .kept_step import KeptStep

logger = logging.getLogger(__name__)


class GatewayReceiver:
    """Takes offers, questions for missing parts, and releases; kept before it returns.

    Args:
        listener: the device; its store is opened anew for each message.
        device_at: returns the device that takes part, at a moment.
        grant_time: the time by which grants end; never before what the server said last.
        changed: called after something was kept or put out.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        device_at: Callable[[datetime], OwnDevice],
        grant_time: Callable[[], datetime],
        changed: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._device_at = device_at
        self._grant_time = grant_time
        self._changed = changed

    def __call__(self, _topic: str, message: bytes) -> None:
        """Take one message, or count why it is not taken.

        Raises:
            DeliverAgainError: the store cannot take it; the broker keeps it.
        """
        listener = self._listener
        try:
            grant, told = open_from_gateway(
                message, device=listener.device_id, believe=self._believed
            )
            with listener.mailbox() as mailbox:
                self._take(mailbox, grant, told)
        except (WireError, NoticeRefusedError) as error:
            listener.counters.refuse(error)
            return
        except InputError as error:
            logger.warning("what a gateway said is not taken: %s", error)
            return
        except (StoreError, IdentityError) as error:
            raise DeliverAgainError(str(error)) from error
        self._changed()

    def _believed(self, envelope: str) -> DeviceGrant:
        now = self._grant_time()
        return DeviceGrant.from_envelope(envelope, self._listener.trusted, now)

    def _take(self, mailbox: Mailbox, grant: DeviceGrant, told: Any) -> None:
        match told:
            case RoundOffer() | CountOffer():
                self._take_offer(mailbox, grant, told)
            case MissingParts():
                self._take_question(mailbox, grant, told)
            case StepRelease():
                self._take_release(mailbox, grant, told)

    def _take_offer(
        self, mailbox: Mailbox, grant: DeviceGrant, offer: RoundOffer | CountOffer
    ) -> None:
        now = self._listener.clock()
        with mailbox.transaction():
            judged = judge_offer(
                offer,
                grant,
                kept=kept_step(mailbox),
                agrees=mailbox.consents()[Purpose.TRAINING].granted,
                is_stopped=Purpose.TRAINING.value in stopped(mailbox),
                now=moment_of(now.timestamp()),
            )
            if judged.todo is Todo.SEND_AGAIN:
                put_out_again(mailbox, judged.step, range(len(judged.step.parts)))
                return
            take_back(mailbox, self._listener.device_id)
            keep_step(mailbox, judged.step)

    def _take_question(self, mailbox: Mailbox, grant: DeviceGrant, question: MissingParts) -> None:
        now = self._listener.clock()
        with mailbox.transaction():
            kept = kept_step(mailbox)
            numbers = parts_to_send_again(
                question,
                grant,
                kept=kept,
                agrees=allowed(mailbox, Purpose.TRAINING),
                now=moment_of(now.timestamp()),
            )
            if kept is not None:
                put_out_again(mailbox, kept, numbers)

    def _take_release(self, mailbox: Mailbox, grant: DeviceGrant, message: StepRelease) -> None:
        self._device_at(self._listener.clock()).keep_receipt(message.receipt)
        with mailbox.transaction():
            closed = after_release(message, grant, kept=kept_step(mailbox))
            if closed is not None:
                take_back(mailbox, self._listener.device_id)
                keep_step(mailbox, closed)


def put_out_again(mailbox: Mailbox, step: KeptStep, numbers: Iterable[int]) -> None:
    """Put parts of an answer into the outbox, except those that still wait there."""
    topic = up(step.offer.device, Up.CONTRIBUTION)
    waiting = {message.payload for message in mailbox.outbox() if message.topic == topic}
    chosen = [(topic, part) for number in numbers if (part := step.parts[number]) not in waiting]
    if not chosen:
        return
    try:
        mailbox.put_out_many(Purpose.TRAINING, chosen)
    except ConsentMissingError as error:
        raise NoticeRefusedError("no_consent", str(error)) from None


def take_back(mailbox: Mailbox, device_id: str) -> None:
    """Take what waits of earlier answers out of the outbox: nobody counts it any more."""
    topic = up(device_id, Up.CONTRIBUTION)
    gone = [message.number for message in mailbox.outbox() if message.topic == topic]
    if gone:
        mailbox.sent(*gone)
