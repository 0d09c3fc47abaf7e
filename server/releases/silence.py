"""Whether a model silences its devices: who was heard before a ring began, and has not been since.

A device that hangs under a model, or whose battery it drains, says nothing of it. So silence is
counted: a device is missing that was last heard within one soak before the ring began. Devices that
have been away for longer say nothing either way.

Where devices speak as often as before, fewer go missing than are heard, whatever their habits: of
two spans of equal length as many are heard in the first alone as in the second alone. So more than
half missing after such a span is silence beyond what chance brings; a weekend or a network that is
down takes devices elsewhere, too, and is told from a model by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.audit.bounds import upper_rate

from .distribution import least_share

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

LEAST_ELSEWHERE = 8
"""Devices outside the rings without which nothing is compared."""
MOST_BY_CHANCE = 0.5


@dataclass(frozen=True, slots=True)
class Presence:
    """Who of some devices is heard.

    Attributes:
        heard: devices since the ring began.
        missing: devices that were heard shortly before, and not since.
    """

    heard: int = 0
    missing: int = 0

    @property
    def num_devices(self) -> int:
        """Devices that should be heard."""
        return self.heard + self.missing

    def to_be_heard(self, least: float) -> int:
        """Return how many of the missing have to be heard for a share to be reached."""
        return max(0, math.ceil(least * self.num_devices) - self.heard)


def presence_of(last_seen: Iterable[datetime], *, since: datetime, before: timedelta) -> Presence:
    """Count who is heard and who is missing.

    Args:
        last_seen: when each device was heard last.
        since: when the ring began.
        before: for how long before that a device counts as one that should be heard.
    """
    heard = missing = 0
    for at in last_seen:
        heard += at >= since
        missing += since - before <= at < since
    return Presence(heard, missing)


def silenced(ring: Presence, elsewhere: Presence, *, alpha: float) -> str:
    """Say that devices went silent beyond chance, "" where they did not or nobody can tell.

    Args:
        ring: devices with the model, for as long after as before.
        elsewhere: devices without it.
        alpha: probability of a false alarm.
    """
    if not ring.missing or elsewhere.num_devices < LEAST_ELSEWHERE:
        return ""
    least = least_share(ring.missing, ring.num_devices, alpha=alpha)
    most = upper_rate(elsewhere.missing, trials=elsewhere.num_devices, alpha=alpha)
    if least <= max(MOST_BY_CHANCE, most):
        return ""
    return (
        f"{ring.missing} of {ring.num_devices} devices that spoke before are silent: at least "
        f"{least:.1%}, elsewhere at most {most:.1%}"
    )
