"""`fedcell rounds start`: federated rounds over a fleet dataset."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.rounds import RoundRecord
    from server.server_optimizer import OptimizerName, ServerRecipe
    from server.strategy import Metrics

    from ..rounds import RoundsPlan


def register(app: typer.Typer) -> None:
    """Add the group `rounds` with the command `start`."""
    rounds = typer.Typer(help="Federated rounds.", no_args_is_help=True)
    rounds.callback()(_group)
    rounds.command("start")(start_command)
    app.add_typer(rounds, name="rounds")


def _group() -> None:
    """Federated rounds."""


def start_command(
    fleet: Annotated[Path, typer.Option(help="Folder of a fleet dataset with outcomes.")],
    rounds: Annotated[int, typer.Option(help="Number of rounds.", min=1)],
    out: Annotated[Path, typer.Option(help="New folder for the run.")],
    bundle: Annotated[
        str, typer.Option(help="Start from: default, a bundle's path, or none (random weights).")
    ] = "default",
    cohort: Annotated[
        int | None,
        typer.Option(help="Devices invited to each round; all of them unless given.", min=1),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="ε of all released models together.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Its δ.")] = 1e-8,
    noise: Annotated[
        bool, typer.Option(help="Noise on releases; without it nothing can be released.")
    ] = True,
    record_level: Annotated[
        bool, typer.Option(help="Record-level DP-SGD on each device, by Opacus.")
    ] = True,
    clip: Annotated[
        float | None, typer.Option(help="Clipping norm C of a device's update.", min=0.0)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Server optimiser: fedavg, fedavgm or fedadam.")
    ] = None,
    server_rate: Annotated[
        float | None, typer.Option(help="Learning rate of the server optimiser.", min=0.0)
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(help="Rounds between two looks at the held-out part.", min=1)
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train; one a core unless given.", min=1)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Repeat the run: noise is then simulated, nothing can be released."),
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option(help="JSON file of public keys that may sign the bundle.")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Start from an unsigned bundle of your own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train the model in federated rounds, with a ledger of what they cost in privacy.

    A real Flower run in its simulation engine: each device trains on its own rows, what it sends is
    clipped, the server adds the noise, and the ledger is charged before anything leaves. The folder
    gets run.json, ledger.jsonl, weights.npz, bundle.zip and flower.log.
    """
    # Before torch and numpy are imported: small arrays run slower on threads that wait for work.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from models.trusted_keys import read_trusted_keys

    from ..rounds import BUNDLE_FILE, run_rounds, starting_bundle
    from ..rounds_recipes import plan_for

    keys = {} if trusted_key is None else read_trusted_keys(trusted_key)
    start = starting_bundle(bundle, trusted_keys=keys, allow_unsigned=allow_unsigned)
    plan = plan_for(
        num_rounds=rounds,
        cohort_size=cohort,
        epsilon=epsilon if noise else None,
        delta=delta,
        is_record_private=record_level,
        is_warm=start is not None,
        clipping_norm=clip,
        server=_server_recipe(optimizer, server_rate, is_warm=start is not None),
        seed=seed,
        evaluate_every=evaluate_every,
    )
    with _Progress(plan, shown=not as_json) as progress:
        outcome = run_rounds(
            fleet,
            out,
            plan,
            clock=lambda: datetime.now(UTC),
            start=start,
            on_start=progress.start,
            on_round=progress.advance,
            num_workers=workers,
        )
    exported = None if outcome.bundle is None else str(out / BUNDLE_FILE)
    if as_json:
        print(json.dumps({"out": str(out), "bundle": exported, **outcome.report}))
        return
    print("\n".join(summary_lines(outcome.report, result=exported or str(out))))


def _server_recipe(
    optimizer: str | None, rate: float | None, *, is_warm: bool
) -> ServerRecipe | None:
    from server.server_optimizer import OPTIMIZER_NAMES, WARM_RATE, ServerRecipe

    if optimizer is None and rate is None:
        return None
    if optimizer not in {None, *OPTIMIZER_NAMES}:
        raise typer.BadParameter(
            f"{optimizer!r} is none of {', '.join(OPTIMIZER_NAMES)}", param_hint="'--optimizer'"
        )
    name: OptimizerName = optimizer or "fedadam"
    of_adam = WARM_RATE if is_warm else ServerRecipe().learning_rate
    usual = of_adam if name == "fedadam" else 1.0
    return ServerRecipe(optimizer=name, learning_rate=usual if rate is None else rate)


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
        "ε_server     unbounded: the operator sees clipped updates",
        f"ε_record     {record}; unit: {privacy['record_unit']}",
        f"noise        {noise}, ledger entries of kind {privacy['entry_kind']}",
    ]
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


class _Progress:
    """Round, loss, ε spent and time left on standard error: a bar, or lines without a terminal."""

    def __init__(self, plan: RoundsPlan, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._plan, self._shown = plan, shown
        self._console = Console(stderr=True)
        self._has_bar = shown and self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._has_bar,
            transient=True,
        )
        self._task = self._bar.add_task(
            "reading the fleet, starting Flower", total=plan.num_rounds, figures=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, metrics: Metrics | None, sigma: float) -> None:
        """Show the figures before the first round, and the noise."""
        self._bar.reset(
            self._task,
            total=self._plan.num_rounds,
            description="rounds",
            figures=_figures(metrics, None, self._plan),
        )
        if self._shown and not self._has_bar:
            said = f"σ = {sigma:.3f}" if sigma > 0 else "without noise"
            print_error(f"rounds start, {said}, {_figures(metrics, None, self._plan)}")

    def advance(self, record: RoundRecord) -> None:
        """Show one more round."""
        figures = _figures(record.metrics, record.epsilon_release, self._plan)
        self._bar.update(self._task, advance=1, figures=figures)
        if self._shown and not self._has_bar:
            total = self._plan.num_rounds
            print_error(f"round {record.index + 1}/{total}, {figures}, {record.seconds:.1f} s")


def _figures(metrics: Metrics | None, epsilon: float | None, plan: RoundsPlan) -> str:
    loss = "–" if metrics is None or metrics["loss"] is None else f"{metrics['loss']:.4f}"
    if plan.epsilon is None:
        return f"loss {loss}, ε unbounded"
    return f"loss {loss}, ε {epsilon or 0.0:.3f} of {plan.epsilon:g} (δ {plan.delta:g})"


def print_error(line: str) -> None:
    """Print a line to standard error."""
    typer.echo(line, err=True)
