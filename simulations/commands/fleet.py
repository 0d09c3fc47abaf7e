"""`fedcell simulate`: write a simulated fleet as a fleet dataset, and study what privacy costs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import typer

from .faults import faults_command
from .quality import quality_command
from .scenarios import ScenarioOption, scenarios_command

if TYPE_CHECKING:
    from ..fleet_writing import WrittenFleet
    from ..prevalence import FleetSummary
    from ..recipe import FleetRecipe

MOST_DEVICES = 10_000_000
"""Profiles and outcomes of a whole fleet stand in memory: some hundred bytes a device."""


def register(app: typer.Typer) -> None:
    """Add the group `simulate` with the commands `fleet`, `scenarios`, `quality` and `faults`."""
    simulate = typer.Typer(help="Simulated fleets.", no_args_is_help=True)
    simulate.command("fleet")(simulate_fleet_command)
    simulate.command("scenarios")(scenarios_command)
    simulate.command("quality")(quality_command)
    simulate.command("faults")(faults_command)
    app.add_typer(simulate, name="simulate")


def simulate_fleet_command(
    out: Annotated[Path, typer.Option(help="New folder for the fleet dataset.")],
    scenario: ScenarioOption = None,
    devices: Annotated[
        int | None,
        typer.Option(help="Number of devices; the scenario's.", min=1, max=MOST_DEVICES),
    ] = None,
    days: Annotated[
        int | None, typer.Option(help="Days of telemetry; the scenario's.", min=1, max=36_500)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed makes the same fleet; the scenario's, or 0.", min=0),
    ] = None,
    climate_mix: Annotated[
        str | None,
        typer.Option(help="Shares of climates, such as hot-arid=0.7,tropical=0.3."),
    ] = None,
    warming_c: Annotated[
        float | None, typer.Option(help="Added to all ambient temperatures, °C.")
    ] = None,
    bad_lot_share: Annotated[
        float | None, typer.Option(help="Share of packs from a bad lot.")
    ] = None,
    gauge_noise: Annotated[
        float | None, typer.Option(help="Read noise of the capacity, fraction.")
    ] = None,
    gauge_bias: Annotated[
        float | None, typer.Option(help="Factor on the gauges' bias of 1.5-3 %.")
    ] = None,
    cadence_h: Annotated[
        int | None, typer.Option(help="Hours between readings: 6, 12 or 24.")
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KNOB=VALUE", help="Any knob of FleetRecipe; may be repeated."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate a fleet and write it as a fleet dataset.

    Knobs are those of the scenario, or the defaults, and what is set here goes before them. Beside
    the dataset's files the folder gets `simulation.json`: seed, recipe and what became of the
    fleet. With it any device can be simulated again.
    """
    from ..fleet_writing import write_simulated_fleet

    given = {
        "climate_mix": climate_mix,
        "warming_c": warming_c,
        "bad_lot_share": bad_lot_share,
        "gauge_noise": gauge_noise,
        "gauge_bias_scale": gauge_bias,
        "cadence_h": cadence_h,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= dict(_knob(text) for text in knob or [])
    plan = _plan_of(scenario, settings, devices=devices, days=days, seed=seed)
    began = time.perf_counter()
    with _Progress(plan.devices, shown=not as_json) as progress:
        written = write_simulated_fleet(
            out,
            num_devices=plan.devices,
            num_days=plan.days,
            seed=plan.seed,
            recipe=plan.recipe,
            scenario=plan.scenario,
            on_devices_done=progress.measured,
            on_devices_lived=progress.lived,
        )
    seconds = time.perf_counter() - began
    _print_written(out, plan, written, seconds=seconds, as_json=as_json)


def _print_written(
    out: Path, plan: _FleetPlan, written: WrittenFleet, *, seconds: float, as_json: bool
) -> None:
    if as_json:
        answer = {"out": str(out), "scenario": plan.scenario, "seed": plan.seed}
        answer |= {"readings": written.readings}
        answer |= written.summary.to_json() | {"seconds": round(seconds, 2)}
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(
        f"{written.readings:,} readings of {plan.devices:,} devices over {plan.days} days in {out}"
    )
    for line in summary_lines(written.summary):
        typer.echo(line)
    typer.echo(f"{seconds:.1f} s")


class _FleetPlan(NamedTuple):
    scenario: str | None
    devices: int
    days: int
    seed: int
    recipe: FleetRecipe


def _plan_of(
    name: str | None,
    settings: dict[str, Any],
    *,
    devices: int | None,
    days: int | None,
    seed: int | None,
) -> _FleetPlan:
    """Put together what a scenario says and what was asked for beside it."""
    from ..recipe import FleetRecipe
    from ..scenarios import load_scenario

    if name is None:
        for option, value in (("'--devices'", devices), ("'--days'", days)):
            if value is None:
                raise typer.BadParameter("say how many, or name a --scenario", param_hint=option)
        return _FleetPlan(None, devices or 0, days or 0, seed or 0, FleetRecipe.of(settings))
    scenario = load_scenario(name)
    return _FleetPlan(
        scenario=scenario.name,
        devices=scenario.devices if devices is None else devices,
        days=scenario.days if days is None else days,
        seed=scenario.seed if seed is None else seed,
        recipe=FleetRecipe.of(scenario.recipe.to_json() | settings),
    )


def _knob(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{text!r} is not KNOB=VALUE", param_hint="'--set'")
    return name.strip(), value.strip()


def summary_lines(summary: FleetSummary) -> list[str]:
    """Say in a few lines what became of a fleet's first packs."""
    if summary.prevalence_30d is None:
        prevalence = "unknown: no day's next 30 are seen"
    else:
        prevalence = (
            f"{summary.prevalence_30d:.2%} of {summary.device_days_at_risk:,} device-days at risk "
            "have a failure within the next 30 days"
        )
    lines = [f"30-day prevalence  {prevalence}"]
    if summary.failures:
        shares = ", ".join(f"{cause} {share:.0%}" for cause, share in summary.cause_shares.items())
        silent = f"{summary.silent_failure_share:.0%} of them"
        lines.append(f"failures           {summary.failures:,} first packs: {shares}")
        lines.append(f"silent for ever    {silent}, which can never train on their own failure")
    else:
        lines.append("failures           none")
    ends = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in summary.endings.items() if count
    )
    lines += [
        f"first packs        {ends}",
        f"new packs          in {summary.replaced_devices:,} devices",
    ]
    return lines


class _Progress:
    """Bars on standard error, where it is a terminal: outcomes first, readings after them."""

    def __init__(self, total: int, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
            transient=True,
        )
        self._lives = self._bar.add_task("devices that lived", total=total)
        self._readings = self._bar.add_task("devices measured  ", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def lived(self, devices: int) -> None:
        self._bar.advance(self._lives, devices)

    def measured(self, devices: int) -> None:
        self._bar.advance(self._readings, devices)
