"""A short run of rounds over messages in this process, to be watched, steered and replayed."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_client.flower_app import client_app
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import TASK_RECORD, LocalRecipe
from privacy import OperatingSystemNoise
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.runs.desk import Watching
from server.runs.folder import RunFolder
from server.streams.stream_terms import OperatingSystemKeys
from simulations.in_process_grid import Delivery, InProcessGrid, SoundLine
from simulations.seeded_noise import SeededNoise
from simulations.seeded_streams import SeededKeys
from tests.support.made_up_rows import made_up_rows

SEED = 11
NODES, DEVICES_A_NODE, COHORT = 4, 3, 4
SILENT_STEP = 1


@dataclass(slots=True)
class Block:
    """Three devices behind one node, with made-up rows.

    Attributes:
        number: of the node, from 0.
    """

    number: int

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers."""
        return tuple(f"secret-{self.number}-{place}" for place in range(DEVICES_A_NODE))

    def rows(self, device_id: str):
        """Rows of one device."""
        number, place = map(int, device_id.split("-")[1:])
        return made_up_rows(20, seed=10 * number + place)

    def source(self, device_id: str, *, stream: str, index: int) -> SeededNoise:
        """Randomness of one device's training in one step."""
        return SeededNoise(SEED, "device", stream, device_id, index)


@dataclass(slots=True)
class WalkingLine:
    """Answers each task after a while.

    Attributes:
        seconds: for each node.
    """

    seconds: float

    def carry(self, message, answer):
        """Return the node's reply."""
        if TASK_RECORD in message.content.config_records:
            time.sleep(self.seconds)
        return [Delivery(answer(message))]


class EchoingLine:
    """Loses every task of one step, and brings each reply of the others twice."""

    def carry(self, message, answer):
        """Return what comes of a message."""
        task = message.content.config_records.get(TASK_RECORD)
        if task is not None and task["index"] == SILENT_STEP:
            return []
        reply = answer(message)
        return [Delivery(reply)] * (2 if task is not None else 1)


def config_of(num_rounds: int, **changes: Any) -> RoundsConfig:
    """What decides the run; no record-level noise, whose accountant takes seconds to load."""
    values: dict[str, Any] = {
        "stream": f"watched-{SEED}",
        "num_rounds": num_rounds,
        "cohort_size": COHORT,
        "clipping_norm": 0.5,
        "epsilon": 2.0,
        "delta": 1e-6,
        "recipe": LocalRecipe(least_rows=1, expected_batch_size=6, record_noise_multiplier=0.0),
        "server": ServerRecipe(optimizer="fedavg", learning_rate=1.0),
        "deadline_s": 0.3,
    }
    return RoundsConfig(**(values | changes))


def planned(folder: Path, num_rounds: int, *, seed: int | None = None, **changes) -> PlannedRun:
    """A run that is recorded in a folder; without a seed its noise is real."""
    return PlannedRun(
        config=config_of(num_rounds, **changes),
        folder=RunFolder(folder),
        start=new_flat_weights(seed=SEED),
        source=OperatingSystemNoise() if seed is None else SeededNoise(seed, "release", "run"),
        keys=OperatingSystemKeys() if seed is None else SeededKeys(seed),
        evaluate=lambda weights: {"loss": float(abs(weights).sum()), "auc": None},
        watching=Watching(go_on=f"fedcell rounds resume {folder}", log_level="debug"),
        facts={"seed": seed, "fleet_sha256": None, "started_from": "none"},
    )


def carry(run: PlannedRun, *, line: Any = None) -> None:
    """Carry a run out, over the real ClientApp of every node."""
    app = client_app(lambda context: Block(int(context.node_config["partition-id"])))
    stop = threading.Event()
    with InProcessGrid.of_blocks(app, NODES, line=line or SoundLine()) as grid:
        roster = ask_for_devices(grid, num_nodes=NODES, deadline_s=30.0, stop=stop)
        carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))


@dataclass(slots=True)
class Walker:
    """A run at a walking pace, in a process of its own.

    Attributes:
        pid: of the process.
    """

    pid: int

    @staticmethod
    def of(folder: Path, *, rounds: int = 400, seconds: float = 0.02) -> Walker:
        """Fork the process: a new one would spend seconds on imports.

        Args:
            folder: of the run.
            rounds: that it has.
            seconds: that each node takes to answer.
        """
        child = os.fork()
        if child:
            return Walker(child)
        code = 1
        try:
            carry(planned(folder, rounds, deadline_s=30.0), line=WalkingLine(seconds))
            code = 0
        finally:
            os._exit(code)

    def wait(self) -> int:
        """Wait for its end, and return its exit code; negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it by SIGKILL, if it still runs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
