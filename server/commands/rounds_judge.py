"""`fedcell rounds judge`: may the candidate of a run be proposed for release?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .prediction import bundle_of

if TYPE_CHECKING:
    from models.bundle import Bundle

    from ..engine.quality_gate import GateDecision


def judge_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, with its bundle.zip.")],
    reference: Annotated[
        Path,
        typer.Option(
            help="Fleet dataset with outcomes, of simulated devices on which nothing was fitted."
        ),
    ],
    cells: Annotated[
        Path | None, typer.Option(help="Public cells as fedcell import-cells writes them.")
    ] = None,
    against: Annotated[str, typer.Option(help="Bundle in use, or 'default'.")] = "default",
    counts: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a run whose private counts can veto; may be repeated."),
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option(help="Public key file that the bundle in use is signed with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a run's candidate beside the model in use, and write proposal.json.

    Both predict the same windows. One worse figure stops the candidate, and so do private counts
    whose interval excludes equality. Ends with 1 where it is not proposed.
    """
    from models.bundle import load_bundle
    from models.fleet_dataset import open_fleet

    from ..engine.proposal import JudgedOn, counts_of_runs, judge, keep_decision
    from ..runs.export_note import was_fitted_on
    from ..runs.run_files import BUNDLE_FILE

    current = bundle_of(against, trusted_key, allow_unsigned=False)
    # A run leaves its candidate unsigned: it is signed once it is proposed.
    candidate = load_bundle(run / BUNDLE_FILE, allow_unsigned=True)
    now = datetime.now(UTC)
    decision = judge(
        candidate,
        current,
        JudgedOn(
            reference=open_fleet(reference),
            cells=None if cells is None else open_fleet(cells),
            counts=counts_of_runs([run, *(counts or [])]),
            is_half_fitted=was_fitted_on(run, reference),
        ),
        now=now,
        tell=(lambda _: None) if as_json else (lambda line: typer.echo(line, err=True)),
    )
    kept = keep_decision(run, decision, candidate=candidate, current=current, now=now)
    if as_json:
        typer.echo(json.dumps({"out": str(kept), **decision.to_json()}))
    else:
        typer.echo("\n".join(decision_lines(decision, candidate=candidate, current=current)))
    if not decision.passed:
        raise typer.Exit(1)


def decision_lines(decision: GateDecision, *, candidate: Bundle, current: Bundle) -> list[str]:
    """Lay a decision out for a terminal: every figure of both models, and the answer."""
    width = max(len(f"{check.figure} on {check.dataset}") for check in decision.checks)
    lines = [f"{'':{width + 2}}  {'candidate':>9}  {'in use':>9}"]
    for check in decision.checks:
        name = f"{check.figure} on {check.dataset}"
        mark = "ok" if check.ok else "no"
        lines.append(f"{mark}  {name:{width}}{_cell(check.candidate)}{_cell(check.current)}")
    answer = "proposed" if decision.passed else "not proposed"
    lines.append(f"{candidate.version} against {current.version}: {answer}. {decision.why}")
    return lines


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>11}"
