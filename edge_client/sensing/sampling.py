"""When to take the next reading: decided by a clock that no one sets.

`elapsed_s` is a clock that counts on during sleep and never jumps, such as Linux's CLOCK_BOOTTIME.
The wall clock dates readings; it decides nothing here but how long ago the last run of the machine
took its last reading. So a wall clock set ten years back or forth neither floods the store nor
starves it, and after a night's sleep one reading is taken, not four.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

EVERY_S = 6 * 3600.0
LOOK_EVERY_S = 600.0
RETRY_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How often a sensor is read.

    Attributes:
        every_s: seconds between readings.
        look_every_s: seconds between looks at the gauge in between.
        retry_s: seconds after which a sensor that failed is asked again.
    """

    every_s: float = EVERY_S
    look_every_s: float = LOOK_EVERY_S
    retry_s: float = RETRY_S

    def __post_init__(self) -> None:
        """Refuse intervals that cannot be."""
        for name in ("every_s", "look_every_s", "retry_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the next reading and the next look are due; all in seconds of `elapsed_s`.

    Attributes:
        settings: how often.
        phase_s: where this device's grid of readings begins.
        reading_at_s: when the next reading is due.
        look_at_s: when the next look is due.
    """

    settings: SamplingSettings
    phase_s: float
    reading_at_s: float
    look_at_s: float

    def reading_is_due(self, elapsed_s: float) -> bool:
        """Return whether to take a reading now."""
        return elapsed_s >= self.reading_at_s

    def look_is_due(self, elapsed_s: float) -> bool:
        """Return whether to look at the gauge now."""
        return elapsed_s >= self.look_at_s

    def wait_s(self, elapsed_s: float) -> float:
        """Return the seconds until something is due, 0 where it is already."""
        return max(0.0, min(self.reading_at_s, self.look_at_s) - elapsed_s)


def offset_s(device_id: str, every_s: float) -> float:
    """Return where within the interval a device takes its readings, from its identifier.

    A street that gets its power back at one moment does not talk at one moment ever after.
    """
    drawn = int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:8], "big")
    return every_s * drawn / 2**64


def begin(
    settings: SamplingSettings,
    *,
    device_id: str,
    elapsed_s: float,
    since_last_s: float | None,
) -> Schedule:
    """Return the schedule at the start of a process.

    Args:
        settings: how often.
        device_id: decides the device's offset.
        elapsed_s: now.
        since_last_s: age of the last reading, None where it is not known: then one is due now.
    """
    phase_s = elapsed_s + offset_s(device_id, settings.every_s)
    due_in_s = 0.0 if since_last_s is None else settings.every_s - since_last_s
    return Schedule(
        settings=settings,
        phase_s=phase_s,
        reading_at_s=elapsed_s + min(max(due_in_s, 0.0), settings.every_s),
        look_at_s=elapsed_s,
    )


def after_reading(schedule: Schedule, elapsed_s: float) -> Schedule:
    """Return the schedule after a reading: the grid's next point, half an interval away or more.

    Points of the grid that were slept through are not made up for.
    """
    every_s = schedule.settings.every_s
    earliest_s = elapsed_s + every_s / 2
    steps = -((schedule.phase_s - earliest_s) // every_s)
    return replace(
        schedule,
        reading_at_s=schedule.phase_s + max(steps, 0.0) * every_s,
        look_at_s=elapsed_s + schedule.settings.look_every_s,
    )


def after_look(schedule: Schedule, elapsed_s: float) -> Schedule:
    """Return the schedule after a look that was no reading."""
    return replace(schedule, look_at_s=elapsed_s + schedule.settings.look_every_s)


def after_failure(schedule: Schedule, elapsed_s: float) -> Schedule:
    """Return the schedule after a sensor failed: it is asked again soon, not at once."""
    again_s = elapsed_s + schedule.settings.retry_s
    return replace(schedule, reading_at_s=again_s, look_at_s=again_s)


def age_s(last_reading_at: datetime | None, now: datetime) -> float | None:
    """Return how long ago a reading was taken, by the wall clock.

    Returns:
        None where there was none, or where it lies ahead: then the clock was set back, and how long
        ago it was is not known.
    """
    if last_reading_at is None or last_reading_at > now:
        return None
    return (now - last_reading_at) / timedelta(seconds=1)
