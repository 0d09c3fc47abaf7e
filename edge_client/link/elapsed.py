"""Time on a clock that never jumps."""

from __future__ import annotations

import time


def left_s(deadline: float) -> float:
    """Return the seconds until a moment of the monotonic clock, 0 where it has passed."""
    return max(0.0, deadline - time.monotonic())


def elapsed_s() -> float:
    """Return seconds on a clock that never jumps, and that counts on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
