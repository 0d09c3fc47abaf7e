"""`fedcell privacy plan`: a schedule for a fleet, and what follows from it."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..plans.privacy_plan import PlanReport


def plan(
    *,
    devices: Annotated[int, typer.Option(help="Enrolled devices.", min=1)],
    epsilon: Annotated[float, typer.Option(help="ε_release of one device, for its life.")] = 2.0,
    years: Annotated[float, typer.Option(help="How long the fleet shall learn.")] = 2.0,
    delta: Annotated[float, typer.Option(help="δ of the ε.")] = 1e-8,
    rounds_a_week: Annotated[float, typer.Option(help="Rounds that the server runs.")] = 1.0,
    most_a_year: Annotated[
        float, typer.Option(help="Rounds a year that one device takes part in, at most.")
    ] = 12.0,
    dropout: Annotated[
        float, typer.Option(help="Share of invited devices that do not answer.")
    ] = 0.0,
    weights: Annotated[
        int | None, typer.Option(help="Weights of the network; else of fedcell's.", min=1)
    ] = None,
    auc: Annotated[
        float, typer.Option(help="AUC that the model is assumed to have, for the metrics.")
    ] = 0.85,
    prevalence: Annotated[
        float, typer.Option(help="Share of devices assumed to fail within 30 days.")
    ] = 0.01,
    clip_quantile: Annotated[
        float | None,
        typer.Option(
            help="Let C follow this quantile of updates' lengths, in private; else fixed."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Day of the first round, YYYY-MM-DD; else today.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this file, .svg or .png.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the policy, to be signed, into this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose cohort, participations, separation and noise for a fleet at a given ε.

    Ends with 1 where noise would outweigh everything that so few devices can say.
    """
    from models.network_shape import NUM_WEIGHTS
    from privacy.planner import plan_for

    from ..plans.privacy_plan import plan_request, report_of_plan

    request = plan_request(
        devices=devices,
        epsilon=epsilon,
        years=years,
        delta=delta,
        rounds_a_week=rounds_a_week,
        most_a_year=most_a_year,
        dropout=dropout,
        weights=NUM_WEIGHTS if weights is None else weights,
        target_quantile=clip_quantile,
    )
    report = report_of_plan(plan_for(request), start=_day(start), auc=auc, prevalence=prevalence)
    written = _written(report, plot=plot, out=out)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    _print_table(report.rows())
    _print_meaning()
    for line in written:
        typer.echo(line)


def _written(report: PlanReport, *, plot: Path | None, out: Path | None) -> list[str]:
    """Write what was asked for, and return a line about each file."""
    from models.durable_file import write_durably

    from ..plans.privacy_plan_plot import draw_plan

    lines = []
    if plot is not None:
        draw_plan(report, plot)
        lines.append(f"plot: {plot}")
    if out is not None:
        policy = report.plan.policy(stream=f"stream-{secrets.token_hex(8)}")
        write_durably(out, policy.to_bytes() + b"\n")
        lines.append(f"policy, to be signed: {out}")
    return lines


def _day(text: str | None) -> dt.date:
    if text is None:
        return dt.datetime.now(dt.UTC).date()
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        message = f"--start {text!r}: write a day as YYYY-MM-DD"
        raise typer.BadParameter(message) from None


def _print_table(rows: dict[str, str]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for what, value in rows.items():
        table.add_row(what, value)
    Console(highlight=False, markup=False).print(table)


def _print_meaning() -> None:
    from privacy.statement import OF_PLAN

    for line in OF_PLAN.to_lines():
        typer.echo(line)
