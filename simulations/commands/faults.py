"""`fedcell simulate faults`: what a fleet that vanishes and lies does to federated rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .study_progress import StudyProgress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def faults_command(
    out: Annotated[
        Path, typer.Option(help="Folder of the study; one that was stopped goes on from there.")
    ] = Path("build/faults"),
    fleet: Annotated[
        Path | None,
        typer.Option(help="Folder of a fleet that simulate quality left; its own unless given."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="faults, poisons, backdoors or past; may be repeated. All unless given."),
    ] = None,
    devices: Annotated[int, typer.Option(help="Devices that are enrolled.", min=100)] = 10_000,
    cohort: Annotated[int, typer.Option(help="Devices invited to each round.", min=1)] = 500,
    rounds: Annotated[int, typer.Option(help="Number of rounds.", min=1)] = 200,
    epsilon: Annotated[float, typer.Option(help="ε_release of every arm.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Its δ.")] = 1e-8,
    seeds: Annotated[int, typer.Option(help="Starts from random weights: 1, 2, …", min=1)] = 3,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the study into this file, .svg or .png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare runs over a fleet with faults to the same run without, on devices that never train.

    faults: 30 % of the invited absent, 5 % of the replies hostile. poisons: 10 % of the devices
    scale, flip signs or labels before clipping. past: the same lies past the clipping. backdoors:
    devices that teach a trigger. All arms of a seed have the same start, cohorts and noise, and the
    same ε. The folder keeps the fleet and each arm's result; faults.json is the summary.
    """
    from models.durable_file import write_durably

    from ..fault_plot import draw_faults
    from ..fault_study import PARTS, arms_of, run_study
    from ..quality_fleet import StudyFleetPlan, prepared_fleet
    from ..quality_plot import FORMATS
    from ..quality_study import QualityPlan

    if plot is not None and plot.suffix.lower() not in FORMATS:
        raise typer.BadParameter(f"end it in {' or '.join(FORMATS)}", param_hint="'--plot'")
    unknown = [name for name in part or () if name not in PARTS]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(PARTS)}", param_hint="'--part'"
        )
    arms = {arm.name: arm for kind in part or PARTS for arm in arms_of(kind)}
    plan = QualityPlan(num_rounds=rounds, cohort_size=cohort, epsilon=epsilon, delta=delta)
    with StudyProgress(rounds=rounds, arms=len(arms) * seeds, shown=not as_json) as progress:
        found = prepared_fleet(
            fleet or out / f"fleet-{devices}",
            StudyFleetPlan(num_devices=devices),
            on_devices_done=progress.simulated,
        )
        summary = run_study(
            found,
            plan,
            arms=tuple(arms.values()),
            seeds=range(1, seeds + 1),
            folder=out,
            on_arm=progress.arm,
            on_round=progress.round_done,
        )
    write_durably(out / "faults.json", f"{json.dumps(summary, indent=2)}\n".encode())
    if plot is not None:
        draw_faults(summary, plot)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for line in summary_lines(summary):
        typer.echo(line)


def _completeness(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what a complete round is, and how many come near to the replies that faults leave."""
    meaning = (
        "rounds: share that is complete, with good replies of half of the cohort and more; the "
        "others are noise alone, and marked so"
    )
    return [meaning] + [
        f"{arm['arm']}: {arm['reached_near_least']:.1%} of rounds have {arm['near_least']} good "
        "replies and more, nine tenths of what such faults leave on average"
        for arm in arms
        if arm.get("reached_near_least") is not None
    ]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Say in a few lines what a study found, with every ε beside its δ and unit."""
    privacy, plan = summary["privacy"], summary["plan"]
    arms = summary["arms"]
    width = max(len(arm["arm"]) for arm in arms)
    titles = "   rounds   replied   average precision   lost to clean              "
    lines = [f"{'arm':<{width}}{titles}trigger flags   hides"]
    for arm in arms:
        spread = f"{min(arm['lost_by_seed']):+.3f} to {max(arm['lost_by_seed']):+.3f}"
        lines.append(
            f"{arm['arm']:<{width}}   {arm['complete']:>6.1%}   {arm['replied']:>7.0f}   "
            f"{arm['average_precision']:>17.3f}   {arm['lost']:+.3f} ({spread})   "
            f"{arm['triggered']['false_alarm']:>13.1%}  {arm['triggered']['hidden_failure']:>6.1%}"
        )
    return [
        *lines,
        *_refusals(arms),
        (
            f"seeds: {len(arms[0]['seeds'])}; medians (least to greatest loss); "
            f"{plan['num_rounds']} rounds of {plan['cohort_size']} of "
            f"{summary['fleet']['num_devices']} simulated devices"
        ),
        *_completeness(arms),
        (
            "the trigger flags this share of the healthy rows that are not flagged without it, and "
            "hides this share of the failing rows that are"
        ),
        (
            f"ε_release = {privacy['epsilon_release']:.3g} at δ = {privacy['delta']:g} in every "
            f"arm; unit: {privacy['unit_of_privacy']}; σ = {privacy['noise_multiplier']:.2f}, "
            f"k = {privacy['participations']}, b = {privacy['min_separation']}"
        ),
        *(f"assumes: {line}" for line in privacy["assumptions"]),
    ]


def _refusals(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name what was refused, arm by arm, where anything was."""
    return [
        f"{arm['arm']}: refused "
        + ", ".join(f"{count} {reason}" for reason, count in arm["refused"].items())
        for arm in arms
        if arm["refused"]
    ]
