"""`fedcell rounds replay`: does a run's record hold, and does a seeded run repeat?"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from server.runs.verification import Check

Run = Annotated[Path, typer.Argument(help="Folder of the run, as --out named it.")]
Fleet = Annotated[Path, typer.Option(help="Folder of the fleet dataset that it ran over.")]
Home = Annotated[
    Path | None,
    typer.Option(help="Privacy home that the run charges; the one it noted unless given."),
]
Owners = Annotated[
    Path | None, typer.Option(help="CSV file of devices and owners, where the run had one.")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that train; one a core unless given.", min=1)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def replay(
    run: Run,
    fleet: Fleet,
    privacy_home: Home = None,
    owners: Owners = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Verify a run's record; run a seeded run anew and compare every round digest by digest.

    Of a run with real noise everything is verified that needs no key: digests, ledger chain,
    counts, ε; what cannot be is said. Ends with 1 at the first difference, which is named.
    """
    from server.runs.reading import read_report
    from server.runs.replay_record import folder_digest
    from server.runs.verification import (
        BOUND_BY_NOTHING,
        OF_REAL_ENTROPY,
        first_difference,
        verify_record,
        version_notes,
    )

    report = read_report(run)
    checks = verify_record(
        run,
        report,
        home=_home(run, privacy_home),
        fleet_sha256=folder_digest(fleet) if fleet.is_dir() else None,
    )
    is_seeded = report.get("record", {}).get("seed") is not None
    if is_seeded and first_difference(checks) is None:
        checks += _run_anew(run, report, fleet, owners=owners, workers=workers)
    difference = first_difference(checks)
    beyond = BOUND_BY_NOTHING if is_seeded else (*OF_REAL_ENTROPY, *BOUND_BY_NOTHING)
    notes = version_notes(report)
    if as_json:
        answer = {
            "schema_version": 1,
            "run": report["config"]["stream"],
            "is_run_anew": is_seeded,
            "same": difference is None,
            "first_difference": None if difference is None else difference.to_json(),
            "checks": [check.to_json() for check in checks],
            "not_verifiable": list(beyond),
            "versions_that_differ": notes,
        }
        print(json.dumps(answer))
    else:
        _print(checks, notes=notes, beyond=beyond, rounds=len(report["rounds"]))
    if difference is not None:
        raise typer.Exit(1)


def _run_anew(
    run: Path,
    report: Mapping[str, Any],
    fleet: Path,
    *,
    owners: Path | None,
    workers: int | None,
) -> list[Check]:
    from server.owners import read_owners

    from ..fleet_rows import fleet_rows
    from ..run_replay import replay_seeded

    with tempfile.TemporaryDirectory(prefix="fedcell-replay-") as scratch:
        return replay_seeded(
            run,
            report,
            fleet_rows(fleet),
            scratch=Path(scratch) / "run",
            clock=lambda: datetime.now(UTC),
            owners=None if owners is None else read_owners(owners),
            num_workers=workers,
        )


def _home(run: Path, given: Path | None) -> Path:
    from server.runs.status import read_status

    if given is not None:
        return given
    status = read_status(run)
    return Path(status.home) if status is not None and status.home else run


def _print(
    checks: Sequence[Check], *, notes: Sequence[str], beyond: Sequence[str], rounds: int
) -> None:
    from server.runs.verification import Verdict, first_difference

    for note in notes:
        print(f"version      {note}: the last digit may differ")
    same = sum(check.verdict is Verdict.SAME for check in checks)
    for check in checks:
        if check.verdict is Verdict.UNKNOWN:
            print(f"not verified {check.name}: {check.said}")
    for what in beyond:
        print(f"not verifiable: {what}")
    difference = first_difference(checks)
    if difference is None:
        print(f"the same     {same} comparisons over {rounds} rounds, no difference")
        return
    print(f"DIFFERS      {difference.name}")
    print(f"             recorded {difference.said}")
    print(f"             found    {difference.found}")
