"""`fedcell rounds judge`: may the candidate of a run be proposed for release?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .hub import Config, Db
from .prediction import bundle_of
from .release_desk import Folder, model_in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    against: Annotated[
        str | None,
        typer.Option(help="Bundle in use, or 'default'; else what the releases say devices have."),
    ] = None,
    counts: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a run whose private counts can veto; may be repeated."),
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option(help="Public key file that the bundle in use is signed with.")
    ] = None,
    db: Db = None,
    releases: Folder = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a run's candidate beside the model in use, and write proposal.json.

    Both predict the same windows. One worse figure stops the candidate, and so do private counts
    whose interval excludes equality. Ends with 1 where it is not proposed. The model in use is what
    the folder of releases says; where none is known here, it is the default bundle.
    """
    from models.bundle import load_bundle

    from ..runs.run_files import BUNDLE_FILE

    # A run leaves its candidate unsigned: it is signed once it is proposed.
    candidate = load_bundle(run / BUNDLE_FILE, allow_unsigned=True)
    if against is None:
        spec = candidate.manifest["feature_spec_version"]
        current, origin = model_in_use(spec, db=db, folder=releases, config=config)
    else:
        current, origin = bundle_of(against, trusted_key, allow_unsigned=False), "--against"
    tell: Callable[[str], None] = (
        (lambda _: None) if as_json else (lambda line: typer.echo(line, err=True))
    )
    tell(f"in use, by {origin}: {current.version}")
    found = [run, *(counts or [])]
    decision, kept = _decided(run, candidate, current, reference, cells, counts=found, tell=tell)
    if as_json:
        told = {"version": current.version, "digest": current.digest, "by": origin}
        typer.echo(json.dumps({"out": str(kept), **decision.to_json(), "current": told}))
    else:
        typer.echo("\n".join(decision_lines(decision, candidate=candidate, current=current)))
    if not decision.passed:
        raise typer.Exit(1)


def _decided(
    run: Path,
    candidate: Bundle,
    current: Bundle,
    reference: Path,
    cells: Path | None,
    *,
    counts: Sequence[Path],
    tell: Callable[[str], None],
) -> tuple[GateDecision, Path]:
    """Let the gate decide, and keep its decision; returns both.

    Raises:
        OwnFleetError: a dataset is the fleet that the run trained over.
        DatasetError: a dataset cannot be used.
    """
    from models.fleet_dataset import open_fleet

    from ..engine.proposal import JudgedOn, counts_of_runs, judge, keep_decision
    from ..engine.quality_gate import CELLS, REFERENCE
    from ..runs.export_note import was_fitted_on

    sha256 = _nobodys(run, {REFERENCE: reference, CELLS: cells})
    is_half_fitted = was_fitted_on(run, sha256[REFERENCE])
    now = datetime.now(UTC)
    on = JudgedOn(
        reference=open_fleet(reference),
        cells=None if cells is None else open_fleet(cells),
        counts=counts_of_runs(counts),
        is_half_fitted=is_half_fitted,
    )
    decision = judge(candidate, current, on, now=now, tell=tell)
    kept = keep_decision(
        run,
        decision,
        candidate=candidate,
        current=current,
        now=now,
        sha256=sha256,
        is_half_fitted=is_half_fitted,
    )
    return decision, kept


def _nobodys(run: Path, datasets: Mapping[str, Path | None]) -> dict[str, str]:
    """Return the digest of each dataset, by its name.

    Raises:
        OwnFleetError: one is the fleet that the run trained over.
    """
    from ..runs.export_note import require_nobodys
    from ..runs.replay_record import folder_digest

    found = {}
    for name, where in datasets.items():
        if where is not None:
            found[name] = folder_digest(where)
            require_nobodys(run, where, found[name])
    return found


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
