"""How far back readings may leave by age, where the device's clock may be wrong.

A clock that jumps ahead makes all readings look old at once, and so does one that is right after
years in storage: at first nobody can tell the two apart. What can be told is how much time the
readings themselves cover. A reading leaves by age when it is too old by the clock, and by that.

A gap between readings counts in full up to a month, and up to a third of the retention where the
device has made such gaps before. One that is wider than ever counts for a month, then for as much
as was covered after it, and for a third of the retention at most. A time that the clock was set
back from counts for nothing.

So a right clock makes readings leave on the day at any rhythm with gaps up to a third, and what is
from before years in storage after two thirds more in use. A clock that is ahead, however far and
for however long, takes nothing that was recorded less than two thirds of the retention ago, and in
its first month nothing but what is due within one.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from models.telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterable

GAPS_COUNT_ONE_OF = 3
"""The part of the retention that a gap counts for at most: a third."""
STEP_S = 31 * SECONDS_PER_DAY
"""A wider step between two times ends a stretch, which the clock may have been set back from."""
_AS_WIDE = 2
"""So many times as wide as another may be a gap that is no wider than the device makes them."""


class _Stretch(NamedTuple):
    last_s: int
    first_s: int
    last_number: int


def age_limit(recorded: Iterable[tuple[int, int]], *, now_s: int, retention_s: int) -> int | None:
    """Return the time before which readings may leave by age.

    Args:
        recorded: time that a reading claims, seconds, at most `now_s`, and its number in the order
            of recording; the latest time first.
        now_s: the device's time, seconds.
        retention_s: how long readings are kept.

    Returns:
        At most `now_s - retention_s`; None where the readings do not cover so much time.
    """
    widest_s = retention_s // GAPS_COUNT_ONE_OF
    step_s = min(STEP_S, widest_s)
    standing = _standing(_stretches(recorded, step_s=step_s))
    covered_s, later_s = 0, now_s
    for stretch, usual_s in zip(standing, _widest_before(standing), strict=True):
        gap_s = later_s - stretch.last_s
        is_usual = gap_s <= _AS_WIDE * usual_s
        counted_s = min(gap_s, widest_s if is_usual else max(step_s, min(covered_s, widest_s)))
        left_s = retention_s - covered_s
        if counted_s >= left_s:
            return later_s - left_s
        length_s = stretch.last_s - stretch.first_s
        left_s -= counted_s
        if length_s >= left_s:
            return stretch.last_s - left_s
        covered_s += counted_s + length_s
        later_s = stretch.first_s
    return None


def _widest_before(standing: list[_Stretch]) -> list[int]:
    """Return for each stretch the widest gap among those before it, 0 where there is none."""
    gaps = [later.first_s - earlier.last_s for later, earlier in pairwise(standing)]
    return [*accumulate(gaps[::-1], max, initial=0)][::-1][: len(standing)]


def _stretches(recorded: Iterable[tuple[int, int]], *, step_s: int) -> list[_Stretch]:
    """Return times without a wide step between them as one, the latest first."""
    found: list[_Stretch] = []
    last_s = first_s = last_number = 0
    is_begun = False
    for at_s, number in recorded:
        if is_begun and first_s - at_s > step_s:
            found.append(_Stretch(last_s, first_s, last_number))
            is_begun = False
        if not is_begun:
            is_begun, last_s, last_number = True, at_s, number
        first_s = at_s
        last_number = max(last_number, number)
    return [*found, _Stretch(last_s, first_s, last_number)] if is_begun else found


def _standing(stretches: list[_Stretch]) -> list[_Stretch]:
    """Leave out what the clock was set back from: an earlier stretch was added to since."""
    standing: list[_Stretch] = []
    last_number = 0
    for stretch in reversed(stretches):
        if stretch.last_number > last_number:
            standing.append(stretch)
            last_number = stretch.last_number
    return standing[::-1]
