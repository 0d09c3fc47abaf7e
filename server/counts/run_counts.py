"""What a deployed run asks of devices beside updates: when, what, and what is kept of the answers.

After the last round, and every so many rounds where the operator wishes so: how good the released
model is, how far inputs have drifted, how similar devices fare. Releases stand in `counts.json`
beside `run.json`, and every figure is told with its interval or as not measurable. Nothing is asked
again before its next turn, so that no failure is counted twice and the channels last their years.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably
from models.prediction import HORIZON_DAYS
from models.private_histograms import (
    CONFIRMATION_DAYS,
    SIMILAR_HORIZON_DAYS,
    evaluation_question,
    similar_devices_question,
)
from models.telemetry import SECONDS_PER_DAY
from models.wire.counts import Bins, CountKind, CountQuestion
from privacy.count_budget import COUNTS_A_YEAR, DRIFT, METRICS, METRICS_A_YEAR, SIMILAR_DEVICES

from ..engine.rounds import RoundsError
from .private_metrics import ReleasedCounts, drift, private_evaluation, similar_devices

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from privacy import StreamPolicy
    from privacy.count_intervals import Estimate

COUNTS_REPORT: Final = "counts.json"
DAYS_APART: Final = {
    CountKind.EVALUATION: max(HORIZON_DAYS, 365 // METRICS_A_YEAR),
    CountKind.DRIFT: 365 // COUNTS_A_YEAR,
    CountKind.SIMILAR_DEVICES: max(SIMILAR_HORIZON_DAYS, 365 // COUNTS_A_YEAR),
}
"""Days between the moments of two questions of one kind: as often as the channels are dealt out,
and at least a horizon."""


class CountsFileError(RoundsError):
    """A file of counts, or of what they are compared with, cannot be used."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class DriftReference:
    """What a fleet's values are compared with, from public or simulated devices alone.

    Attributes:
        bins: of each value that is watched.
        shares: public shares of each value's bins, the one for missing last.
    """

    bins: tuple[Bins, ...]
    shares: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        """Refuse bins that cannot be asked, and shares that do not fit them."""
        CountQuestion(kind=CountKind.DRIFT, as_of_s=0, bins=self.bins)
        for one in self.bins:
            found = self.shares.get(one.name, ())
            if len(found) != one.size + 1 or min(found) < 0.0 or abs(sum(found) - 1.0) > 1e-6:
                raise ValueError(f"shares of {one.name} must be {one.size + 1} that add up to 1")

    @staticmethod
    def read(path: Path) -> DriftReference:
        """Read a reference: a JSON object with `bins` and `shares`.

        Raises:
            CountsFileError: it cannot be read, or is none.
        """
        try:
            value = json.loads(path.read_bytes())
            bins = tuple(
                Bins(one["name"], tuple(map(float, one["edges"]))) for one in value["bins"]
            )
            shares = {name: tuple(map(float, of)) for name, of in value["shares"].items()}
            return DriftReference(bins, shares)
        except OSError as error:
            what = f"{path}: cannot be read ({error.strerror})"
            raise CountsFileError(f"{what}; name another file") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{path}: holds no reference for drift ({error})"
            raise CountsFileError(f"{what}; make one with simulations.drift_reference") from error

    def to_json(self) -> dict[str, Any]:
        """Return the reference as a JSON object."""
        return {
            "schema_version": 1,
            "bins": [asdict(one) for one in self.bins],
            "shares": {name: list(of) for name, of in self.shares.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsPlan:
    """Which counts a run asks, and when.

    Attributes:
        model_version: bundle version that is evaluated, as devices have it; "" evaluates nothing.
        drift: what values are compared with; None asks no drift.
        asks_similar_devices: whether similar devices are counted.
        every: rounds between two times that counts are asked; 0 asks after the last one alone.
    """

    model_version: str = ""
    drift: DriftReference | None = None
    asks_similar_devices: bool = False
    every: int = 0

    def __post_init__(self) -> None:
        """Refuse a turn that never comes."""
        if self.every < 0:
            raise ValueError(f"metrics-every must be at least 0, got {self.every}")

    def is_turn(self, index: int) -> bool:
        """Whether counts are asked after step `index`, which is not the last."""
        return self.every > 0 and (index + 1) % self.every == 0

    def questions(self, now: datetime) -> tuple[dict[str, CountQuestion], dict[str, str]]:
        """Return what is asked now, by channel, and why the others are not asked.

        Moments lie so far back that what became of a device is known by now.

        Args:
            now: aware time.
        """
        asked: dict[str, CountQuestion] = {}
        not_asked: dict[str, str] = {}
        if self.model_version:
            moment = _midnight(now, days_ago=HORIZON_DAYS + CONFIRMATION_DAYS)
            asked[METRICS] = evaluation_question(as_of_s=moment, model_version=self.model_version)
        else:
            not_asked[METRICS] = "no model-version names the bundle that devices have"
        if self.drift is not None:
            asked[DRIFT] = CountQuestion(
                kind=CountKind.DRIFT, as_of_s=_midnight(now), bins=self.drift.bins
            )
        else:
            not_asked[DRIFT] = "no drift-reference names what values are compared with"
        if self.asks_similar_devices:
            moment = _midnight(now, days_ago=SIMILAR_HORIZON_DAYS + CONFIRMATION_DAYS)
            asked[SIMILAR_DEVICES] = similar_devices_question(as_of_s=moment)
        else:
            not_asked[SIMILAR_DEVICES] = "similar-devices is 0"
        return asked, not_asked


@dataclass(slots=True, kw_only=True)
class RunCounts:
    """The counts of one run: asked in turn, and kept beside its report.

    Attributes:
        plan: which, and when.
        folder: of the run.
        policy: of the stream, whose channels are asked.
        release: asks, charges and noises one question over a channel; raises RoundsError where
            nothing may be asked.
        clock: gives now, aware UTC.
        stop: set from outside; nothing more is asked then, for it would be charged and not told.
        find_ways: called before a turn at which anything is due: learns anew how devices are
            reached.
        kept: releases so far, oldest first.
    """

    plan: CountsPlan
    folder: Path
    policy: StreamPolicy
    release: Callable[[str, CountQuestion], ReleasedCounts]
    clock: Callable[[], datetime]
    stop: threading.Event
    find_ways: Callable[[], None] = lambda: None
    kept: list[ReleasedCounts] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Go on from what a first part of the run kept."""
        self.kept.extend(kept_counts(self.folder))

    def ask(self) -> None:
        """Ask what is due, each once, and keep each release before the next is asked."""
        asked, not_asked = self.plan.questions(self.clock())
        is_any_due = any(is_due(question, self.kept) for question in asked.values())
        if is_any_due and not self.stop.is_set():
            self.find_ways()
        for channel, question in asked.items():
            if not is_due(question, self.kept):
                days = DAYS_APART[question.kind]
                not_asked[channel] = f"was asked of a moment less than {days} days before"
                continue
            if self.stop.is_set():
                not_asked[channel] = "the run was stopped"
                continue
            try:
                self.kept.append(self.release(channel, question))
            except RoundsError as error:
                not_asked[channel] = str(error)
            self._save(not_asked)
        self._save(not_asked)

    def _save(self, not_asked: Mapping[str, str]) -> None:
        report = {
            "schema_version": 1,
            "stream": self.policy.stream,
            "policy_digest": self.policy.digest,
            "at": self.clock().isoformat(),
            **figures_of(self.kept, reference=self.plan.drift),
            "not_asked": dict(not_asked),
            "releases": [one.to_json() for one in self.kept],
        }
        text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_durably(self.folder / COUNTS_REPORT, text.encode())


def kept_counts(folder: Path) -> list[ReleasedCounts]:
    """Return the releases that a run's folder holds, oldest first.

    Raises:
        CountsFileError: its file cannot be read.
    """
    path = folder / COUNTS_REPORT
    try:
        return [ReleasedCounts.from_json(one) for one in json.loads(path.read_bytes())["releases"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{path}: cannot be read ({error})"
        raise CountsFileError(f"{what}; put it elsewhere, the ledger holds what it cost") from error


def is_due(question: CountQuestion, before: Sequence[ReleasedCounts]) -> bool:
    """Whether a question's moment lies far enough from those that were asked of the same."""
    apart = DAYS_APART[question.kind] * SECONDS_PER_DAY
    return all(
        abs(question.as_of_s - one.question.as_of_s) >= apart
        for one in before
        if (one.question.kind, one.question.model_version)
        == (question.kind, question.model_version)
    )


def figures_of(
    releases: Sequence[ReleasedCounts], *, reference: DriftReference | None
) -> dict[str, Any]:
    """Tell every figure that releases hold, as JSON: with its interval, or as not measurable.

    Evaluations of one model are pooled; of drift and of similar devices the last release speaks.

    Args:
        releases: oldest first.
        reference: what drift is told against; bins that are not its own are not told.
    """
    evaluations: dict[CountQuestion, list[ReleasedCounts]] = {}
    last: dict[CountKind, ReleasedCounts] = {}
    for one in releases:
        last[one.question.kind] = one
        if one.question.kind is CountKind.EVALUATION:
            evaluations.setdefault(replace(one.question, as_of_s=0), []).append(one)
    told: dict[str, Any] = {"evaluations": [], "drift": None, "similar_devices": None}
    for of_model in evaluations.values():
        found = private_evaluation(of_model, threshold=float("nan"))
        figures = {name: estimate_told(value) for name, value in found.figures.items()}
        told["evaluations"].append(found.to_json() | {"figures": figures})
    spread = last.get(CountKind.DRIFT)
    if spread is not None and reference is not None and spread.question.bins == reference.bins:
        distances = drift(spread, reference.shares)
        told["drift"] = {name: estimate_told(value) for name, value in distances.items()}
    cells = last.get(CountKind.SIMILAR_DEVICES)
    if cells is not None:
        told["similar_devices"] = [
            {"cell": cell_told(cells.question, number), "devices": cell.devices}
            | {"failed": estimate_told(cell.failed)}
            for number, cell in enumerate(similar_devices(cells))
        ]
    return told


def estimate_told(estimate: Estimate) -> dict[str, Any]:
    """Return one figure as JSON, and in words."""
    if estimate.value is None:
        words = f"not measurable: {estimate.why_not}"
    else:
        words = f"{estimate.value:.3f}, {estimate.low:.3f} to {estimate.high:.3f}"
    return asdict(estimate) | {"in_words": words}


def cell_told(question: CountQuestion, cell: int) -> dict[str, list[float | None]]:
    """Return the bounds of each value in a cell; None where a bin is open."""
    bounds: dict[str, list[float | None]] = {}
    for one in reversed(question.bins):
        cell, place = divmod(cell, one.size)
        ends = (None, *one.edges, None)
        bounds[one.name] = [ends[place], ends[place + 1]]
    return dict(reversed(bounds.items()))


def _midnight(now: datetime, *, days_ago: int = 0) -> int:
    return (int(now.timestamp()) // SECONDS_PER_DAY - days_ago) * SECONDS_PER_DAY
