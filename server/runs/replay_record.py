"""What another person needs to replay a run: digests of all that went in, and of what came out.

It stands in `run.json` beside what the run reports; `start.npz` keeps the weights that it started
from. Nothing here is secret: no sum without noise, no cohort and no key has a digest in it.
"""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from privacy.canonical_json import canonical_json

from ..streams.release_witness import weights_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

RECORD_VERSION: Final = 1
LIBRARIES: Final = ("fedcell", "flwr", "torch", "opacus", "dp-accounting", "numpy", "onnx")
FACTS: Final = ("seed", "fleet_sha256", "started_from", "reference_sha256")


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of plain values."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in a folder, hidden ones left out.

    Two folders with the same files have the same digest, wherever they are.
    """
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{name.as_posix()}\n{content}\n".encode())
    return whole.hexdigest()


def versions_here() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a run's outcome."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def platform_here() -> dict[str, str]:
    """Return what of this machine may decide the last digit: system, processor and byte order."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "implementation": platform.python_implementation(),
    }


def facts_of(found: Mapping[str, Any] | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what whoever planned a run knew of it; what goes on stays what it began as.

    Args:
        found: `run.json` of the run's first part; None where it begins.
        told: by the names of `FACTS`, as far as they are known.
    """
    known = told if found is None else found.get("record", {})
    return {name: known.get(name) for name in FACTS}


def first_other_fact(found: Mapping[str, Any], told: Mapping[str, Any]) -> str | None:
    """Return the name of a fact that is not what the run began with; None where all agree.

    What was not noted, or is not told, contradicts nothing.

    Args:
        found: `run.json` of the run's first part.
        told: by the names of `FACTS`, as far as they are known now.
    """
    before = found.get("record", {})
    for name in FACTS:
        then, now = before.get(name), told.get(name)
        if then is not None and now is not None and then != now:
            return name
    return None


def record_of(
    report: Mapping[str, Any],
    *,
    start_sha256: str | None,
    end: NDArray[np.float32] | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Lay out what a replay needs beside the report.

    Args:
        report: as `report_layout.report_of` makes it.
        start_sha256: of the weights that the run started from; None where nobody kept them.
        end: weights after its last round; None while it goes on.
        facts: as `facts_of` gives them.
    """
    return {
        "record_version": RECORD_VERSION,
        "config_sha256": json_digest(report["config"]),
        "policy_sha256": report["privacy"]["policy_digest"],
        "start_sha256": start_sha256,
        "end_sha256": None if end is None else weights_digest(end),
        "ledger_head": report["privacy"]["ledger_head"],
        "platform": platform_here(),
        **facts,
    }
