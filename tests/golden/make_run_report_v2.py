"""Writes run_report_v2: run once, by the last version whose record named no parts of a run.

It needs that version's `server.flower_app`; later ones read the folder and never write one like it.
"""

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np

from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from tests.golden.make_run_report import NUM_WEIGHTS, LocalRecipe, answer
from tests.support.flower_grid import GridInMemory

KEPT = ("run.json", "ledger.jsonl", "checkpoint.npz", "weights.npz", "start.npz")


def main(kept: Path) -> None:
    """Write the folder."""
    scratch = Path(mkdtemp())
    run = PlannedRun(
        config=RoundsConfig(
            stream="run-of-yesterday",
            num_rounds=3,
            cohort_size=4,
            clipping_norm=1.0,
            epsilon=2.0,
            delta=1e-6,
            recipe=LocalRecipe(record_noise_multiplier=0.0),
            server=ServerRecipe(optimizer="fedavg", learning_rate=1.0, final_rate=1.0),
            deadline_s=0.2,
        ),
        folder=RunFolder(scratch / "run"),
        start=np.zeros(NUM_WEIGHTS, np.float32),
        evaluate=lambda weights: {"loss": float(abs(weights).sum())},
        facts={"seed": None, "fleet_sha256": "ab" * 32, "started_from": "none"},
    )
    carry_out(
        run,
        GridInMemory(dict.fromkeys((1, 2, 3, 4), answer)),
        roster=Roster.of(
            {node: [f"{node}-{number}" for number in range(2)] for node in range(1, 5)}
        ),
        stop=threading.Event(),
        clock=lambda: datetime(2026, 3, 1, tzinfo=UTC),
    )
    kept.mkdir()
    for name in KEPT:
        (kept / name).write_bytes((scratch / "run" / name).read_bytes())
    rmtree(scratch)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
