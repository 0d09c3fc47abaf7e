"""`fedcell privacy audit`: attacks on the real aggregation code, held against what is claimed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Attack the aggregation code of this installation, and hold what is found against the claims.

    Canaries and noise are drawn anew from the operating system's entropy each time. Ends with 1 if
    a check fails.
    """
    from ..canary_audit import ALPHA
    from ..privacy_audit import FULL, QUICK, run_audit

    scale = QUICK if quick else FULL
    started = time.monotonic()
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
