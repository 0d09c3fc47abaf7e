"""What a run of rounds has come to, in lines for a person: figures first, then what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from privacy.statement import (
    ADAPTIVE,
    CORRELATED,
    INDEPENDENT,
    NO_AMPLIFICATION,
    OWNERS_UNKNOWN,
    PUBLIC_INVITATIONS,
    REACHABILITY,
    REACHED_AT_START,
    SAID_MORE,
    TRUSTED_AGGREGATOR,
)
from server.engine.group_rule import cost_in_report
from server.runs.outcome import (
    FIGURE_WORDS,
    START_ROUND,
    ending_words,
    outcome_of,
    warnings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.engine.round_keeper import Metrics

SHORT: Final = {
    TRUSTED_AGGREGATOR: "a trusted aggregator",
    PUBLIC_INVITATIONS: "invitations by public schedule and history alone",
    NO_AMPLIFICATION: "no amplification by sampling",
    CORRELATED[0]: "noise correlated over all steps",
    CORRELATED[1]: "noise drawn in floating point, rounded to a grid",
    INDEPENDENT[0]: "independent noise, drawn in floating point",
    REACHABILITY: "who answers at all does not depend on data",
    REACHED_AT_START: "who was reached at the start is who is enrolled",
    OWNERS_UNKNOWN: "OWNERS UNKNOWN: several devices of one owner add up, unbounded",
    SAID_MORE: "THE FIGURE IS THE DEVICES', who say more than the ledger holds",
    ADAPTIVE: "a clipping norm that follows a noised count, in the figure",
}
"""Assumptions in a few words; in full they stand in `run.json`."""


def summary_lines(report: Mapping[str, Any], *, result: str) -> list[str]:
    """Say what a run has come to: quality before and after, then every ε with its δ and unit.

    Args:
        report: what stands in `run.json`.
        result: where the bundle is.
    """
    privacy, schedule = report["privacy"], report["schedule"]
    done = f"{len(report['rounds'])} of {schedule['num_rounds']}"
    invited = f"{schedule['cohort_size']:,} of {schedule['population_size']:,}"
    noise = f"{privacy['noise_mechanism']}, σ = {privacy['noise_multiplier']:.3f}"
    lines = [f"rounds       {done}, {invited} devices invited to each"]
    if why := ending_words(report):
        lines.append(f"ended        {why}")
    lines += [*warnings_of(report), *_quality_lines(report), *_reply_lines(report)]
    lines += _epsilon_lines(privacy)
    lines.append(f"noise        {noise}, ledger entries of kind {privacy['entry_kind']}")
    adapted = [one["clipping_norm"] for one in report["rounds"] if one.get("clipping_norm")]
    if adapted:
        moved = f"{adapted[0]:.4g} → {adapted[-1]:.4g}"
        lines.append(f"clipping     C follows a quantile in private: {moved}")
    if (cost := cost_in_report(report)) is not None:
        lines.append(f"group rule   {cost}")
    assumed = "; ".join(SHORT.get(one, one) for one in privacy["assumptions"])
    lines.append(f"assumes      {assumed} (in full: run.json)")
    lines.append(f"result       {result}")
    return lines


def _quality_lines(report: Mapping[str, Any]) -> list[str]:
    found = outcome_of(report)
    before, after = found["start_quality"], found["quality"]
    if before is None or after is None:
        return ["held out     no device is held out, so nothing was looked at"]
    number = found["leaves_round"]
    which = "itself" if number == START_ROUND else f"round {number}"
    names = [name for name in FIGURE_WORDS if name in before]
    lines = [
        f"{FIGURE_WORDS[name]:<18} {_figure(before[name])} → {_figure(after[name])}"
        for name in names
    ]
    lines[0] += f"   (the start → {which}, which leaves)"
    said = [f"{'quality' if line is lines[0] else '':<13}{line}" for line in lines]
    return [*said, _prevalence_line(before, after)]


def _prevalence_line(before: Metrics, after: Metrics) -> str:
    seen = after.get("prevalence", before.get("prevalence"))
    said = f"             {'prevalence':<18} {_figure(seen)}"
    if seen == 0:
        said += (
            ": no held-out window is followed by a failure within 30 days, so that precision and "
            "AUC cannot be measured; hold out more devices, or longer"
        )
    return said


def _reply_lines(report: Mapping[str, Any]) -> list[str]:
    rounds, found = report["rounds"], outcome_of(report)
    if not rounds:
        return []
    invited = sum(one["invited"] for one in rounds)
    replied = sum(one["replied"] for one in rounds)
    refused = sum(sum(one["refused"].values()) for one in rounds)
    share, least = found["share_with_least_replies"], found["least_replies"]
    answered = f"{replied / max(invited, 1):.0%} of the invited, {refused:,} replies refused"
    return [f"replies      {answered}; {share:.0%} of rounds had the least replies, {least:,}"]


def _epsilon_lines(privacy: Mapping[str, Any]) -> list[str]:
    released = "unbounded (no noise was added: for comparison only)"
    if privacy["epsilon_release"] is not None:
        released = f"{privacy['epsilon_release']:.3f} at δ = {privacy['delta']:g}"
    record = "off"
    if privacy["record_epsilon"] is not None:
        record = f"{privacy['record_epsilon']:.2f} at δ = {privacy['record_delta']:g}"
    return [
        f"ε_release    {released}",
        f"             unit: {privacy['unit_of_privacy']}",
        f"             neighbours: {privacy['neighboring_relation']}",
        "ε_server     unbounded: the operator sees clipped updates",
        f"ε_record     {record}; unit: {privacy['record_unit']}",
    ]


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4f}"
