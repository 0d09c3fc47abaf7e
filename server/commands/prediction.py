"""`fedcell predict` and `fedcell evaluate`: a bundle over a fleet dataset, and how good it is."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.metrics import Quality

    from ..fleet_evaluation import Split

MOST_DAYS = 3_650

_SHOWN = (
    ("average_precision", "avg prec"),
    ("auc", "AUC"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("ece", "ECE"),
    ("mae_days_when_90_or_less", "MAE d"),
    ("coverage_p10_p90", "cover"),
)


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("predict")(predict_command)
    app.command("evaluate")(evaluate_command)


def days_of(text: str) -> int:
    """Parse an interval such as 1d or 7d.

    Raises:
        typer.BadParameter: when it is none.
    """
    number = text.removesuffix("d")
    # Python itself refuses to read thousands of digits.
    is_short = number.isdecimal() and len(number) <= len(str(MOST_DAYS))
    if not (is_short and 1 <= int(number) <= MOST_DAYS):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        message = f"{shown!r} is no number of days from 1d to {MOST_DAYS}d; write 1d, 7d or more"
        raise typer.BadParameter(message, param_hint="'--every'")
    return int(number)


def bundle_of(source: str, trusted_key: Path | None, *, allow_unsigned: bool) -> Bundle:
    """Load a bundle as the options of a command describe it."""
    from models.bundle import load_bundle
    from models.trusted_keys import read_trusted_keys

    keys = read_trusted_keys(trusted_key) if trusted_key is not None else {}
    return load_bundle(source, trusted_keys=keys, allow_unsigned=allow_unsigned)


def predict_command(
    fleet: Annotated[Path, typer.Option(help="Folder of a fleet dataset.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    bundle: Annotated[str, typer.Option(help="A bundle, or 'default'.")] = "default",
    every: Annotated[
        str, typer.Option(help="Days between rows of one device, such as 1d or 7d.")
    ] = "1d",
    columns: Annotated[
        Path | None, typer.Option(help="TOML file that maps foreign column names.")
    ] = None,
    reasons: Annotated[
        str, typer.Option(help="Reasons for 'due' rows, 'all' or 'none'.", metavar="WHICH")
    ] = "due",
    trusted_key: Annotated[
        Path | None, typer.Option(help="Public key file that the bundle must be signed with.")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Accept an unsigned bundle of your own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict every device at every n-th UTC midnight that its readings reach.

    Rows that cannot be predicted say why in their status. Reasons are computed for rows that are
    due: flagged, or an action other than routine monitoring.
    """
    every_days = days_of(every)
    if reasons not in ("due", "all", "none"):
        message = f"--reasons {reasons!r}: use due, all or none"
        raise typer.BadParameter(message)

    from rich.console import Console
    from rich.progress import Progress

    from models.fleet_dataset import open_fleet, read_column_map
    from models.fleet_predictions import Reasons, predict_fleet
    from models.inference import Predictor

    chosen = bundle_of(bundle, trusted_key, allow_unsigned=allow_unsigned)
    dataset = open_fleet(fleet, column_map=read_column_map(columns) if columns else None)
    started = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("predicting", total=len(dataset.profiles))
        result = predict_fleet(
            dataset,
            Predictor(chosen, num_threads=os.cpu_count() or 1),
            out,
            now_s=int(time.time()),
            every_days=every_days,
            reasons=Reasons(reasons),
            on_devices=lambda done: progress.update(task, completed=done),
        )
    seconds = time.monotonic() - started
    if as_json:
        summary = {"out": str(out), "model_version": chosen.version, "seconds": round(seconds, 3)}
        typer.echo(json.dumps(summary | asdict(result)))
        return
    states = ", ".join(f"{count:,} {status}" for status, count in result.by_status.items())
    typer.echo(
        f"{result.num_rows:,} rows ({states}), {result.num_flagged:,} flagged, "
        f"by {chosen.version} in {seconds:.1f} s: {out}"
    )
    for reason, count in sorted(result.refused.items()):
        typer.echo(f"  refused {count:,}: {reason}")


def evaluate_command(
    predictions: Annotated[Path, typer.Option(help="Table written by 'fedcell predict'.")],
    fleet: Annotated[Path, typer.Option(help="The fleet it was made from, with outcomes.")],
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train the central, non-private peers too.")
    ] = False,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out",
            help="Judge only on the devices that 'fedcell rounds start' never trains on.",
        ),
    ] = False,
    columns: Annotated[
        Path | None, typer.Option(help="TOML file that maps foreign column names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge predictions against outcomes, beside simple rules and, if asked for, central peers.

    A window is positive when the failure comes within 30 days after it, negative when the device
    is known to have lived through them, and left out otherwise. Peers are cross-fitted by device;
    with --held-out they learn from the devices that a run of rounds trains on, as its model did.
    """
    from models.fleet_dataset import open_fleet, read_column_map
    from server.fleet_evaluation import evaluate_fleet

    dataset = open_fleet(fleet, column_map=read_column_map(columns) if columns else None)
    found = evaluate_fleet(predictions, dataset, with_peers=baselines, held_out=held_out)
    if as_json:
        named = {name: asdict(quality) for name, quality in found.metrics.items()}
        split = asdict(found.split)
        typer.echo(json.dumps({"horizon_days": 30, "split": split, "metrics": named}))
        return
    typer.echo(split_line(found.split))
    typer.echo(quality_table(found.metrics))


def split_line(split: Split) -> str:
    """Say which devices were judged, and which ones the peers learned from."""
    if split.kind == "all":
        peers = "; peers cross-fitted by device" if split.devices_trained else ""
        return f"judged on all {split.devices_judged:,} devices{peers}"
    peers = f"; peers trained on {split.devices_trained:,} others" if split.devices_trained else ""
    return f"judged on {split.devices_judged:,} devices that rounds hold out{peers}"


def quality_table(metrics: dict[str, Quality]) -> str:
    """Return figures of several models as text; prevalence stands above them."""
    some = next(iter(metrics.values()))
    prevalence = "unknown" if some.prevalence is None else f"{some.prevalence:.2%}"
    width = max(len(name) for name in metrics)
    lines = [
        f"{some.num_windows:,} windows of 30 days, prevalence {prevalence}",
        " ".join([" " * width, *(f"{title:>9}" for _, title in _SHOWN)]),
    ]
    for name, quality in metrics.items():
        values = [getattr(quality, field) for field, _ in _SHOWN]
        cells = ["-".rjust(9) if value is None else f"{value:9.3f}" for value in values]
        lines.append(" ".join([name.ljust(width), *cells]))
    return "\n".join(lines)
