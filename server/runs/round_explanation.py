"""What happened in one round, from the run's report, the ledger and the checkpoint: in plain words.

Nothing here is measured anew: every figure stands in `run.json`, in the ledger, or follows from the
public schedule. No device is named, for none needs to be.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from privacy import CorrelatedRelease, GaussianRelease
from privacy.accountant import mu_squared_of_step

from ..engine.rounds import RoundsError
from .outcome import ending_words
from .report_layout import ledger_epsilon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from privacy import LedgerEntry

REFUSALS: Final = {
    "failed": "the node said that it failed",
    "malformed": "the reply does not have a reply's form",
    "unasked": "nobody had asked",
    "duplicate": "a second reply to the same task",
    "late": "it came after the deadline",
    "wrong_stream": "it belongs to another stream",
    "wrong_step": "it belongs to another step",
    "wrong_shape": "it has another number of weights",
    "wrong_type": "its numbers are of another kind",
    "not_finite": "it holds numbers that are not finite",
    "too_many_devices": "it claims more devices than were invited behind the node",
    "beyond_bound": "it is longer than so many clipped updates can be",
}
"""What each reason for a refusal means."""


class RoundMissingError(RoundsError):
    """A run has no such round, or not yet.

    Attributes:
        wanted: number of the round, from 1.
    """

    exit_code = 3

    def __init__(self, wanted: int, *, done: int) -> None:
        """Say which rounds there are."""
        self.wanted = wanted
        has = f"rounds 1 to {done}" if done else "no round yet"
        super().__init__(f"round {wanted}: the run has {has}; name one of them, or 'last'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known beside a run's report.

    Attributes:
        entries: of the ledger, verified; empty where it is not here.
        ledger_note: `verified`, or why nothing is.
        checkpoint_index: step of the checkpoint that is here; None for none.
        checkpoint_sha256: digest of its weights; empty for none.
        state: how the run stands, in one word.
        trail: lines of the refusal trail that are of the round.
    """

    entries: Sequence[LedgerEntry]
    ledger_note: str
    checkpoint_index: int | None
    checkpoint_sha256: str
    state: str
    trail: Sequence[Mapping[str, Any]] = ()


def explain_round(report: Mapping[str, Any], number: int, *, evidence: Evidence) -> dict[str, Any]:
    """Lay out what happened in a round.

    Args:
        report: as `run.json` holds it.
        number: of the round, from 1.
        evidence: beside the report.

    Raises:
        RoundMissingError: there is no such round.
    """
    records = {record["index"]: record for record in report["rounds"]}
    index = number - 1
    if index not in records:
        raise RoundMissingError(number, done=len(records))
    record, privacy = records[index], report["privacy"]
    entry = _entry_of(evidence.entries, stream=report["config"]["stream"], index=index)
    return {
        "schema_version": 1,
        "round": number,
        "num_rounds": report["config"]["num_rounds"],
        "run": report["config"]["stream"],
        "step": index,
        "invitation": _invitation(report, index),
        "replies": _replies(record, report),
        "trail": _trail(evidence.trail),
        "release": _release(record, report),
        "cost": _cost(record, entry, privacy),
        "epsilon": _epsilon(records, index, entry=entry, evidence=evidence, report=report),
        "ledger": _ledger(record, entry, evidence),
        "checkpoint": _checkpoint(record, evidence),
        "quality": record.get("metrics"),
        "seconds": record["seconds"],
        "next": _next(report, index, evidence),
    }


def _invitation(report: Mapping[str, Any], index: int) -> dict[str, Any]:
    schedule, config = report["schedule"], report["config"]
    size, cohort = schedule["population_size"], schedule["cohort_size"]
    return {
        "enrolled": size,
        "invited": cohort,
        "first_place": index * cohort % size,
        "min_separation": max(schedule["min_separation"], 1),
        "max_participations": report["privacy"]["max_participations"],
        "max_devices_per_owner": config.get("max_devices_per_owner"),
    }


def _replies(record: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "invited": record["invited"],
        "replied": record["replied"],
        "without_good_reply": record["invited"] - record["replied"],
        "refused": dict(record["refused"]),
        "least_replies": report["config"].get("min_replies", 1),
        "deadline_s": report["config"]["deadline_s"],
    }


