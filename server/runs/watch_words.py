"""A look at a run in words: the rows of a live view, and one line where there is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .outcome import FIGURE_WORDS
from .status import EndCause, EnginePhase, RunState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .reading import Look
    from .status import RunStatus

PHASES: Final = {
    EnginePhase.STARTING: "starting",
    EnginePhase.BETWEEN: "between two rounds",
    EnginePhase.COLLECTING: "waits for replies",
    EnginePhase.COMMITTED: "sum committed, noise next",
    EnginePhase.KEPT: "released and kept",
    EnginePhase.ENDED: "ended",
}


def headline(look: Look) -> str:
    """Say in one line how the run stands."""
    status = look.status
    if status is None:
        return "no run here yet"
    if look.is_gone:
        return f"its process is gone, the last sign of life came {span(look.quiet_s)} ago"
    if status.state is RunState.PAUSED:
        return f"paused by {status.held_by}"
    if status.state is not RunState.RUNNING:
        return f"{status.state}{cause_words(status.ended_because)}"
    words = PHASES[status.phase]
    if status.deadline_at is not None:
        left = (status.deadline_at - look.at).total_seconds()
        words += f", {span(left)} to the deadline" if left > 0 else ", the deadline has come"
    if status.next_round_at is not None:
        left = max((status.next_round_at - look.at).total_seconds(), 0.0)
        words = f"waits for the next round's turn, in {span(left)}"
    if status.held_by:
        words += f"; holds after this round, asked by {status.held_by}"
    return words


def rows_of(look: Look) -> dict[str, str]:
    """Lay a look out in rows for a person, most wanted first."""
    status = look.status
    if status is None:
        return {"run": headline(look)}
    rows = {"run": status.run, "state": headline(look), "rounds": _rounds(look, status)}
    if status.invited:
        share = f" ({status.replied / status.invited:.0%})"
        rows[f"round {_number(status)}"] = (
            f"invited {status.invited:,}, replied {status.replied:,}{share}, "
            f"refused {refusals(status.refused)}"
        )
    rows["ε_release"] = epsilon(status)
    rows["unit"] = status.unit_of_privacy
    if status.quality:
        rows["quality"] = f"{quality(status.quality)} ({_after(status)})"
    if look.is_gone or status.state is RunState.INTERRUPTED:
        rows["go on"] = status.go_on or "fedcell rounds resume RUN"
    if status.message:
        rows["said"] = status.message
    if not status.state.is_over and not look.is_gone and status.process.pid:
        rows["process"] = (
            f"{status.process.pid} on {status.process.host}, "
            f"last sign of life {span(look.quiet_s)} ago"
        )
    return rows


def line_of(look: Look) -> str:
    """Say a look in one line, for logs and pipes."""
    status = look.status
    at = f"{look.at:%H:%M:%S}"
    if status is None:
        return f"{at} {headline(look)}"
    parts = [f"{at} round {_number(status)}/{status.num_rounds}", headline(look)]
    if status.invited:
        parts.append(f"invited {status.invited}, replied {status.replied}")
        if status.refused:
            parts.append(f"refused {refusals(status.refused)}")
    parts.append(f"ε {epsilon(status)}")
    if status.quality:
        parts.append(quality(status.quality))
    if look.is_gone or status.state is RunState.INTERRUPTED:
        parts.append(f"go on with: {status.go_on or 'fedcell rounds resume RUN'}")
    if status.message:
        parts.append(status.message)
    return ", ".join(parts)


def epsilon(status: RunStatus) -> str:
    """Say what has been spent, beside its δ and what was planned."""
    if status.epsilon_release is None:
        return "unbounded: without noise"
    planned = "" if status.epsilon_planned is None else f" of {status.epsilon_planned:g}"
    return f"{status.epsilon_release:.3f}{planned} at δ = {status.delta:g}"


def quality(found: Mapping[str, float | None]) -> str:
    """Say a look at quality: the figures that people know first."""
    named = [(name, found.get(name)) for name in FIGURE_WORDS]
    known = [f"{FIGURE_WORDS[name]} {value:.4f}" for name, value in named if value is not None]
    return ", ".join(known) or "nothing to be measured"


def cause_words(ended_because: str | None) -> str:
    """Say why a run ended where its state does not say it all, after a comma; else nothing."""
    told = {EndCause.EARLY_STOP, EndCause.STOPPED}
    causes = [cause for cause in told if cause == ended_because]
    return f", {causes[0].words}" if causes else ""


def refusals(refused: Mapping[str, int]) -> str:
    """Say how many replies were refused, by reason."""
    if not refused:
        return "none"
    each = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
    return f"{sum(refused.values())} ({each})"


def span(seconds: float) -> str:
    """Say a time span as people do."""
    whole = round(max(seconds, 0.0))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{round(whole / 60)} min"
    return f"{whole / 3600:.1f} h"


def _rounds(look: Look, status: RunStatus) -> str:
    said = f"{status.rounds_done} of {status.num_rounds} released"
    if status.noise_only_rounds:
        said += f", {status.noise_only_rounds} of them noise alone"
    is_going = status.state is RunState.RUNNING and not look.is_gone
    if status.eta_at is not None and is_going:
        said += f"; the last may end {_eta(status.eta_at, look.at)}"
    return said


def _eta(eta: datetime, now: datetime) -> str:
    return f"in {span((eta - now).total_seconds())}, at {eta:%Y-%m-%d %H:%M} UTC"


def _number(status: RunStatus) -> int:
    """The round at hand as people count, from 1."""
    return 0 if status.index is None else status.index + 1


def _after(status: RunStatus) -> str:
    if status.quality_index is None:
        return "before the first round"
    return f"after round {status.quality_index + 1}"
