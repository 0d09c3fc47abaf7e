"""`fedcell simulate scenarios`: the named fleets, what they are made of and how often they fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..scenarios import FleetPrevalence, Scenario

_MEASURED_SEED = 102
"""Another one than that of the figures in the files."""


def scenario_names(incomplete: str) -> list[str]:
    """Complete the name of a scenario, for the shell."""
    from ..scenarios import SCENARIO_NAMES

    return [name for name in SCENARIO_NAMES if name.startswith(incomplete)]


ScenarioOption = Annotated[
    str | None,
    typer.Option(
        help="A named fleet (see simulate scenarios), or a TOML file of your own.",
        autocompletion=scenario_names,
    ),
]
"""How a command asks for a scenario."""


def scenarios_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show this one in full: a name, or a TOML file.", autocompletion=scenario_names
        ),
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(help="Let so many devices of each live and count their failures anew.", min=1),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the named fleets, or show one: its recipe, its faults, its 30-day prevalence.

    Prevalence is the share of device-days at risk with a true failure within the next 30 days. No
    precision means anything without it.
    """
    from ..scenarios import SCENARIO_NAMES, load_scenario, measured_prevalence

    chosen = [load_scenario(one) for one in ((name,) if name else SCENARIO_NAMES)]
    found = {
        scenario.name: measured_prevalence(scenario, devices=measure, seed=_MEASURED_SEED)
        for scenario in chosen
        if measure is not None
    }
    if as_json:
        told = [_json_of(scenario, found.get(scenario.name)) for scenario in chosen]
        typer.echo(json.dumps(told[0] if name else told, indent=2, default=str))
    elif name:
        typer.echo("\n".join(_in_full(chosen[0], found.get(chosen[0].name))))
    else:
        _print_table(chosen, found)


def _json_of(scenario: Scenario, found: FleetPrevalence | None) -> dict[str, Any]:
    told = scenario.to_json()
    if found is not None:
        told |= {"measured_30d": found.share, "measured_interval": list(found.interval)}
    return told


def _print_table(chosen: list[Scenario], found: dict[str, FleetPrevalence]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("scenario", no_wrap=True)
    table.add_column("30-day prevalence", justify="right", no_wrap=True)
    if found:
        table.add_column("measured now", justify="right", no_wrap=True)
    table.add_column("what it is")
    for scenario in chosen:
        now = [_measured(found[scenario.name])] if found else []
        table.add_row(scenario.name, _stated(scenario), *now, scenario.summary)
    Console().print(table)


def _in_full(scenario: Scenario, found: FleetPrevalence | None) -> list[str]:
    from ..fleet_faults import FaultPlan
    from ..recipe import FleetRecipe

    usual, faultless = FleetRecipe().to_json(), FaultPlan()
    changed = {
        knob: value for knob, value in scenario.recipe.to_json().items() if value != usual[knob]
    }
    told = scenario.to_json()["faults"]
    faults = {key: told[key] for key in told if told[key] != getattr(faultless, key)}
    lines = [scenario.name, scenario.summary, "", scenario.description, ""]
    lines.append(f"30-day prevalence  {_stated(scenario)}")
    if found is not None:
        lines.append(f"measured now       {_measured(found)}")
    lines.append(
        f"size               {scenario.devices:,} devices, {scenario.days} days, "
        f"seed {scenario.seed}, unless told otherwise"
    )
    for title, table in (("recipe", changed), ("faults in rounds", faults)):
        if table:
            lines += ["", f"{title}, where it differs from the default"]
            lines += [f"  {key} = {value}" for key, value in table.items()]
    return lines


def _stated(scenario: Scenario) -> str:
    stated = scenario.prevalence
    return "not stated" if stated is None else f"{100 * stated.share:.2f} %"


def _measured(found: FleetPrevalence) -> str:
    low, high = found.interval
    return f"{100 * found.share:.2f} % ({100 * low:.2f}-{100 * high:.2f})"
