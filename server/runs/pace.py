"""The public schedule in time: so long after a round was released, the next one may invite.

A run waits for its turn as it holds in a pause: it can be watched, paused and cancelled meanwhile.
When the last round was released stands in the ledger, so a run that is taken up again waits no
longer and no shorter than one that never ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from privacy.ledger import entries_of_stream

from .status import EnginePhase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from privacy import LedgerEntry

    from ..engine.rounds import RoundRecord
    from .desk import RunDesk
    from .status import StepProgress

LONGEST_S: Final = 366 * 86_400.0
TURN_LOOK_S: Final = 1.0
"""Seconds between two looks while a run waits for its turn."""


@dataclass(slots=True, kw_only=True)
class Pace:
    """Keeps a run's rounds apart, between the loop over rounds and its desk.

    Attributes:
        desk: of the run.
        every_s: seconds from a round's release to the next invitation; 0 does not wait.
        released_at: when the last round was released, aware UTC; None before the first.
        look_s: seconds between two looks while it waits.
    """

    desk: RunDesk
    every_s: float
    released_at: datetime | None = None
    look_s: float = TURN_LOOK_S

    def take(self, progress: StepProgress) -> None:
        """Hand progress to the desk; between two rounds wait for the turn first.

        Raises:
            RunCancelledError: somebody asked that the run end.
        """
        if progress.phase is EnginePhase.BETWEEN:
            self._await_turn(progress)
        self.desk.take(progress)

    def round_done(self, record: RoundRecord) -> None:
        """Hand a round that is released to the desk, and count from it."""
        self.desk.round_done(record)
        self.released_at = self.desk.clock()
        status = self.desk.status
        if self.every_s and status.eta_at is not None:
            left = timedelta(seconds=self.every_s * (status.num_rounds - status.rounds_done))
            self.desk.status = replace(status, eta_at=status.eta_at + left)

    def _await_turn(self, progress: StepProgress) -> None:
        """Hold until the turn, or one period at most: a clock may have been ahead, or go back."""
        if not self.every_s or self.released_at is None:
            return
        desk, period = self.desk, timedelta(seconds=self.every_s)
        told, due = None, self.released_at + period
        while (now := desk.clock()) < due and not desk.stop.is_set():
            if due > now + period:
                desk.log.say(
                    "warning", "clock_was_ahead", index=progress.index, message=due.isoformat()
                )
                due = now + period
            if due != told:
                told = due
                desk.log.say(
                    "info", "waits_for_its_turn", index=progress.index, message=due.isoformat()
                )
                desk.status = replace(desk.status, next_round_at=due)
            desk.take(progress)
            desk.stop.wait(min(self.look_s, (due - now).total_seconds()))
        desk.status = replace(desk.status, next_round_at=None)


def seconds_between_rounds(value: float) -> float:
    """Return a time between rounds in seconds.

    Raises:
        ValueError: it is negative, or no number.
    """
    if not 0.0 <= value <= LONGEST_S:
        raise ValueError(f"round-every-s must lie in 0..{LONGEST_S:g} (a year), got {value:g}")
    return value


def last_release(entries: Sequence[LedgerEntry], stream: str) -> datetime | None:
    """Return when the last round of a stream was charged; None where none was.

    Args:
        entries: of the ledger, oldest first.
        stream: its name.
    """
    charged = entries_of_stream(entries, stream)
    return charged[-1].at if charged else None
