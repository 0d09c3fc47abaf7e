"""What a run came to: why it ended, which weights leave, whether they are better than its start.

An early-stopped run lets those weights leave that did best on the public reference fleet, not those
of its last round. All of them were released with noise and charged, and the choice sees no device's
data, so it costs nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..engine.early_stop import REFERENCE_QUALITY
from .status import EndCause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Look = Mapping[str, float | None]

START_ROUND: Final = 0
"""Number that stands for the weights that a run starts from; its rounds count from 1."""
LEAST_CHANGE: Final = 0.01
"""A figure is told as worse where it fell short of the start by more than this part of it."""
LEAST_SHARE: Final = 0.99
"""A run with a smaller share of rounds that reach the least replies is not complete."""
FIGURE_WORDS: Final = {
    REFERENCE_QUALITY: "reference AP",
    "average_precision": "average precision",
    "auc": "AUC",
    "loss": "loss",
}
_IS_BETTER_HIGH: Final = {
    REFERENCE_QUALITY: True,
    "average_precision": True,
    "auc": True,
    "loss": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BestLook:
    """The best look at public data.

    Attributes:
        number: of the round, from 1; `START_ROUND` where no round did better than the start.
        quality: that was seen.
    """

    number: int
    quality: float


def best_look(start: Look | None, rounds: Iterable[tuple[int, Look | None]]) -> BestLook | None:
    """Return the first of the best looks; None where nobody looked at public data.

    Args:
        start: look at the weights that the run started from.
        rounds: (number from 1, look) of each round, in order.
    """
    best: BestLook | None = None
    for number, look in ((START_ROUND, start), *rounds):
        quality = None if look is None else look.get(REFERENCE_QUALITY)
        if quality is not None and (best is None or quality > best.quality):
            best = BestLook(number=number, quality=quality)
    return best


def outcome_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out what a run came to, also of yesterday's, which say neither cause nor round.

    Args:
        report: as `run.json` holds it.
    """
    rounds = report["rounds"]
    said = report.get("leaves_round")
    number = len(rounds) if said is None else said
    start, leaving = report.get("start_metrics"), _look_of(report, number)
    seen = [(record["index"] + 1, record.get("metrics")) for record in rounds]
    best = best_look(start, seen)
    reached = sum(not record.get("noise_only", False) for record in rounds)
    return {
        "ended_because": report.get("ended_because"),
        "leaves_round": number,
        "start_quality": start,
        "quality": leaving,
        "worse_than_start": worse_figures(start, leaving),
        "best_reference_round": None if best is None else best.number,
        "rounds_released": len(rounds),
        "rounds_planned": report["config"]["num_rounds"],
        "least_replies": report["config"].get("min_replies", 1),
        "rounds_with_least_replies": reached,
        "share_with_least_replies": reached / len(rounds) if rounds else None,
    }


def worse_figures(start: Look | None, end: Look | None) -> list[str]:
    """Return the figures that are worse than at the start, most telling first.

    Args:
        start: look at the weights that a run started from.
        end: look at those that leave.
    """
    if start is None or end is None:
        return []
    return [name for name, high in _IS_BETTER_HIGH.items() if _is_worse(start, end, name, high)]


def ending_words(report: Mapping[str, Any]) -> str:
    """Say in a sentence why a run ended, where it did not run all its rounds; else nothing."""
    found = outcome_of(report)
    if found["ended_because"] != EndCause.EARLY_STOP:
        return ""
    patience, number = report["config"].get("patience", 0), found["leaves_round"]
    which = f"round {number}" if number else "the start: no round did better"
    look = found["quality"] or {}
    seen = look.get(REFERENCE_QUALITY)
    figure = "" if seen is None else f" (reference AP {seen:.4f})"
    return (
        f"stopped early after {found['rounds_released']} of {found['rounds_planned']} rounds: "
        f"{patience} looks at the reference fleet without gain; the weights of {which}{figure} "
        "leave"
    )


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Say what nobody may overlook of a run that is over: a line each, most often none.

    Args:
        report: as `run.json` holds it.
    """
    if report.get("status") == "running":
        return []
    found, said = outcome_of(report), []
    if found["worse_than_start"]:
        start, end = found["start_quality"], found["quality"]
        each = ", ".join(
            f"{FIGURE_WORDS[name]} {_figure(start[name])} → {_figure(end.get(name))}"
            for name in found["worse_than_start"]
        )
        said.append(
            f"WORSE        than what it started from: {each}; keep what is in use, or let "
            "fedcell rounds judge decide"
        )
    if found["leaves_round"] == START_ROUND and found["rounds_released"]:
        said.append(
            "NO GAIN      no round did better on the reference fleet than the start: what leaves "
            "is what the run started from"
        )
    share = found["share_with_least_replies"]
    if share is not None and share < LEAST_SHARE:
        said.append(
            f"NOISE        only {share:.0%} of the rounds had the least replies, "
            f"{found['least_replies']:,}; the others are noise alone"
        )
    return said


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4f}"


def _look_of(report: Mapping[str, Any], number: int) -> Look | None:
    if number == START_ROUND:
        found: Look | None = report.get("start_metrics")
        return found
    looks = {record["index"] + 1: record.get("metrics") for record in report["rounds"]}
    return looks.get(number)


def _is_worse(start: Look, end: Look, name: str, is_better_high: bool) -> bool:  # noqa: FBT001
    before, after = start.get(name), end.get(name)
    if before is None:
        return False
    if after is None or not math.isfinite(after):
        return True
    change = after - before if is_better_high else before - after
    return change < -LEAST_CHANGE * abs(before)
