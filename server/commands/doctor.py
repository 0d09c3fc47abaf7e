"""`fedcell doctor`: what this machine has and lacks, and how complete a fleet's telemetry is."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..doctor import Check, Verdict, examine, has_failed

if TYPE_CHECKING:
    from models.telemetry_audit import AuditReport

BESIDE_THE_PROJECT = Path("../shared/data/cells")
MARKS = {Verdict.OK: "ok", Verdict.NOTE: "--", Verdict.FAILED: "NO"}


def register(app: typer.Typer) -> None:
    """Add `doctor` to the root command."""
    app.command("doctor")(doctor)


def doctor(
    *,
    fleet: Annotated[
        Path | None, typer.Option(help="Audit this fleet dataset instead of the machine.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="TOML file that maps foreign column names.")
    ] = None,
    cells: Annotated[
        Path, typer.Option(envvar="FEDCELL_CELLS", help="Folder of real ageing cells.")
    ] = BESIDE_THE_PROJECT,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check what fedcell needs from this machine, or audit the telemetry of a fleet."""
    now = datetime.now(UTC)
    if fleet is not None:
        devices, report = audit_fleet(fleet, columns, now)
        passed = any(report.completeness.values())
        answer = {"ok": passed, "fleet": str(fleet), "devices": devices, **asdict(report)}
        lines = audit_lines(fleet, devices, report)
    else:
        checks = examine(now=now, cells=cells)
        passed = not has_failed(checks)
        answer = {"ok": passed, "checks": [asdict(check) for check in checks]}
        lines = check_lines(checks)
    print(json.dumps(answer) if as_json else "\n".join(lines))
    if not passed:
        raise typer.Exit(1)


def audit_fleet(fleet: Path, columns: Path | None, now: datetime) -> tuple[int, AuditReport]:
    """Read a fleet's telemetry and count what its audit accepts and refuses.

    Args:
        fleet: folder of a fleet dataset.
        columns: file that maps foreign column names, None where they are ours.
        now: readings more than a day later are refused.

    Returns:
        The number of devices, and the counts.

    Raises:
        DatasetError: when the folder cannot be read as a fleet dataset.
    """
    from models.fleet_dataset import open_fleet, read_column_map
    from models.telemetry_audit import audit

    column_map = None if columns is None else read_column_map(columns)
    dataset = open_fleet(fleet, column_map=column_map)
    audited = audit(
        dataset.telemetry(),
        manufactured_at_s=dataset.profiles.manufactured_at_s,
        now_s=int(now.timestamp()),
    )
    return len(dataset.profiles), audited.report


def check_lines(checks: tuple[Check, ...]) -> list[str]:
    """Lay checks out for a terminal: mark, name, finding, and the remedy on a line of its own."""
    lines = []
    for check in checks:
        lines.append(f"{MARKS[check.verdict]}  {check.name:<13} {check.found}")
        if check.remedy:
            lines.append(f"    {'':<13} → {check.remedy}")
    return lines


def audit_lines(fleet: Path, devices: int, report: AuditReport) -> list[str]:
    """Lay an audit out for a terminal: completeness, then what was refused and noted, by reason."""
    lines = [f"{fleet}: {devices} devices, {report.num_readings} readings", "", "completeness"]
    lines += [f"  {name:<28} {share:7.1%}" for name, share in report.completeness.items()]
    for title, counts in (("refused", report.refused), ("noted", report.noted)):
        lines += ["", title if counts else f"{title}: nothing"]
        lines += [f"  {reason:<40} {count:>9}" for reason, count in sorted(counts.items())]
    return lines
