"""Messages that came over a link: who takes them, alone or in groups, and when they are done."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import DeliverAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .link_settings import LinkCounters

    Handler = Callable[[str, bytes], None]
    BatchHandler = Callable[[Sequence[tuple[str, bytes]]], None]
    Acknowledge = Callable[[int, int], object]

logger = logging.getLogger(__name__)

GROUP = 20
"""Messages at most that are handed over together: the broker sends no more unacknowledged ones."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who takes the messages on some topics.

    Attributes:
        pattern: matches their topics.
        one: takes them one by one; None where `many` does.
        many: takes those that have come together, in order.
    """

    pattern: re.Pattern[str]
    one: Handler | None = None
    many: BatchHandler | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that came and is not acknowledged yet.

    Attributes:
        topic: on which it came.
        payload: its bytes.
        packet_id: to acknowledge it by.
        qos: with which it came.
    """

    topic: str
    payload: bytes
    packet_id: int
    qos: int


class Inbound:
    """Hands messages to those who take them, in the link's one thread.

    Args:
        counters: of the link.

    Attributes:
        routes: who takes what; the first that matches.
        is_held: whether a message could not be kept: all that come after it wait with the broker.
        was_held: whether none could be kept since.
    """

    def __init__(self, counters: LinkCounters) -> None:
        self.routes: list[Route] = []
        self.is_held = False
        self.was_held = False
        self._counters = counters
        self._group: list[Arrived] = []
        self._group_for: Route | None = None

    @property
    def has_group(self) -> bool:
        """Whether messages wait to be handed over together."""
        return bool(self._group)

    def receive(self, arrived: Arrived, acknowledge: Acknowledge) -> None:
        """Hand a message over, or let it wait for those that come with it."""
        route = self._route_of(arrived.topic)
        if route is not self._group_for:
            # Acknowledgements keep the order of the messages.
            self.hand_over(acknowledge)
        if self.is_held:
            return
        if route is None:
            self._counters.unrouted += 1
            acknowledge(arrived.packet_id, arrived.qos)
        elif route.one is not None:
            if self._handle(route.one, arrived.topic, arrived.payload):
                acknowledge(arrived.packet_id, arrived.qos)
        else:
            self._group.append(arrived)
            self._group_for = route
            if len(self._group) >= GROUP:
                self.hand_over(acknowledge)

    def hand_over(self, acknowledge: Acknowledge) -> None:
        """Have what has come together kept, and acknowledge it."""
        group, route = self._group, self._group_for
        self._group, self._group_for = [], None
        if not group or route is None or route.many is None:
            return
        take = route.many
        try:
            take([(message.topic, message.payload) for message in group])
        except DeliverAgainError as error:
            self._leave_with_broker(len(group), error)
            return
        except Exception:
            logger.exception("a handler failed; its messages are tried one by one")
        else:
            self._counters.received += len(group)
            self.was_held = False
            for message in group:
                acknowledge(message.packet_id, message.qos)
            return
        for message in group:
            if not self._handle(lambda *one: take([one]), message.topic, message.payload):
                return
            acknowledge(message.packet_id, message.qos)

    def _handle(self, handler: Handler, topic: str, payload: bytes) -> bool:
        """Return whether the message is done with: kept, or gone because its handler failed."""
        try:
            handler(topic, payload)
        except DeliverAgainError as error:
            self._leave_with_broker(1, error)
            return False
        except Exception:
            self._counters.handler_errors += 1
            logger.exception("a handler failed; its message is gone")
        else:
            self._counters.received += 1
            self.was_held = False
        return True

    def _leave_with_broker(self, num_messages: int, error: DeliverAgainError) -> None:
        self._counters.left_unacknowledged += num_messages
        self.is_held = self.was_held = True
        logger.warning("a message stays with the broker: %s", error)

    def _route_of(self, topic: str) -> Route | None:
        for route in self.routes:
            if route.pattern.fullmatch(topic):
                return route
        return None


def pattern_of(topic_filter: str) -> re.Pattern[str]:
    """Return what matches the topics of an MQTT filter."""
    body = re.escape(topic_filter).replace(r"\+", "[^/]*")
    return re.compile(re.sub(r"(^|/)\\#$", "(?:$|\\1.*)", body), re.DOTALL)
