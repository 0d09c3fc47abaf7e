"""How often one address may try: token buckets, bounded in number. No IO, no clock."""

from __future__ import annotations

from collections import OrderedDict

MOST_ADDRESSES = 10_000


class RateLimit:
    """Buckets that fill steadily; one a caller, and none for those forgotten longest.

    Args:
        per_minute: tries that a caller regains in a minute.
        at_once: tries that it has at first.
    """

    def __init__(self, *, per_minute: float, at_once: int) -> None:
        self._per_s = per_minute / 60
        self._at_once = float(at_once)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, *, elapsed_s: float) -> bool:
        """Take a try, and tell whether there was one left.

        Args:
            caller: who tries.
            elapsed_s: on a clock that never jumps, seconds.
        """
        left, since_s = self._buckets.pop(caller, (self._at_once, elapsed_s))
        left = min(self._at_once, left + (elapsed_s - since_s) * self._per_s)
        is_granted = left >= 1.0
        self._buckets[caller] = (left - 1.0 if is_granted else left, elapsed_s)
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return is_granted

    def give_back(self, caller: str) -> None:
        """Return a try that turned out well."""
        if caller in self._buckets:
            left, since_s = self._buckets[caller]
            self._buckets[caller] = (min(self._at_once, left + 1.0), since_s)
