"""Writes gate_v1: run once, by the last version whose proposals named no datasets.

It needs that version's gate, export note and counts; later ones read the folder and never write one
like it.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from models.private_histograms import evaluation_question
from privacy.counts import NoisedCounts
from server.counts.private_metrics import ReleasedCounts
from server.counts.run_counts import COUNTS_REPORT
from server.engine.proposal import keep_decision
from server.engine.quality_gate import REFERENCE, Check, GateDecision
from server.runs.export_note import keep_note


def main(kept: Path) -> None:
    """Write the folder."""
    kept.mkdir()
    checks = tuple(
        Check(REFERENCE, figure, 0.5, 0.501, ok=True) for figure in ("average_precision", "f1")
    )
    keep_decision(
        kept,
        GateDecision(passed=True, why="It is not worse.", checks=checks),
        candidate=SimpleNamespace(version="rounds-1", digest="c0" * 32),
        current=SimpleNamespace(version="default-1", digest="de" * 32),
        now=datetime(2026, 3, 1, tzinfo=UTC),
    )
    keep_note(kept, digest="c0" * 32, reference_sha256="ef" * 32)
    question = evaluation_question(as_of_s=0, model_version="default-1")
    found = NoisedCounts(
        counts=np.arange(question.size, dtype=np.float64), noise_variance=4.0, cohort_size=900
    )
    release = ReleasedCounts(question, found, "ab" * 32)
    (kept / COUNTS_REPORT).write_text(json.dumps({"releases": [release.to_json()]}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
