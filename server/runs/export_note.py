"""What an export leaves beside its bundle: on which fleet the candidate was fitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from .replay_record import folder_digest
from .run_files import REPORT_FILE

if TYPE_CHECKING:
    from pathlib import Path

EXPORT_FILE: Final = "export.json"


def keep_note(run: Path, *, digest: str, reference_sha256: str) -> None:
    """Note durably what was exported.

    Args:
        run: folder of the run.
        digest: of the bundle.
        reference_sha256: of the folder of the fleet that it was fitted on.
    """
    told = {"schema_version": 1, "digest": digest, "reference_sha256": reference_sha256}
    write_durably(run / EXPORT_FILE, f"{json.dumps(told, indent=2)}\n".encode())


def was_fitted_on(run: Path, reference: Path) -> bool:
    """Tell whether a run looked at a fleet, or its candidate was fitted on it: on its first half.

    Args:
        run: folder of the run.
        reference: folder of a fleet dataset.
    """
    said = {
        _value(run / EXPORT_FILE).get("reference_sha256"),
        _value(run / REPORT_FILE).get("record", {}).get("reference_sha256"),
    }
    return said != {None} and folder_digest(reference) in said


def _value(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
