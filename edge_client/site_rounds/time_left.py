"""How long an offer still counts: from its receipt, on a clock that never jumps. No IO.

A gateway says how many seconds are left, never until when: devices' clocks are wrong. The clock
that counts on through sleep goes on when the agent is started again, and begins anew when the
machine is; then only the device's time is left to ask, and a time before the receipt's tells
nothing.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..link.elapsed import elapsed_s

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment by both of a device's clocks.

    Attributes:
        boot: names the start of the machine since which `elapsed_s` counts; "" where nothing does.
        elapsed_s: seconds on a clock that never jumps.
        wall_s: the device's time, seconds since 1970; it may be wrong.
    """

    boot: str
    elapsed_s: float
    wall_s: float

    def to_plain(self) -> dict[str, str | float]:
        """Return it as JSON carries it."""
        return {"boot": self.boot, "elapsed_s": self.elapsed_s, "wall_s": self.wall_s}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> Moment:
        """Read it.

        Raises:
            KeyError: a value is missing.
            ValueError: a value is no number.
        """
        return Moment(
            boot=str(values["boot"]),
            elapsed_s=float(values["elapsed_s"]),
            wall_s=float(values["wall_s"]),
        )


def moment_of(wall_s: float) -> Moment:
    """Return the present.

    Args:
        wall_s: the device's time, seconds since 1970.
    """
    boot = ""
    # Without CLOCK_BOOTTIME the other clock may stand still while the machine sleeps.
    if hasattr(time, "CLOCK_BOOTTIME"):
        with suppress(OSError):
            boot = BOOT_ID.read_text(encoding="ascii").strip()
    return Moment(boot=boot, elapsed_s=elapsed_s(), wall_s=wall_s)


def seconds_left(received: Moment, limit_s: float, *, now: Moment) -> float:
    """Return for how long an offer still counts, at most `limit_s`; 0 where it is over.

    Args:
        received: when the offer came.
        limit_s: for how long it counts from then on, seconds.
        now: the present.

    Returns:
        0 also where the machine was started since, and its time is before that of the receipt.
    """
    is_one_life = bool(now.boot) and now.boot == received.boot
    passed_s = now.elapsed_s - received.elapsed_s if is_one_life else now.wall_s - received.wall_s
    return 0.0 if passed_s < 0 else max(0.0, limit_s - passed_s)
