"""`fedcell simulate quality`: what privacy costs in quality, over a simulated fleet."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .study_progress import StudyProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def quality_command(
    out: Annotated[
        Path, typer.Option(help="Folder of the study; one that was stopped goes on from there.")
    ] = Path("build/quality"),
    devices: Annotated[int, typer.Option(help="Devices that are enrolled.", min=100)] = 10_000,
    cohort: Annotated[int, typer.Option(help="Devices invited to each round.", min=1)] = 500,
    rounds: Annotated[int, typer.Option(help="Number of rounds.", min=1)] = 200,
    epsilon: Annotated[float, typer.Option(help="ε_release of the private arm.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Its δ.")] = 1e-8,
    seeds: Annotated[int, typer.Option(help="Starts from random weights: 1, 2, …", min=1)] = 5,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves into this file, .svg or .png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare rounds with and without release noise, on devices that never train.

    Both arms have record-level DP-SGD on every device and differ in the noise of releases alone.
    The settings were chosen on seed 0, which is not among those that are judged. The folder keeps
    the fleet and each arm's result; quality.json is the summary.
    """
    from models.durable_file import write_durably

    from ..quality_fleet import StudyFleetPlan, prepared_fleet
    from ..quality_plot import FORMATS, draw_study
    from ..quality_study import ARMS, QualityPlan, run_study

    if plot is not None and plot.suffix.lower() not in FORMATS:
        raise typer.BadParameter(f"end it in {' or '.join(FORMATS)}", param_hint="'--plot'")
    plan = QualityPlan(num_rounds=rounds, cohort_size=cohort, epsilon=epsilon, delta=delta)
    of_fleet = StudyFleetPlan(num_devices=devices)
    with StudyProgress(rounds=rounds, arms=len(ARMS) * seeds, shown=not as_json) as progress:
        fleet = prepared_fleet(
            out / f"fleet-{devices}", of_fleet, on_devices_done=progress.simulated
        )
        summary = run_study(
            fleet,
            plan,
            seeds=range(1, seeds + 1),
            folder=out,
            on_arm=progress.arm,
            on_round=progress.round_done,
        )
    write_durably(out / "quality.json", f"{json.dumps(summary, indent=2)}\n".encode())
    if plot is not None:
        draw_study(summary, plot)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for line in summary_lines(summary):
        typer.echo(line)


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Say in a few lines what a study found, every ε with its δ and unit."""
    privacy, seeds = summary["privacy"], summary["seeds"]
    lines = [
        "seed   AUC: start  without noise (best)  private   gain kept   average precision (kept)"
    ]
    for seed in seeds:
        start, without, private = seed["start"], seed["without_noise"], seed["private"]
        lines.append(
            f"{seed['seed']:>4}   {start['auc']:>10.4f}  {without['auc']:>13.4f} "
            f"{seed['best_without_noise']:.4f}  {private['auc']:>7.4f}   {seed['kept']:>9.1%}   "
            f"{start['average_precision']:.3f}  {without['average_precision']:.3f}  "
            f"{private['average_precision']:.3f}  {seed['average_precision_kept']:.1%}"
        )
    record = privacy["record"]
    return [
        *lines,
        (
            f"gain without noise {median(seed['gain'] for seed in seeds):.4f}, of which the "
            f"private arm keeps {median(seed['kept'] for seed in seeds):.1%}, of the gain at the "
            f"best look without noise {median(seed['kept_of_best'] for seed in seeds):.1%}, and of "
            "the gain in average precision "
            f"{median(seed['average_precision_kept'] for seed in seeds):.1%} (medians over seeds)"
        ),
        (
            "both arms share settings that were chosen with noise in mind; the private arm ends "
            f"above the other in {_num_above(seeds)} of {len(seeds)} seeds, so a share near 1 says "
            "that this noise costs little here, not that noise costs nothing"
        ),
        (
            f"ε_release = {privacy['epsilon_release']:.3g} at δ = {privacy['delta']:g}; unit: "
            f"{privacy['unit_of_privacy']}; σ = {privacy['noise_multiplier']:.2f}, "
            f"k = {privacy['participations']}, b = {privacy['min_separation']}"
        ),
        *(f"assumes: {line}" for line in privacy["assumptions"]),
        (
            f"ε_record = {record['epsilon']:.3g} at δ = {record['delta']:g} in both arms; unit: "
            f"{record['unit']}"
        ),
        *record["is_not"],
        *(f"assumes: {line}" for line in record["assumptions"]),
    ]


def _num_above(seeds: Iterable[Mapping[str, Any]]) -> int:
    """Count the seeds in which the private arm ends with a higher AUC than the other."""
    return sum(seed["private"]["auc"] > seed["without_noise"]["auc"] for seed in seeds)
