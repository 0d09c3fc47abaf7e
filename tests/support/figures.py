"""Collects a benchmark's figures and writes them as build/bench/<area>.json."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "bench"
LIBRARIES = ("numpy", "onnxruntime", "torch", "opacus", "flwr", "dp-accounting", "scikit-learn")


@dataclass
class Figures:
    """Figures of one area; each run replaces those that it measured and keeps the others."""

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
        }
        print(f"{self.area}: {name} = {value:.4g} {unit} (target {target}, {better} is better)")
        self._write()

    def _write(self) -> None:
        path = FOLDER / f"{self.area}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        run = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {library: version(library) for library in LIBRARIES},
        }
        path.write_text(json.dumps(known | self.measured | {"_run": run}, indent=2) + "\n")
