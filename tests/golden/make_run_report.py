"""Writes run_report_v1: run once, by the last version whose runs left no status and no record.

It needs that version's `server.flower_app`; later ones read the folder and never write one like it.
"""

import threading
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    Contribution,
    LocalRecipe,
    RoundTask,
)
from privacy import UpdateGrid
from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from tests.support.flower_grid import GridInMemory

KEPT = ("run.json", "ledger.jsonl", "checkpoint.npz", "weights.npz")
NUM_WEIGHTS = 3


def answer(message):
    """Answer a task for all devices of a node; step 1 stays without an answer."""
    records = message.content.config_records
    if TASK_RECORD not in records:
        return []
    task = RoundTask.from_plain(records[TASK_RECORD])
    if task.index == 1:
        return []
    number = len(task.device_ids)
    sent = UpdateGrid(clipping_norm=1.0).quantise(np.array([0.6, 0.0, -0.79]))
    facts = Contribution(stream=task.stream, index=task.index, num_devices=number)
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(number * sent)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return [content]


def main() -> None:
    """Write the folder beside this script."""
    scratch = Path(mkdtemp())
    config = RoundsConfig(
        stream="run-of-yesterday",
        num_rounds=3,
        cohort_size=4,
        clipping_norm=1.0,
        epsilon=2.0,
        delta=1e-6,
        recipe=LocalRecipe(record_noise_multiplier=0.0),
        server=ServerRecipe(optimizer="fedavg", learning_rate=1.0, final_rate=1.0),
        deadline_s=0.2,
    )
    run = PlannedRun(
        config=config,
        folder=RunFolder(scratch / "run"),
        start=np.zeros(NUM_WEIGHTS, np.float32),
        evaluate=lambda weights: {"loss": float(abs(weights).sum())},
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
    kept = Path(__file__).parent / "run_report_v1"
    kept.mkdir()
    for name in KEPT:
        (kept / name).write_bytes((scratch / "run" / name).read_bytes())
    rmtree(scratch)


if __name__ == "__main__":
    main()
