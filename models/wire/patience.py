"""How long a link waits before it connects again. No IO, no clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from .link_settings import LinkSettings

STEADY_AFTER_S = 60.0
"""A connection that stood for so long was a good one; the next loss is answered quickly again."""
MOST_FAULTS = 2
"""A session that brings packets of impossible size so often is given up for a clean one."""
FAULTS_WITHIN_S = 3_600.0
"""So close together they are one session's doing, which brings a packet again and again."""
_MOST_DOUBLINGS = 32


class Patience:
    """Full jitter (Brooker 2015): uniform between 0 and a bound that doubles.

    The bound begins anew only after a connection that stood: where two clients push each other out
    of one session, each of their connections succeeds, and none lasts.

    Args:
        jitter: source of the random waits.

    Attributes:
        is_spent: whether connecting would cost what is not there; then waits are the longest ones.
    """

    def __init__(self, jitter: Random) -> None:
        self.is_spent: Callable[[], bool] = lambda: False
        self._jitter = jitter
        self._waits = 0
        self._online_since_s: float | None = None

    def came_online(self, now_s: float) -> None:
        """Note that a connection stands."""
        self._online_since_s = now_s

    def was_lost(self, now_s: float, *, counts_as_good: bool = True) -> None:
        """Note that it does not any more.

        Args:
            now_s: on a clock that never jumps, seconds.
            counts_as_good: whether it was, if it stood for long enough.
        """
        since_s, self._online_since_s = self._online_since_s, None
        if counts_as_good and since_s is not None and now_s - since_s >= STEADY_AFTER_S:
            self._waits = 0

    def next_wait_s(self, settings: LinkSettings) -> float:
        """Return the seconds to wait before the next attempt."""
        if self.is_spent():
            return self._jitter.uniform(settings.longest_wait_s / 2, settings.longest_wait_s)
        bound = min(settings.longest_wait_s, settings.first_wait_s * 2.0**self._waits)
        self._waits = min(self._waits + 1, _MOST_DOUBLINGS)
        return self._jitter.uniform(0.0, bound)


class SessionFaults:
    """Packets of impossible size that a broker sent, and whether its session is to blame."""

    def __init__(self) -> None:
        self._at_s = deque[float](maxlen=MOST_FAULTS)

    def note(self, now_s: float) -> None:
        """Note one; `now_s` is of a clock that never jumps, seconds."""
        self._at_s.append(now_s)

    def forget(self) -> None:
        """Begin anew, with a clean session."""
        self._at_s.clear()

    @property
    def are_too_many(self) -> bool:
        """Whether the last ones came so close together that the session should go."""
        return len(self._at_s) == MOST_FAULTS and self._at_s[-1] - self._at_s[0] <= FAULTS_WITHIN_S
