"""What a run is doing, for whoever watches it: `status.json` beside `run.json`.

The engine writes it at each phase of a step and, while it waits, once a second: aside, then
renamed, so that a reader sees a whole one. It decides nothing and promises nothing: what was
released stands in the ledger, what is kept in the checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from .value_types import (
    is_count,
    is_look,
    is_number,
    is_refusals,
    is_text,
    is_time,
    or_none,
    require_types,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATUS_FILE: Final = "status.json"
METRICS_FILE: Final = "metrics.prom"
SCHEMA_VERSION: Final = 1
ROUNDS_OF_ETA: Final = 20
_DEAD: Final = frozenset("ZXx")
"""States of a process that has ended and whose parent has not asked for its exit code."""
QUIET_S: Final = 30.0
"""After so long without a sign of life from a process that cannot be looked at, it is taken for
gone: the engine gives one a second while it waits, and at each phase."""


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether the process that carried it out has said its last word."""
        return self not in {RunState.RUNNING, RunState.PAUSED}


class EndCause(StrEnum):
    """Why a run ended."""

    ALL_ROUNDS = "all_rounds"
    EARLY_STOP = "early_stop"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def words(self) -> str:
        """Say it in words."""
        return _CAUSES[self]


_CAUSES: Final = {
    EndCause.ALL_ROUNDS: "all rounds ran",
    EndCause.EARLY_STOP: "stopped early, without gain on the reference fleet",
    EndCause.CANCELLED: "cancelled by an operator",
    EndCause.STOPPED: "its process was asked to stop",
    EndCause.FAILED: "an error ended it",
}


class EnginePhase(StrEnum):
    """Where in a round the engine is."""

    STARTING = "starting"
    BETWEEN = "between_rounds"
    COLLECTING = "collecting"
    COMMITTED = "committed"
    KEPT = "kept"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """What the loop over rounds tells of one step.

    Attributes:
        index: of the step.
        phase: that was reached.
        invited: devices invited to it; 0 before.
        replied: devices in good replies so far.
        refused: how many replies were refused so far, by reason.
    """

    index: int
    phase: EnginePhase
    invited: int = 0
    replied: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """Which process carries a run out.

    Attributes:
        pid: its number.
        host: name of the machine.
        started_ticks: when it started, in clock ticks since the machine did, which tells it from a
            later process of the same number; None where the system does not say.
    """

    pid: int
    host: str
    started_ticks: int | None

    @staticmethod
    def here() -> ProcessMark:
        """Return the mark of this process."""
        _, ticks = _state_and_start(os.getpid())
        return ProcessMark(pid=os.getpid(), host=platform.node(), started_ticks=ticks)

    def is_alive(self) -> bool | None:
        """Tell whether the process still runs; None where this machine cannot know."""
        if self.host != platform.node():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        state, ticks = _state_and_start(self.pid)
        is_dead = state in _DEAD
        return not is_dead and (self.started_ticks is None or ticks == self.started_ticks)


