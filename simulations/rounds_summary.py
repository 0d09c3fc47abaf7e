"""What a run of rounds has come to, in lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.engine.group_rule import cost_in_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.engine.strategy import Metrics


def summary_lines(report: Mapping[str, Any], *, result: str) -> list[str]:
    """Say what a run has come to: every ε with its δ and unit, quality before and after.

    Args:
        report: what stands in `run.json`.
        result: where the bundle is.
    """
    privacy, schedule = report["privacy"], report["schedule"]
    released = "unbounded (no noise was added: for comparison only)"
    if privacy["epsilon_release"] is not None:
        released = f"{privacy['epsilon_release']:.3f} at δ = {privacy['delta']:g}"
    record = "off"
    if privacy["record_epsilon"] is not None:
        record = f"{privacy['record_epsilon']:.2f} at δ = {privacy['record_delta']:g}"
    last = report["rounds"][-1]["metrics"] if report["rounds"] else None
    done = f"{len(report['rounds'])} of {schedule['num_rounds']}"
    invited = f"{schedule['cohort_size']:,} of {schedule['population_size']:,}"
    noise = f"{privacy['noise_mechanism']}, σ = {privacy['noise_multiplier']:.3f}"
    lines = [
        f"rounds       {done}, {invited} devices invited to each",
        f"ε_release    {released}",
        f"             unit: {privacy['unit_of_privacy']}",
        f"             neighbours: {privacy['neighboring_relation']}",
        *(f"             assumes: {one}" for one in privacy["assumptions"]),
        "ε_server     unbounded: the operator sees clipped updates",
        f"ε_record     {record}; unit: {privacy['record_unit']}",
        f"noise        {noise}, ledger entries of kind {privacy['entry_kind']}",
    ]
    adapted = [one["clipping_norm"] for one in report["rounds"] if one.get("clipping_norm")]
    if adapted:
        moved = f"{adapted[0]:.4g} → {adapted[-1]:.4g}"
        lines.append(f"clipping     C follows a quantile in private: {moved}")
    if (cost := cost_in_report(report)) is not None:
        lines.append(f"group rule   {cost}")
    lines += _quality_lines(report["start_metrics"], last)
    lines.append(f"result       {result}")
    return lines


def _quality_lines(before: Metrics | None, after: Metrics | None) -> list[str]:
    if before is None or after is None:
        return ["held out     no device is held out, so nothing was looked at"]
    lines = []
    for name, shown in (
        ("average_precision", "avg precision"),
        ("auc", "AUC"),
        ("loss", "loss"),
        ("prevalence", "prevalence"),
    ):
        lines.append(f"held out     {shown:<14} {_figure(before[name])} → {_figure(after[name])}")
    return lines


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4f}"
