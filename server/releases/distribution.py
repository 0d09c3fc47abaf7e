"""Whether devices of a ring are told something else than before: net shifts of bands, in intervals.

Each device is compared with itself: what its last summary said before the ring began, and what it
says under the new model. A model that is as well calibrated as the one before moves some devices up
and others down, and leaves the shares where they were; what batteries age meanwhile is taken off by
the devices that are not in the ring. The share that moved up less the share that moved down, in the
ring less elsewhere, gets an interval by MOVER (Zou & Donner 2008, "Construction of confidence
limits about effect measures", Statistics in Medicine 27, section 2) from Wilson's intervals for
each share, with the correlation of shares of one multinomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from models.wire.bands import DaysBand
from privacy.audit.bounds import upper_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Question(StrEnum):
    """What is asked of a summary, yes or no; more of it is more alarm."""

    FLAGGED = "flagged"
    UNDER_7_DAYS = "under_7_days"
    UNDER_30_DAYS = "under_30_days"
    UNDER_90_DAYS = "under_90_days"


_DAYS = tuple(DaysBand)


@dataclass(frozen=True, slots=True)
class Bands:
    """What is kept of a summary for the comparison.

    Attributes:
        flagged: whether the model's threshold is reached.
        days: the band of days.
    """

    flagged: bool
    days: DaysBand

    def says(self, question: Question) -> bool:
        """Return the answer to one question."""
        if question is Question.FLAGGED:
            return self.flagged
        most = {Question.UNDER_7_DAYS: 0, Question.UNDER_30_DAYS: 1, Question.UNDER_90_DAYS: 2}
        return _DAYS.index(self.days) <= most[question]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"flagged": self.flagged, "days": self.days.value}

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Bands:
        """Read it.

        Raises:
            ValueError: it names no band.
            KeyError: a field is missing.
        """
        return Bands(bool(kept["flagged"]), DaysBand(kept["days"]))


@dataclass(frozen=True, slots=True)
class Moves:
    """How devices answer one question after, beside before.

    Attributes:
        num_devices: compared.
        more: that say yes and said no.
        fewer: that say no and said yes.
    """

    num_devices: int
    more: int
    fewer: int


@dataclass(frozen=True, slots=True)
class Shift:
    """A net shift with its interval, as shares of devices.

    Attributes:
        value: share that moved up less the share that moved down, less the same elsewhere.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def moves(pairs: Iterable[tuple[Bands, Bands]], question: Question) -> Moves:
    """Count how devices moved; each pair is what one said before, and after."""
    num_devices = more = fewer = 0
    for before, after in pairs:
        num_devices += 1
        was, is_now = before.says(question), after.says(question)
        more += is_now and not was
        fewer += was and not is_now
    return Moves(num_devices, more, fewer)


def net_shift(ring: Moves, elsewhere: Moves | None, *, alpha: float) -> Shift:
    """Return the net shift in a ring beyond that elsewhere.

    Args:
        ring: devices with the new model.
        elsewhere: devices that keep the old one over the same time; None or empty: nothing is
            taken off.
        alpha: probability that the interval does not hold the truth.

    Raises:
        ValueError: the ring has no device that can be compared.
    """
    if ring.num_devices < 1:
        raise ValueError("a net shift needs at least one device, got none")
    z = NormalDist().inv_cdf(1 - alpha / 2)
    value, below, above = _one_group(ring, z)
    if elsewhere is None or elsewhere.num_devices < 1:
        return Shift(value, value - below, value + above)
    other, other_below, other_above = _one_group(elsewhere, z)
    difference = value - other
    return Shift(
        difference,
        difference - math.hypot(below, other_above),
        difference + math.hypot(above, other_below),
    )


def _one_group(group: Moves, z: float) -> tuple[float, float, float]:
    """Return the net share, and how far the interval reaches below and above it."""
    n = group.num_devices
    up, down = group.more / n, group.fewer / n
    up_low, up_high = _wilson(group.more, n, z)
    down_low, down_high = _wilson(group.fewer, n, z)
    spread = (1 - up) * (1 - down)
    correlation = 0.0 if spread <= 0 else -math.sqrt(up * down / spread)
    below = _joined(up - up_low, down_high - down, correlation)
    above = _joined(up_high - up, down - down_low, correlation)
    return up - down, below, above


def _joined(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))


def _wilson(count: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share."""
    share = count / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == n else min(1.0, middle + half)
    return low, high


def least_share(count: int, n: int, *, alpha: float) -> float:
    """Return the lower bound of a share, exact (Clopper & Pearson 1934), one-sided.

    Args:
        count: of failures.
        n: of attempts.
        alpha: probability that the share is below the bound.
    """
    return 1.0 - upper_rate(n - count, trials=n, alpha=alpha)
