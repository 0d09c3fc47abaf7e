"""When a device renews its certificate, and what time it is where its clock may be wrong.

A certificate is renewed in the last third of its life. What counts is the fleet's time: as the
enrolment service told it in this process, else the device's clock, which cannot be right and before
what the service said when the certificate came. A device that is not let in for a quarter of an
hour asks the service for the time: a clock that stands or leaps is found out so, and a certificate
that is over is renewed all the same, for the device's own signing key speaks for it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from models.wire.link_settings import LinkTls

from ..errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from random import Random

    from .identity import DeviceIdentity
    from .membership import Membership

logger = logging.getLogger(__name__)

LAST_PART = 1 / 3
"""Of a certificate's life, in which it is renewed."""
CLOCK_TOLERANCE = timedelta(hours=1)
FIRST_WAIT_S = 300.0
LONGEST_WAIT_S = 6 * 3600.0
LOST_FOR_S = 900.0
"""A link that is down for so long may be so for its certificate or its clock."""
_MOST_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class KnownTime:
    """What the service's clock said, and when by one that never jumps, seconds."""

    server_time: datetime
    elapsed_s: float


def fleet_time(
    known: KnownTime | None, *, floor: datetime, now: datetime, elapsed_s: float
) -> datetime:
    """Return the best that a device knows of the time.

    Args:
        known: what the service said in this process, None for nothing.
        floor: what it said when the certificate came.
        now: the device's clock.
        elapsed_s: on a clock that never jumps.
    """
    if known is not None:
        return known.server_time + timedelta(seconds=elapsed_s - known.elapsed_s)
    return max(now, floor)


def is_renewal_due(membership: Membership, at: datetime) -> bool:
    """Tell whether a certificate is in the last third of its life, or over."""
    life = membership.not_after - membership.server_time
    return at >= membership.not_after - life * LAST_PART


class CertificateKeeper:
    """Renews a device's certificate in a thread of its own, and knows whether its clock is wrong.

    Args:
        store: path of the device's store.
        identity: its own keys.
        membership: as it is on disk.
        clock: the device's time.
        elapsed_s: seconds on a clock that never jumps.
        jitter: source of random waits.
    """

    def __init__(
        self,
        store: Path,
        identity: DeviceIdentity,
        membership: Membership,
        *,
        clock: Callable[[], datetime],
        elapsed_s: Callable[[], float],
        jitter: Random,
    ) -> None:
        self.membership = membership
        self._store = store
        self._identity = identity
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._jitter = jitter
        self._known: KnownTime | None = None
        self._thread: threading.Thread | None = None
        self._next_try_s = 0.0
        self._tries = 0
        self._last_online_s = elapsed_s()
        self._problem: str | None = None

    def clock_is_wrong(self) -> bool:
        """Tell whether the device's clock is known to be wrong."""
        now = self._clock()
        if self._known is not None:
            at = self._fleet_time(now, self._elapsed_s())
            return abs(at - now) > CLOCK_TOLERANCE
        return now < self.membership.server_time - CLOCK_TOLERANCE

    def time(self) -> datetime:
        """Return the best that is known of the time, never before what the service said last."""
        return self._fleet_time(self._clock(), self._elapsed_s())

    def link_tls(self) -> LinkTls:
        """Return how the link speaks TLS at its next connection."""
        return LinkTls(
            authorities=self.membership.authorities,
            certificate=self.membership.certificate,
            looks_at_time=not self.clock_is_wrong(),
        )

    def poll(self, *, now: datetime, elapsed_s: float, is_connected: bool) -> None:
        """Begin what is due; never waits for it.

        Args:
            now: the device's clock.
            elapsed_s: on a clock that never jumps.
            is_connected: whether the broker lets the device in.
        """
        if is_connected:
            self._last_online_s = elapsed_s
        if elapsed_s < self._next_try_s or self.is_busy():
            return
        is_lost = elapsed_s - self._last_online_s >= LOST_FOR_S
        is_due = is_renewal_due(self.membership, self._fleet_time(now, elapsed_s))
        if not is_due and not is_lost:
            return
        bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**self._tries)
        self._tries = min(self._tries + 1, _MOST_DOUBLINGS)
        self._next_try_s = elapsed_s + self._jitter.uniform(bound / 2, bound)
        self._thread = threading.Thread(target=self._try, name="fedcell-renewal", daemon=True)
        self._thread.start()

    def is_busy(self) -> bool:
        """Tell whether a thread asks the service just now."""
        return self._thread is not None and self._thread.is_alive()

    def _try(self) -> None:
        try:
            self._ask()
        except EdgeError as error:
            if str(error) != self._problem:
                logger.warning("the certificate is not renewed: %s", error)
            self._problem = str(error)
        except Exception:
            logger.exception("the certificate is not renewed")

    def _ask(self) -> None:
        # 4 MB that a device needs once in three weeks.
        from .joining import renew, service_of

        told = service_of(self.membership, looks_at_time=False).time()
        # Only forward: what the service said when the certificate came was its clock, too.
        self._known = KnownTime(max(told, self.membership.server_time), self._elapsed_s())
        at = self._fleet_time(self._clock(), self._elapsed_s())
        if not is_renewal_due(self.membership, at):
            return
        self.membership = renew(
            self._store, self._identity, looks_at_time=not self.clock_is_wrong()
        )
        self._tries, self._problem = 0, None
        logger.info("the certificate is renewed until %s", self.membership.not_after.isoformat())

    def _fleet_time(self, now: datetime, elapsed_s: float) -> datetime:
        floor = self.membership.server_time
        return fleet_time(self._known, floor=floor, now=now, elapsed_s=elapsed_s)