_TIMES: Final = ("started_at", "heartbeat_at", "deadline_at", "eta_at", "next_round_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What a run is doing.

    Attributes:
        run: the stream's name.
        state: how the run stands.
        phase: where in a round the engine is.
        num_rounds: T.
        rounds_done: rounds that were released.
        noise_only_rounds: of these, noise alone.
        index: the round at hand, counted from 0; None before the first.
        invited: devices invited to it.
        replied: devices in its good replies so far.
        refused: its refused replies so far, by reason.
        deadline_at: when it stops to wait for replies; None while it waits for none.
        epsilon_release: ε so far; None where it is unbounded.
        epsilon_planned: ε that the run was planned for; None without noise.
        delta: δ of both.
        unit_of_privacy: of both.
        quality: last look at data that is not the devices'; None where none was made.
        quality_index: round of that look; None before the first round.
        started_at: of this process's part, aware UTC.
        heartbeat_at: last sign of life, aware UTC.
        eta_at: when the last round may end; None while nothing is known.
        next_round_at: when the next round may invite, while a run waits for that; else None.
        process: who carries it out.
        held_by: who asked for the pause, in words; empty without one.
        message: how it ended, in words; empty while it goes on.
        ended_because: why it ended, as `EndCause` names it; empty while it goes on.
        go_on: command with which an interrupted run goes on; empty where none is known.
        home: privacy home that the run charges; empty where it is the run's own folder.
    """

    run: str
    state: RunState
    phase: EnginePhase
    num_rounds: int
    rounds_done: int
    epsilon_planned: float | None
    delta: float
    unit_of_privacy: str
    started_at: datetime
    heartbeat_at: datetime
    process: ProcessMark
    noise_only_rounds: int = 0
    index: int | None = None
    invited: int = 0
    replied: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    deadline_at: datetime | None = None
    epsilon_release: float | None = None
    quality: Mapping[str, float | None] | None = None
    quality_index: int | None = None
    eta_at: datetime | None = None
    next_round_at: datetime | None = None
    held_by: str = ""
    message: str = ""
    ended_because: str = ""
    go_on: str = ""
    home: str = ""

    def at_step(self, progress: StepProgress) -> RunStatus:
        """Return the status once a step has come so far."""
        return replace(
            self,
            phase=progress.phase,
            index=progress.index,
            invited=progress.invited,
            replied=progress.replied,
            refused=dict(progress.refused),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the status as it stands in the file."""
        fields = asdict(self)
        for name in _TIMES:
            at = getattr(self, name)
            fields[name] = None if at is None else at.astimezone(UTC).isoformat()
        return {"schema_version": SCHEMA_VERSION, **fields}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> RunStatus:
        """Read a status; fields of a later version are left out.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: it is none.
        """
        known = {name: fields[name] for name in RunStatus.__dataclass_fields__ if name in fields}
        for name in _TIMES:
            at = known.get(name)
            known[name] = None if at is None else datetime.fromisoformat(at).astimezone(UTC)
        known["state"], known["phase"] = RunState(known["state"]), EnginePhase(known["phase"])
        known["process"] = ProcessMark(**known["process"])
        read = RunStatus(**known)
        require_types(asdict(read), _TYPES)
        require_types(asdict(read.process), _TYPES_OF_PROCESS)
        return read


_TYPES: Final = {
    **dict.fromkeys(("run", "unit_of_privacy", "held_by", "message"), is_text),
    **dict.fromkeys(("ended_because", "go_on", "home"), is_text),
    **dict.fromkeys(("num_rounds", "rounds_done", "noise_only_rounds"), is_count),
    **dict.fromkeys(("invited", "replied"), is_count),
    **dict.fromkeys(("index", "quality_index"), or_none(is_count)),
    **dict.fromkeys(("started_at", "heartbeat_at"), is_time),
    **dict.fromkeys(("deadline_at", "eta_at", "next_round_at"), or_none(is_time)),
    **dict.fromkeys(("epsilon_planned", "epsilon_release"), or_none(is_number)),
    "delta": is_number,
    "refused": is_refusals,
    "quality": or_none(is_look),
}
_TYPES_OF_PROCESS: Final = {
    "pid": is_count,
    "host": is_text,
    "started_ticks": or_none(is_count),
}


def write_status(folder: Path, status: RunStatus, *, durably: bool) -> None:
    """Write a run's status, whole or not at all.

    Args:
        folder: of the run.
        status: to be written.
        durably: whether it must survive a power cut.

    Raises:
        OSError: the disk refuses; what was there is as it was.
    """
    content = (json.dumps(status.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode()
    path = folder / STATUS_FILE
    if durably:
        write_durably(path, content)
        return
    aside = path.with_name(f".{STATUS_FILE}.{os.getpid()}.part")
    aside.write_bytes(content)
    aside.replace(path)


def read_status(folder: Path) -> RunStatus | None:
    """Return a run's status; None where there is none, or none that this version can read."""
    try:
        return RunStatus.from_json(json.loads((folder / STATUS_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def eta_after(now: datetime, seconds: Sequence[float], *, rounds_left: int) -> datetime | None:
    """Return when the last round may end: the median of the last rounds, for each that is left."""
    if rounds_left <= 0 or not seconds:
        return None
    return now + timedelta(seconds=rounds_left * median(seconds[-ROUNDS_OF_ETA:]))


def is_gone(status: RunStatus, *, now: datetime, alive: bool | None) -> bool:
    """Tell whether a run's process has died without a last word.

    Args:
        status: as last written.
        now: aware UTC.
        alive: whether the process runs; None where nobody here can know.
    """
    if status.state.is_over:
        return False
    if alive is None:
        return (now - status.heartbeat_at).total_seconds() > QUIET_S
    return not alive


def _state_and_start(pid: int) -> tuple[str, int | None]:
    """Return a process's state and when it started (fields 3 and 22 of /proc/PID/stat).

    Both are empty where the system does not say.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", None
