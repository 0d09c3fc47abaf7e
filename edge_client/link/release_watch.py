"""When a device looks for a release: every so often, and sooner where one was announced.

Announcements are heard in the link's thread and kept before the broker may forget them; the looking
itself, which fetches and tries a model out, runs in a thread of its own, so that the agent's loop
goes on. What is heard only decides when to look: a device that hears nothing, or is told lies by
whoever may sign, still runs what the repository's metadata say.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from models.errors import ModelsError
from models.wire.announcements import (
    FLEET_RING,
    RELEASE_FILTERS,
    decode_announcement,
    release_topic,
)
from models.wire.envelope import open_signed
from models.wire.errors import DeliverAgainError, WireError

from ..errors import EdgeError, NoticeRefusedError, StoreError
from ..updates.follower import check_in
from .admission import within_time
from .configuration import in_force

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from random import Random

    from models.wire.announcements import ReleaseAnnouncement
    from models.wire.link import Link

    from ..model_store import ModelStore
    from ..store.mailbox import Mailbox
    from ..updates.follower import ReleaseSource
    from .listener import Listener

logger = logging.getLogger(__name__)

ANNOUNCEMENT_FACT = "release_announcement"
FIRST_LOOK_S = 600.0
"""Seconds after its start within which a device looks for the first time, at random."""
AGAIN_S = 900.0
"""Seconds after which it looks again where the repository could not be reached."""


def ring_of_device(mailbox: Mailbox) -> str:
    """Return the ring that this device was told, the fleet's where it was told none."""
    return str(in_force(mailbox).get("ring", FLEET_RING))


def keep_announcement(
    mailbox: Mailbox, told: ReleaseAnnouncement, *, topic: str, now: datetime
) -> bool:
    """Remember the latest announcement.

    Args:
        mailbox: of the device.
        told: genuine.
        topic: on which it came.
        now: the device's time.

    Returns:
        Whether it makes this device look: False for another ring's, and for one that came before.

    Raises:
        NoticeRefusedError: `replayed`: a later one was heard; `expired`; or `foreign_ring`: it
            came on the topic of another ring than it names.
    """
    if release_topic(told.ring) != topic:
        raise NoticeRefusedError("foreign_ring", f"{told.ring} was announced on {topic[:80]}")
    if told.ring != ring_of_device(mailbox):
        return False
    before = mailbox.fact(ANNOUNCEMENT_FACT)
    known = before if isinstance(before, dict) else {}
    last = known.get("sequence", -1) if known.get("ring") == told.ring else -1
    if told.sequence == last:
        return False
    if told.sequence < last:
        raise NoticeRefusedError("replayed", f"announcement {told.sequence} is not above {last}")
    if not within_time(told.expires, now=now):
        raise NoticeRefusedError("expired", f"it was to be heard until {told.expires}")
    mailbox.keep_fact(
        ANNOUNCEMENT_FACT,
        {
            "sequence": told.sequence,
            "ring": told.ring,
            "release": told.release,
            "version": told.version,
        },
    )
    return True


class ReleaseWatch:
    """Looks for releases when it is time; `poll` it from the agent's loop.

    Args:
        models: of the device.
        source: where releases come from.
        check_every_s: seconds between two looks.
        jitter: source of random waits.
        clock: the device's time.
        backend: that a bundle is tried out on; None takes the best of this machine.
    """

    def __init__(
        self,
        models: ModelStore,
        source: ReleaseSource,
        *,
        check_every_s: float,
        jitter: Random,
        clock: Callable[[], datetime],
        backend: str | None = None,
    ) -> None:
        self._models = models
        self._source = source
        self._check_every_s = check_every_s
        self._jitter = jitter
        self._clock = clock
        self._backend = backend
        self._wake: Callable[[], None] = lambda: None
        self._next_s: float | None = None
        self._within_s: float | None = None
        self._ring: str | None = None
        self._thread: threading.Thread | None = None
        self._has_news = False

    def listen(self, link: Link, listener: Listener, *, wake: Callable[[], None]) -> None:
        """Hear announcements on a link that is not connected yet.

        Args:
            link: to the broker.
            listener: the device; its store is opened anew for each message.
            wake: has the agent's loop look at once.
        """
        self._wake = wake

        def hear(topic: str, message: bytes) -> None:
            try:
                told = decode_announcement(open_signed(message, listener.trusted))
                with listener.mailbox() as mailbox:
                    if not keep_announcement(mailbox, told, topic=topic, now=listener.clock()):
                        return
            except (WireError, NoticeRefusedError) as error:
                listener.counters.refuse(error)
                return
            except StoreError as error:
                raise DeliverAgainError(str(error)) from error
            self._within_s = float(told.spread_s)
            wake()

        for name in RELEASE_FILTERS:
            link.subscribe(name, hear)

    def poll(self, mailbox: Mailbox, *, elapsed_s: float) -> bool:
        """Begin a look where it is time; never waits for it.

        Args:
            mailbox: of the device.
            elapsed_s: now, on a clock that never jumps.

        Returns:
            Whether a look ended that changed what the device runs or has refused.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self._thread = None
            return self._has_news
        ring = ring_of_device(mailbox)
        self._next_s = self._due_s(ring, elapsed_s)
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + self._check_every_s
        self._has_news = False
        self._thread = threading.Thread(
            target=self._look, args=(ring, elapsed_s), name="fedcell-releases", daemon=True
        )
        self._thread.start()
        return False

    def _due_s(self, ring: str, elapsed_s: float) -> float:
        within_s, self._within_s = self._within_s, None
        is_other_ring, self._ring = self._ring not in {None, ring}, ring
        if self._next_s is None:
            within_s = min(FIRST_LOOK_S, self._check_every_s)
            return elapsed_s + self._jitter.uniform(0.0, within_s)
        if is_other_ring:
            return elapsed_s
        if within_s is None:
            return self._next_s
        return min(self._next_s, elapsed_s + self._jitter.uniform(0.0, within_s))

    def _look(self, ring: str, begun_s: float) -> None:
        refused_before = self._models.last_refusal()
        try:
            found = check_in(
                self._models, self._source, ring=ring, now=self._clock(), backend=self._backend
            )
            self._has_news = found is not None
        except (EdgeError, ModelsError) as error:
            logger.warning("no release was taken up: %s", error)
            self._has_news = self._models.last_refusal() != refused_before
            self._next_s = begun_s + min(
                self._check_every_s, self._jitter.uniform(0.5, 1) * AGAIN_S
            )
        self._wake()
