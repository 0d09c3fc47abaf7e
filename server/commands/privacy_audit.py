"""`fedcell privacy audit`: attacks on the real aggregation code, held against what is claimed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from privacy.audit.findings import AuditCheck

_SIGNS = {"at_most": "≤", "at_least": "≥"}


def audit(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Attack the aggregation code of this installation, and hold what is found against the claims.

    Ends with 1 if a check fails.
    """
    from ..privacy_audit import run_audit

    checks = run_audit()
    passed = all(check.ok for check in checks)
    if as_json:
        listed = [asdict(check) | {"ok": check.ok} for check in checks]
        print(json.dumps({"ok": passed, "checks": listed}))
    else:
        print("\n".join(audit_table(checks)))
    if not passed:
        raise typer.Exit(1)


def audit_table(checks: Sequence[AuditCheck]) -> list[str]:
    """Lay checks out for a terminal: mark, name, value, bound and what it means."""
    width = max(len(check.name) for check in checks)
    return [
        f"{'ok' if check.ok else 'NO'}  {check.name:<{width}}  {check.value:>9.4g} "
        f"{_SIGNS[check.held]} {check.bound:<9.4g}  {check.note}"
        for check in checks
    ]
