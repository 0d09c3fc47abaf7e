"""Which fleets a run may not be judged on: what it trained over, what a candidate was fitted on.

An export leaves beside its bundle on which fleet the candidate was fitted; the run's report says
what it trained over and was looked at on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from ..engine.rounds import RoundsError
from .run_files import REPORT_FILE

if TYPE_CHECKING:
    from pathlib import Path

EXPORT_FILE: Final = "export.json"


class OwnFleetError(RoundsError):
    """A run's own training fleet is named as nobody's data."""

    exit_code = 3


def keep_note(run: Path, *, digest: str, reference_sha256: str) -> None:
    """Note durably what was exported, beside what was before.

    Args:
        run: folder of the run.
        digest: of the bundle.
        reference_sha256: of the folder of the fleet that it was fitted on.
    """
    before = sorted(_fitted_on(run) - {reference_sha256})
    told = {
        "schema_version": 1,
        "digest": digest,
        "reference_sha256": reference_sha256,
        "references_before": before,
    }
    write_durably(run / EXPORT_FILE, f"{json.dumps(told, indent=2)}\n".encode())


def was_fitted_on(run: Path, reference_sha256: str) -> bool:
    """Tell whether a run looked at a fleet, or its candidate was fitted on it: on its first half.

    Args:
        run: folder of the run.
        reference_sha256: of the folder of a fleet dataset.
    """
    return reference_sha256 in _fitted_on(run) | {_record(run).get("reference_sha256")}


def require_nobodys(run: Path, where: Path, sha256: str) -> None:
    """Refuse the fleet over which a run trained: there its candidate shows what it has seen.

    Args:
        run: folder of the run.
        where: folder of the fleet.
        sha256: of that folder.

    Raises:
        OwnFleetError: it is that fleet.
    """
    if _record(run).get("fleet_sha256") == sha256:
        raise OwnFleetError(
            f"{where}: is the fleet that {run} trained over; name one that is nobody's, as "
            "fedcell simulate fleet with another seed makes it"
        )


def _fitted_on(run: Path) -> set[str]:
    found = _value(run / EXPORT_FILE)
    before = found.get("references_before")
    said = [found.get("reference_sha256"), *(before if isinstance(before, list) else [])]
    return {one for one in said if isinstance(one, str)}


def _record(run: Path) -> dict[str, Any]:
    found = _value(run / REPORT_FILE).get("record")
    return found if isinstance(found, dict) else {}


def _value(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
