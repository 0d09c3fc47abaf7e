"""Runs whose process has gone are taken up again while the deployment is served.

A ServerApp ends with its SuperExec, and both with the machine. What it had released stands in its
folder, and a run goes on from there to the same bits (ADR 0032), so nobody has to be asked. A run
that failed by itself, was cancelled or is over is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engine.rounds import RoundsError
from ..errors import ServerError
from ..runs.control import read_requests
from ..runs.reading import look_at
from ..runs.status import RunState
from .beginning import begin_run, begun_runs
from .control_api import control_api
from .nodes import freshen_enrolment
from .run_keys import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from ..runs.reading import Look
    from .beginning import BegunRun
    from .control_api import FlowerRun
    from .place import Deployment

MOST_TRIES = 3
"""Without a round between them; then something else is wrong."""
NEWEST = 5
"""Runs that are looked at; older ones are over, or left to the operator."""


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a run was taken up without getting on.

    Attributes:
        rounds_done: of the run, when that was counted.
        number: of tries since.
    """

    rounds_done: int = -1
    number: int = 0

    def again(self, rounds_done: int) -> Tries:
        """Return the count with one more try at a run that has come so far."""
        number = self.number + 1 if rounds_done == self.rounds_done else 1
        return Tries(rounds_done, number)


def has_lost_its_process(look: Look, *, is_cancelled: bool, flower: FlowerRun) -> bool:
    """Tell whether a run stands still because its process was ended, and not by its own error.

    Args:
        look: at the run's folder.
        is_cancelled: whether an operator has asked for its end.
        flower: how Flower says that its newest part stands.
    """
    if look.status is None or is_cancelled or not flower.is_over:
        return False
    state = look.status.state
    return state is RunState.INTERRUPTED or (look.is_gone and not state.is_over)


@dataclass(slots=True)
class RunKeeper:
    """Takes up the runs of a deployment, one at a turn.

    Attributes:
        deployment: whose runs they are.
        clock: gives now, aware UTC.
    """

    deployment: Deployment
    clock: Callable[[], datetime]
    _tries: dict[Path, Tries] = field(default_factory=dict, init=False)

    def turn(self) -> Mapping[str, Any] | None:
        """Take up a run that has lost its process; return what there is to tell."""
        for begun in reversed(begun_runs(self.deployment)[-NEWEST:]):
            try:
                told = self._take_up(begun)
            except (ServerError, RoundsError) as error:
                return {"event": "run_left", "run": str(begun.out), "why": str(error)}
            if told is not None:
                return told
        return None

    def _take_up(self, begun: BegunRun) -> Mapping[str, Any] | None:
        look = look_at(begun.out, now=self.clock())
        if look.status is None or (look.is_over and look.status.state is not RunState.INTERRUPTED):
            return None
        tries = self._tries.get(begun.out, Tries())
        if tries.number >= MOST_TRIES and tries.rounds_done == look.status.rounds_done:
            return None
        with control_api(self.deployment) as api:
            is_cancelled = read_requests(begun.out).cancel is not None
            flower = api.run(begun.run_id)
            if not has_lost_its_process(look, is_cancelled=is_cancelled, flower=flower):
                return None
            online = freshen_enrolment(self.deployment, begun.said)
            if online < int(whole(begun.said)["least-nodes"]):
                return None
            self._tries[begun.out] = tries = tries.again(look.status.rounds_done)
            keys = {**begun.said, "resume": 1}
            again = begin_run(api, self.deployment, keys, number=begun.number, now=self.clock())
        return {
            "event": "run_taken_up",
            "run": str(begun.out),
            "run_id": str(again.run_id),
            "rounds_done": look.status.rounds_done,
            "try": tries.number,
        }
