"""`fedcell import-cells`: cycling data of laboratories becomes a fleet dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import-cells")(import_cells_command)


def import_cells_command(
    files: Annotated[
        list[Path], typer.Argument(help="Parquet files of cycling data.", metavar="FILE...")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the fleet dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn cycling data (one row a cell and cycle) into a fleet dataset.

    device_id is the cell's id; cycle day d is stamped 2024-01-01 + d days; resistance becomes
    milliohm. Without a column eol_flag no outcomes are written.
    """
    import numpy as np

    from models.cycling_cells import import_cells

    cells = import_cells(files, out)
    outcomes = cells.outcomes
    failures = None if outcomes is None else int(np.isfinite(outcomes.failed_at_s).sum())
    summary = {
        "fleet": str(out),
        "devices": len(cells.profiles),
        "readings": len(cells.telemetry),
        "failures": failures,
        "datasets": sorted(set(cells.datasets.tolist())),
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    known = "outcomes unknown" if failures is None else f"{failures} reach end of life"
    typer.echo(f"{len(cells.profiles)} cells, {len(cells.telemetry):,} readings, {known}: {out}")