def _trail(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay out which nodes' replies were refused: under the names that they bear in the stream."""
    by_node: dict[str, dict[str, int]] = {}
    more: Counter[str] = Counter()
    for line in lines:
        if "node" in line:
            counts = by_node.setdefault(str(line["node"]), {})
            reason = str(line.get("reason", ""))
            counts[reason] = counts.get(reason, 0) + 1
        elif isinstance(line.get("more"), dict):
            more.update(line["more"])
    times = [str(line["at"]) for line in lines if "at" in line]
    return {
        "by_node": dict(sorted(by_node.items(), key=lambda one: (-sum(one[1].values()), one[0]))),
        "not_kept": dict(more),
        "first_at": min(times, default=None),
        "last_at": max(times, default=None),
    }


def _release(record: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    privacy, config = report["privacy"], report["config"]
    sigma = privacy["noise_multiplier"]
    norm = record.get("clipping_norm") or config["clipping_norm"]
    return {
        "noise_only": bool(record.get("noise_only", False)),
        "mechanism": privacy["noise_mechanism"],
        "noise_multiplier": sigma,
        "clipping_norm": norm,
        "noise_std_on_sum": sigma * norm,
        "noise_std_on_mean": sigma * norm / record["invited"],
    }


def _cost(
    record: Mapping[str, Any], entry: LedgerEntry | None, privacy: Mapping[str, Any]
) -> dict[str, Any]:
    event = None if entry is None else entry.event
    mu_squared: float | None = None
    if isinstance(event, CorrelatedRelease | GaussianRelease):
        mu_squared = mu_squared_of_step(
            noise_multiplier=event.noise_multiplier,
            clip_noise_multiplier=getattr(event, "clip_noise_multiplier", None),
        )
    elif privacy["noise_multiplier"] > 0:
        mu_squared = mu_squared_of_step(noise_multiplier=privacy["noise_multiplier"])
    is_bounded = mu_squared is not None and math.isfinite(mu_squared)
    return {
        "mu_squared_of_each_invited": mu_squared if is_bounded else None,
        "most_participations": record["most_participations"],
        "max_participations": privacy["max_participations"],
    }


def _epsilon(
    records: Mapping[int, Mapping[str, Any]],
    index: int,
    *,
    entry: LedgerEntry | None,
    evidence: Evidence,
    report: Mapping[str, Any],
) -> dict[str, Any]:
    privacy = report["privacy"]
    delta = privacy["delta"]
    if entry is None:
        before = records[index - 1]["epsilon_release"] if index - 1 in records else 0.0
        after = records[index]["epsilon_release"]
        source = "run.json"
    else:
        stream = report["config"]["stream"]
        before, after = (
            ledger_epsilon(some, stream=stream, delta=delta)
            for some in (evidence.entries[: entry.index], evidence.entries[: entry.index + 1])
        )
        source = "ledger"
    return {
        "before": before,
        "after": after,
        "delta": delta,
        "planned": report["config"]["epsilon"],
        "source": source,
        "unit_of_privacy": privacy["unit_of_privacy"],
        "neighboring_relation": privacy["neighboring_relation"],
        "assumptions": list(privacy["assumptions"]),
    }


def _ledger(
    record: Mapping[str, Any], entry: LedgerEntry | None, evidence: Evidence
) -> dict[str, Any]:
    said = record.get("ledger_hash", "")
    return {
        "chain": evidence.ledger_note,
        "entry": None if entry is None else entry.reference(),
        "at": None if entry is None else entry.fields["at"],
        "said_by_run": said or None,
        "agrees": None if entry is None or not said else entry.hash == said,
    }


def _checkpoint(record: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    said = record.get("weights_sha256", "")
    is_this = evidence.checkpoint_index == record["index"]
    return {
        "weights_sha256": said or None,
        "here_is_step": evidence.checkpoint_index,
        "agrees": evidence.checkpoint_sha256 == said if is_this and said else None,
    }


def _next(report: Mapping[str, Any], index: int, evidence: Evidence) -> dict[str, Any]:
    schedule = report["schedule"]
    is_followed = any(record["index"] > index for record in report["rounds"])
    is_ended = report["status"] in {"finished", "cancelled"} and not is_followed
    is_last = index + 1 >= report["config"]["num_rounds"] or is_ended
    separation = max(schedule["min_separation"], 1)
    return {
        "state": evidence.state,
        "is_last": is_last,
        "released_later": is_followed,
        "ended_because": report.get("ended_because"),
        "ending": ending_words(report),
        "next_round": None if is_last else index + 2,
        "first_place": None
        if is_last
        else (index + 1) * schedule["cohort_size"] % schedule["population_size"],
        "invited_here_again_from_round": index + 1 + separation,
    }


def _entry_of(entries: Sequence[LedgerEntry], *, stream: str, index: int) -> LedgerEntry | None:
    for entry in entries:
        event = entry.fields["event"]
        if event.get("stream") == stream and event.get("index") == index:
            return entry
    return None
