"""What waits in the store's outbox, on its way to the broker: many at once, confirmed in groups.

A message leaves the outbox once the broker has acknowledged it. While one is on its way it is not
handed over a second time: paho sends it again itself after a lost connection.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.errors import LinkError
from models.wire.link import IN_FLIGHT_WINDOW

from .traffic import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.wire.delivery import Delivery
    from models.wire.link import Link

    from ..store.mailbox import Mailbox, OutgoingMessage
    from .counters import AgentCounters
    from .traffic import TrafficMeter

logger = logging.getLogger(__name__)

GROUP = 50
"""Confirmations that are noted in one transaction, where so many come together."""
AHEAD = IN_FLIGHT_WINDOW + 4 * GROUP
"""Messages handed to the link at most: its window stays full while a group is noted."""
PATIENCE_S = 5.0
STALLED_S = 60.0
"""After so long without any answer a connection is taken for dead, though it looks alive."""
MAX_ATTEMPTS = 5


@dataclass(slots=True)
class _OnItsWay:
    number: int
    delivery: Delivery
    since_s: float


class OutboxSender:
    """Moves the outbox to the broker; use it from one thread.

    Args:
        mailbox: the store's.
        link: to the broker.
        meter: says what may leave today.
        counters: shared with the agent.
        elapsed_s: a clock that never jumps, seconds.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        link: Link,
        *,
        meter: TrafficMeter,
        counters: AgentCounters,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mailbox = mailbox
        self._link = link
        self._meter = meter
        self._counters = counters
        self._elapsed_s = elapsed_s
        self._on_its_way: deque[_OnItsWay] = deque()
        self._attempts: dict[int, int] = {}
        self._last_answer_s = elapsed_s()

    def pump(self, *, patience_s: float = PATIENCE_S) -> None:
        """Send what waits and may leave, and note what the broker took.

        Args:
            patience_s: how long to wait for the broker's next answer.

        Raises:
            StoreError: what was confirmed is noted at the next call.
        """
        waiting = self._waiting()
        while True:
            self._hand_over(waiting)
            if not self._on_its_way:
                return
            wanted = self._on_its_way[min(GROUP, len(self._on_its_way)) - 1]
            is_answered = _wait(wanted.delivery, patience_s)
            self._note_answers()
            if not is_answered:
                self._renew_where_stalled()
                return

    def _waiting(self) -> deque[OutgoingMessage]:
        known = {one.number for one in self._on_its_way}
        return deque(
            message
            for message in self._mailbox.outbox()
            if message.number not in known
            # Refused again and again: it waits for the next start, others pass it.
            and self._attempts.get(message.number, 0) < MAX_ATTEMPTS
        )

    def _hand_over(self, waiting: deque[OutgoingMessage]) -> None:
        while waiting and len(self._on_its_way) < AHEAD and self._link.is_connected:
            message = waiting.popleft()
            if not self._meter.may_send(kind_of(message.topic)):
                continue
            try:
                delivery = self._link.publish(message.topic, message.payload)
            except LinkError as error:
                logger.debug("stays in the outbox: %s", error)
                return
            self._on_its_way.append(_OnItsWay(message.number, delivery, self._elapsed_s()))

    def _note_answers(self) -> None:
        answered: list[_OnItsWay] = []
        open_still = deque[_OnItsWay]()
        for one in self._on_its_way:
            # Looked at once: answers go on coming in another thread.
            (answered if one.delivery.is_answered else open_still).append(one)
        if not answered:
            return
        self._last_answer_s = self._elapsed_s()
        taken = [one.number for one in answered if one.delivery.confirmed]
        if taken:
            self._mailbox.sent(*taken)
        self._counters.confirmed += len(taken)
        for one in answered:
            if not one.delivery.confirmed:
                self._attempts[one.number] = self._attempts.get(one.number, 0) + 1
        self._on_its_way = open_still

    def _renew_where_stalled(self) -> None:
        if not self._on_its_way or not self._link.is_connected:
            self._last_answer_s = self._elapsed_s()
            return
        since_s = max(self._last_answer_s, self._on_its_way[0].since_s)
        if self._elapsed_s() - since_s > STALLED_S:
            logger.warning("nothing was answered for %.0f s, connecting anew", STALLED_S)
            self._link.renew()
            self._last_answer_s = self._elapsed_s()


def _wait(delivery: Delivery, timeout_s: float) -> bool:
    delivery.wait(timeout_s)
    return delivery.is_answered
