"""Collects a benchmark's figures and writes them as build/bench/<area>.json."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "bench"
LIBRARIES = ("numpy", "onnxruntime", "torch", "opacus", "flwr", "dp-accounting", "scikit-learn")


@dataclass
class Figures:
    """Figures of one area.

    A run replaces those that it measured; the others stay, each with its time, if they come from
    the same machine and versions.
    """

    area: str
    measured: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        target: float | None,
        better: str,
        spread: tuple[float, float] | None = None,
        against: str | None = None,
    ) -> None:
        """Record one figure, print it, and put it on disk with those before it."""
        self.measured[name] = {
            "value": value,
            "unit": unit,
            "target": target,
            "better": better,
            "spread": list(spread) if spread else [value, value],
            "against": against,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        print(f"{self.area}: {name} = {value:.4g} {unit} (target {target}, {better} is better)")
        self._write()

    def _write(self) -> None:
        path = FOLDER / f"{self.area}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        run = _this_run()
        if known.get("_run") != run:
            known = {}
        path.write_text(json.dumps(known | self.measured | {"_run": run}, indent=2) + "\n")


def _this_run() -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }
