"""`fedcell rounds resume`: lifts a pause, or goes on with a run whose process has gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Run = Annotated[Path, typer.Argument(help="Folder of the run, as --out named it.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that train; one a core unless given.", min=1)
]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="Serve metrics on this TCP port instead; 0 for any free one.", min=0),
]
MetricsHost = Annotated[str | None, typer.Option(help="Address of that port.")]
LogLevel = Annotated[
    str | None, typer.Option(help="Least level of engine.jsonl: debug, info, warning or error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def resume_command(
    run: Run,
    workers: Workers = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    log_level: LogLevel = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run: lift its pause, or take it up where its process was ended, at any point.

    The options are those it was started with, but for how it is watched. The result is that of a
    run nobody interrupted, bit for bit. A run that is finished is told once
    more; one that was cancelled goes on nowhere.
    """
    from server.commands.rounds_steering import lift_pause_of_live_run
    from server.runs.folder import command_of
    from server.runs.run_files import BUNDLE_FILE
    from server.runs.status import STATUS_FILE

    from .rounds_carrying import carry_out, options_from, print_outcome
    from .rounds_taken_up import WATCHED

    report = _report_of(run)
    is_finished = report.get("status") == "finished"
    if is_finished and (run / BUNDLE_FILE).exists():
        print_outcome(report, out=run, as_json=as_json)
        return
    is_watched = (run / STATUS_FILE).exists() and not is_finished
    if is_watched and lift_pause_of_live_run(run, as_json=as_json):
        return
    record = command_of(run)
    options, policy = options_from(record, out=run, workers=workers, as_json=as_json)
    watched = zip(WATCHED, (metrics_port, metrics_host, log_level), strict=True)
    options |= {name: value for name, value in watched if value is not None}
    carry_out(options, policy=policy, is_resumed=True)


def _report_of(run: Path) -> dict[str, Any]:
    """Return what `run.json` holds; nothing where the run was ended before it was written."""
    from server.runs.run_files import REPORT_FILE

    try:
        found = json.loads((run / REPORT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
