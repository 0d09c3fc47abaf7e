"""Whether a device's clock can be believed when it says that readings are old.

A clock that jumps ahead makes all readings look old at once. How much time has truly passed is told
by the readings themselves, in the order in which they were recorded: a time that has stood for a
month of them is believed, and so is one that was reached without a jump.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING

from models.telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STANDING_S = 31 * SECONDS_PER_DAY
"""So far a clock may advance from reading to reading, and so long a jump must stand."""

_SPAN = 5
_USUAL_GAPS = 3


def has_stood(recorded_at_s: Iterable[int], *, now_s: int, standing_s: int = STANDING_S) -> bool:
    """Whether the device's time was reached without a jump ahead, or has stood since one.

    Each time is replaced by the median of it and the four before: a reading that comes late, or two
    under a clock that was wrong for a moment, are no jump. Who measures once a quarter makes gaps
    as wide as a jump: up to three times the gap before is none.

    Args:
        recorded_at_s: times that the readings claim, seconds, the one recorded last first.
        now_s: the device's time.
        standing_s: a shorter step ahead is no jump, and a jump that is as old is believed.
    """
    medians = pairwise(chain(_medians(recorded_at_s), (None,)))
    later_s = now_s
    for at_s, before_s in medians:
        if at_s is None or at_s > now_s:
            # Recorded under a clock that has been set back since.
            continue
        if at_s <= now_s - standing_s:
            gap_s = later_s - at_s
            gap_before_s = 0 if before_s is None else at_s - before_s
            return gap_s <= max(standing_s, _USUAL_GAPS * gap_before_s)
        later_s = at_s
    return True


def _medians(times: Iterable[int]) -> Iterator[int]:
    found = iter(times)
    span = deque(islice(found, _SPAN), _SPAN)
    while span:
        yield sorted(span)[(len(span) - 1) // 2]
        following = next(found, None)
        if following is None:
            span.popleft()
        else:
            span.append(following)
