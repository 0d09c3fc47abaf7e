"""When a part of a deployment is started again, and when it is given up. No IO, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CALM_S = 120.0
"""A part that lived so long begins to count its deaths anew."""
SILENCE_S = 60.0
"""A part that lives and answers nothing for so long is ended, and started again."""
START_S = 60.0
"""In which a part must be ready; importing Flower on a busy machine takes ten seconds."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What a supervisor remembers of one part. Times are seconds of a monotonic clock.

    Attributes:
        deaths: in a row, without a calm time between.
        started_at: when its process was started.
        ready_at: when this process was first ready, None before.
        was_ready: whether any of its processes ever was.
        answered_at: when it last gave an answer.
        due_at: when the next process may be started.
    """

    deaths: int = 0
    started_at: float = 0.0
    ready_at: float | None = None
    was_ready: bool = False
    answered_at: float = 0.0
    due_at: float = 0.0

    def begun(self, now: float) -> PartRecord:
        """Return the record once a process was started."""
        return replace(self, started_at=now, ready_at=None, answered_at=now)

    def answered(self, now: float) -> PartRecord:
        """Return the record once the process has shown that it works."""
        first = now if self.ready_at is None else self.ready_at
        return replace(self, ready_at=first, was_ready=True, answered_at=now)

    def died(self, now: float) -> PartRecord:
        """Return the record once the process has ended: the next one waits, longer each time."""
        was_calm = self.ready_at is not None and now - self.ready_at >= CALM_S
        deaths = 1 if was_calm else self.deaths + 1
        return replace(self, deaths=deaths, ready_at=None, due_at=now + pause_after(deaths))

    def asked_to_end(self, now: float) -> PartRecord:
        """Return the record once the process has ended because it was told to read files anew."""
        return replace(self, ready_at=None, due_at=now)

    @property
    def is_hopeless(self) -> bool:
        """Whether it ended before any of its processes was ready: what it is told is wrong."""
        return self.deaths > 0 and not self.was_ready

    def hangs(self, now: float) -> bool:
        """Tell whether its process lives and has been silent for too long."""
        patience = SILENCE_S if self.ready_at is not None else START_S
        return now - self.answered_at >= patience


def pause_after(deaths: int) -> float:
    """Return the seconds after the n-th death in a row: 1, 2, 4, … up to a minute."""
    exponent = min(max(deaths, 1) - 1, 16)
    return float(min(FIRST_PAUSE_S * 2**exponent, LONGEST_PAUSE_S))
