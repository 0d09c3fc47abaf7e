"""`fedcell doctor`: what this machine has and lacks, and how complete a fleet's telemetry is."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ..doctor import Check, Verdict, examine, has_failed

BESIDE_THE_PROJECT = Path("../shared/data/cells")
MARKS = {Verdict.OK: "ok", Verdict.NOTE: "--", Verdict.FAILED: "NO"}


def register(app: typer.Typer) -> None:
    """Add `doctor` to the root command."""
    app.command("doctor")(doctor)


def doctor(
    *,
    cells: Annotated[
        Path, typer.Option(envvar="FEDCELL_CELLS", help="Folder of real ageing cells.")
    ] = BESIDE_THE_PROJECT,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check what fedcell needs from this machine, with a remedy for what is missing."""
    checks = examine(now=datetime.now(UTC), cells=cells)
    failed = has_failed(checks)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    else:
        print("\n".join(lines_of(checks)))
    if failed:
        raise typer.Exit(1)


def lines_of(checks: tuple[Check, ...]) -> list[str]:
    """Lay checks out for a terminal: mark, name, finding, and the remedy on a line of its own."""
    lines = []
    for check in checks:
        lines.append(f"{MARKS[check.verdict]}  {check.name:<13} {check.found}")
        if check.remedy:
            lines.append(f"    {'':<13} → {check.remedy}")
    return lines
