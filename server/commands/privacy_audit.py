"""`fedcell privacy audit`: attacks on the real aggregation code, held against what is claimed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from privacy.audit.findings import AuditCheck

_SIGNS = {"at_most": "≤", "at_least": "≥"}


def audit(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer canaries, and one claim in place of three.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="Audit for the release of this run's model, under its policy."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Privacy home that the run was charged to, if not its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Attack the aggregation code of this installation, and hold what is found against the claims.

    Canaries and noise are drawn anew from the operating system's entropy each time. Ends with 1 if
    a check fails; with --run, with 5 if the model may not leave.
    """
    started = time.monotonic()
    if run is not None:
        audit_for_release(run, home=home, as_json=as_json)
        return
    if home is not None:
        raise typer.BadParameter("goes with --run", param_hint="'--home'")
    from ..audits.canary_audit import ALPHA
    from ..audits.privacy_audit import FULL, QUICK, run_audit

    scale = QUICK if quick else FULL
    checks = run_audit(scale)
    seconds = time.monotonic() - started
    passed = all(check.ok for check in checks)
    if as_json:
        listed = [asdict(check) | {"ok": check.ok} for check in checks]
        facts = {"canaries": scale.canaries, "alpha": ALPHA, "seconds": round(seconds, 3)}
        print(json.dumps({"ok": passed, **facts, "checks": listed}))
    else:
        print("\n".join([*audit_table(checks), summary_line(checks, seconds=seconds)]))
    if not passed:
        raise typer.Exit(1)


def audit_for_release(run: Path, *, home: Path | None, as_json: bool) -> None:
    """Audit for the release of a run's model; what refuses it is raised."""
    from ..audits.release_audit import AUDIT_FILE, audit_run

    found = audit_run(run, home=home)
    if as_json:
        print(json.dumps({"ok": True, **found.to_json()}))
        return
    print(
        f"the model of {run} may leave: after {found.participations} participations the audit "
        f"shows μ ≥ {found.lower_bound:.4g}, within the ledger's claim; kept in {run / AUDIT_FILE}"
    )


def audit_table(checks: Sequence[AuditCheck]) -> list[str]:
    """Lay checks out for a terminal: mark, name, value, bound and what it means."""
    width = max(len(check.name) for check in checks)
    return [
        f"{'ok' if check.ok else 'NO'}  {check.name:<{width}}  {check.value:>8.4g} "
        f"{_SIGNS[check.held]} {check.bound:<8.4g}  {check.note}"
        for check in checks
    ]


def summary_line(checks: Sequence[AuditCheck], *, seconds: float) -> str:
    """Say what the audit came to, and what it cannot say."""
    failed = sum(not check.ok for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"{len(checks)} checks hold"
    return (
        f"{verdict} ({seconds:.1f} s). An audit finds defects and proves no privacy: "
        "what is claimed rests on docs/explanation/privacy.md."
    )
