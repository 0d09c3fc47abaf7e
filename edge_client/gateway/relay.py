"""The gateway on the wire: offers a step to its devices over MQTT, and hears their answers.

The decisions are in `pacing` and `collecting`; here is the link. Messages come in the link's
thread, and the thread that called waits and asks. A connection that is lost comes back by itself,
and what a broker may have forgotten meanwhile is said again: nothing is counted twice for that.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from models.wire.errors import LinkError
from models.wire.inbound import Route, pattern_of
from models.wire.link import Link
from models.wire.site_credential import weights_topic
from models.wire.site_rounds import MissingParts, signed_by_gateway
from models.wire.topics import Down, Up, down, from_all_devices, up

from ..errors import SiteUnreachableError
from .pacing import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from models.wire.inbound import Handler
    from models.wire.link import Delivery
    from models.wire.site_rounds import SiteMessage

    from .collecting import Collection
    from .site import GatewaySite

logger = logging.getLogger(__name__)

TURN_S: Final = 0.1
"""Longest pause between two looks, unless an answer became whole."""
MOST_UNCONFIRMED: Final = 400
CONFIRMED_WITHIN_S: Final = 30.0
CLEARED_WITHIN_S: Final = 1.5


class SiteLink(Link):
    """A link with one handler for many topics, each subscribed to by its own name.

    A wildcard would have the broker look through the access list of every gateway for each message.
    """

    def hear_each(self, topics: Iterable[str], pattern: str, handler: Handler) -> None:
        """Have `handler(topic, payload)` called for messages on some topics; before `connect`.

        Args:
            topics: to subscribe to.
            pattern: filter that matches them all.
            handler: of the messages.
        """
        self._filters += topics
        self._inbound.routes.append(Route(pattern_of(pattern), one=handler))


@dataclass(slots=True)
class Relay:
    """Speaks to the devices of one site.

    Attributes:
        site: the gateway and its devices.
        elapsed_s: now, on a clock that never jumps.
    """

    site: GatewaySite
    elapsed_s: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _news: threading.Event = field(init=False, default_factory=threading.Event)
    _is_over: bool = field(init=False, default=False)

    def collect(
        self,
        collection: Collection,
        *,
        parts: Sequence[bytes],
        offer: Callable[[str, int], SiteMessage],
        budget_s: float,
        retained_before: int,
    ) -> int:
        """Offer a step and take what comes, until all have answered or the time is over.

        Args:
            collection: of the step; holds what came.
            parts: of what all devices read.
            offer: returns the offer to a device, with the seconds that are left to it.
            budget_s: for how long.
            retained_before: parts of an earlier step that may still stand with the broker.

        Returns:
            How many parts may stand there still: 0 once the broker has taken them away.

        Raises:
            SiteUnreachableError: the broker could not be reached in all that time.
        """
        begun_s, self._is_over = self.elapsed_s(), False
        pace = Pace(tuple(collection.invited), begun_s, budget_s, collection.form.num_parts)
        said_at = -1
        with self._heard(collection) as link:
            while not collection.is_complete and self.elapsed_s() - begun_s < budget_s:
                if link.is_connected and link.counters.losses != said_at:
                    said_at = link.counters.losses
                    pace.begin_again()
                    self._retain(link, parts, at_least=retained_before)
                if link.is_connected:
                    self._ask(link, collection, pace, offer, end_s=begun_s + budget_s)
                self._news.wait(TURN_S)
                self._news.clear()
            with self._lock:
                self._is_over = True
            if said_at < 0 and collection.invited:
                raise SiteUnreachableError(
                    f"{self.site.host}:{self.site.port}", "the broker does not answer", "start it"
                )
            left = max(len(parts), retained_before)
            cleared = self._retain(link, (), at_least=left)
            # The sum waits for this: what is not taken away now is taken away by the next step.
            wait_s = CLEARED_WITHIN_S if link.is_connected else 0.0
            return 0 if len(cleared) == left and _all_taken(cleared, wait_s) else left

    def tell(self, messages: Mapping[str, SiteMessage], *, within_s: float) -> int:
        """Say one message to each of some devices, and return how many the broker took.

        Args:
            messages: by device.
            within_s: how long it may take, seconds.

        Raises:
            SiteUnreachableError: the broker does not answer.
        """
        end_s = self.elapsed_s() + within_s
        waiting: list[Delivery] = []
        with self._connected(self._new_link()) as link:
            for device, message in messages.items():
                if len(waiting) >= MOST_UNCONFIRMED:
                    waiting[-MOST_UNCONFIRMED].wait(max(end_s - self.elapsed_s(), 0.0))
                waiting.append(self._say(link, device, message))
            taken = sum(one.wait(max(end_s - self.elapsed_s(), 0.0)) for one in waiting)
        if taken < len(messages):
            logger.warning("%d of %d messages were not taken", len(messages) - taken, len(messages))
        return taken

    def may_publish(self) -> bool:
        """Connect, and tell whether the broker lets this gateway say what devices read.

        Raises:
            SiteUnreachableError: the broker does not answer, or does not let it in.
        """
        with self._connected(self._new_link()) as link:
            said = link.publish(weights_topic(self.site.gateway, 0), b"", retain=True)
            return said.wait(CONFIRMED_WITHIN_S)

    def _ask(
        self,
        link: Link,
        collection: Collection,
        pace: Pace,
        offer: Callable[[str, int], SiteMessage],
        *,
        end_s: float,
    ) -> None:
        now_s = self.elapsed_s()
        with self._lock:
            answered, heard = frozenset(collection.answered), collection.heard()
        left_s = max(1, int(end_s - now_s))
        tag, grants = collection.step.tag.hex(), self.site.site.grants
        try:
            for device in pace.offers(now_s, answered=answered, heard=heard):
                self._say(link, device, offer(device, left_s), expires_in_s=left_s)
            for device, numbers in pace.missing(now_s, answered=answered, heard=heard):
                asked = MissingParts(grant=grants[device], device=device, tag=tag, parts=numbers)
                self._say(link, device, asked, expires_in_s=left_s)
        except LinkError as error:
            logger.warning("devices are asked again later: %s", error)

    def _say(
        self, link: Link, device: str, message: SiteMessage, *, expires_in_s: int | None = None
    ) -> Delivery:
        envelope = signed_by_gateway(message, self.site.identity.signing_key)
        return link.publish(down(device, Down.ROUND), envelope, expires_in_s=expires_in_s)

    def _retain(self, link: Link, parts: Sequence[bytes], *, at_least: int) -> list[Delivery]:
        """Have the broker keep the parts, and nothing in the places after them."""
        said: list[Delivery] = []
        try:
            for number in range(max(len(parts), at_least)):
                part = parts[number] if number < len(parts) else b""
                said.append(
                    link.publish(weights_topic(self.site.gateway, number), part, retain=True)
                )
        except LinkError as error:
            logger.warning("what devices read is said again later: %s", error)
        return said

    def _heard(self, collection: Collection) -> _Connected:
        device_of = {up(device, Up.CONTRIBUTION): device for device in collection.invited}

        def take(topic: str, payload: bytes) -> None:
            with self._lock:
                # What comes from here on finds a sum that may be on its way.
                is_done = not self._is_over and collection.take(
                    device_of.get(topic, topic), payload, now_s=self.elapsed_s()
                )
            if is_done:
                self._news.set()

        link = self._new_link()
        link.hear_each(device_of, from_all_devices(Up.CONTRIBUTION), take)
        return self._connected(link, patiently=True)

    def _new_link(self) -> SiteLink:
        return SiteLink(self.site.link_settings(), jitter=SystemRandom())

    def _connected(self, link: SiteLink, *, patiently: bool = False) -> _Connected:
        return _Connected(link, patiently, f"{self.site.host}:{self.site.port}")


@dataclass(frozen=True, slots=True)
class _Connected:
    """A link for the length of a block."""

    link: SiteLink
    patiently: bool
    broker: str

    def __enter__(self) -> SiteLink:
        try:
            self.link.connect(patiently=self.patiently)
        except LinkError as error:
            raise SiteUnreachableError(self.broker, str(error), "start it, or look at it") from None
        return self.link

    def __exit__(self, *_: object) -> None:
        self.link.close()


def _all_taken(said: Iterable[Delivery], within_s: float) -> bool:
    end_s = time.monotonic() + within_s
    return all(one.wait(max(end_s - time.monotonic(), 0.0)) for one in said)
