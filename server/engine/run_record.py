"""What another person needs to replay a run: digests of all that went in, and of what came out.

It stands in `run.json` beside what the run reports; `start.npz` keeps the weights that it started
from. Nothing here is secret: no sum without noise, no cohort and no key has a digest in it.
"""

from __future__ import annotations

import hashlib
import platform
from typing import TYPE_CHECKING, Any, Final

from privacy.canonical_json import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

START_FILE: Final = "start.npz"
RECORD_VERSION: Final = 1


def weights_digest(weights: NDArray[np.floating]) -> str:
    """SHA-256 of weights as they leave: float32, little-endian, in order."""
    return hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()


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


def platform_here() -> dict[str, str]:
    """Return what of this machine may decide the last digit: system, processor and byte order."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "implementation": platform.python_implementation(),
    }


def record_of(
    report: Mapping[str, Any],
    *,
    start: NDArray[np.float32],
    end: NDArray[np.float32] | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Lay out what a replay needs beside the report.

    Args:
        report: as `rounds_report.report_of` makes it.
        start: weights that the run started from, float32, shape (n_weights,).
        end: weights after its last round; None while it goes on.
        facts: what whoever planned the run knows: `seed`, `fleet_sha256`, `started_from`.
    """
    return {
        "record_version": RECORD_VERSION,
        "config_sha256": json_digest(report["config"]),
        "policy_sha256": report["privacy"]["policy_digest"],
        "start_sha256": weights_digest(start),
        "end_sha256": None if end is None else weights_digest(end),
        "ledger_head": report["privacy"]["ledger_head"],
        "platform": platform_here(),
        **{name: facts.get(name) for name in ("seed", "fleet_sha256", "started_from")},
    }
