"""A run of rounds whose process is killed again and again, beside one that nobody touched.

Run as a program: `python -m tests.support.killed_rounds FOLDER ROUNDS KILLS SEED`. Each life is a
process of its own: it takes the run up wherever the one before left it, over real messages to the
real ClientApp, and is ended by SIGKILL at a random event of reading, writing or training, from the
making of the folder to the last report. Where a run ends before its kills are used up, another one
begins. Each is then held against the unbroken one, file by file. It prints one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from edge_client.flower_app import client_app
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import TASK_RECORD, LocalRecipe
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import ServerRecipe
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.privacy_ledger import COUNTS_FILE
from server.runs.folder import RunFolder
from server.runs.report_layout import record_epsilon
from server.runs.run_files import COMMAND_FILE
from server.streams.stream_files import CHECKPOINT_FILE
from simulations.in_process_grid import Delivery, InProcessGrid
from simulations.seeded_noise import SeededNoise
from simulations.seeded_streams import SeededKeys
from tests.support.made_up_rows import made_up_rows
from tests.support.stream_crashes import Death, Journal

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SEED = 7
NODES, DEVICES_A_NODE, COHORT = 4, 3, 6
ROWS = 40
PATIENT = 10**9


@dataclass(slots=True)
class Block:
    """Three devices behind one node, with made-up rows and seeded randomness.

    Attributes:
        number: of the node, from 0.
        death: told of each device that is trained.
    """

    number: int
    death: Death

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers."""
        return tuple(f"BT-{self.number}-{place}" for place in range(DEVICES_A_NODE))

    def rows(self, device_id: str):
        """Rows of one device."""
        self.death._count()
        number, place = map(int, device_id.removeprefix("BT-").split("-"))
        return made_up_rows(ROWS, seed=10 * number + place)

    def source(self, device_id: str, *, stream: str, index: int) -> SeededNoise:
        """Randomness of one device's training in one step."""
        return SeededNoise(SEED, "device", stream, device_id, index)


class PatchyLine:
    """Loses a node's task in every fifth step of its own, always in the same ones."""

    def carry(self, message, answer):
        """Return the node's reply, or nothing."""
        task = message.content.config_records.get(TASK_RECORD)
        if task is not None:
            name = f"{message.metadata.dst_node_id} {task['index']}"
            if sha256(name.encode()).digest()[0] % 5 == 0:
                return []
        return [Delivery(answer(message))]


def config_of(num_rounds: int, *, adapts: bool) -> RoundsConfig:
    """What decides the run; its clipping norm may follow a quantile."""
    return RoundsConfig(
        stream=f"simulated-{SEED}",
        num_rounds=num_rounds,
        cohort_size=COHORT,
        clipping_norm=0.5,
        epsilon=2.0,
        delta=1e-6,
        recipe=LocalRecipe(least_rows=1, expected_batch_size=12),
        server=ServerRecipe(learning_rate=0.01),
        deadline_s=0.02,
        min_replies=4,
        target_quantile=0.5 if adapts else None,
    )


def live(folder: Path, config: RoundsConfig, death: Death) -> None:
    """Carry the run out, from wherever it stands."""
    resumed = (folder / COMMAND_FILE).exists()
    held = RunFolder(folder, is_resumed=resumed, command={"rounds": config.num_rounds})
    run = PlannedRun(
        config=held.config() if held.is_resumed else config,
        folder=held,
        start=new_flat_weights(seed=SEED),
        source=SeededNoise(SEED, "release", "run"),
        keys=SeededKeys(SEED),
        is_resumed=held.is_resumed,
        evaluate=lambda weights: {"sum": float(weights.sum())},
    )
    app = client_app(lambda context: Block(int(context.node_config["partition-id"]), death))
    stop = threading.Event()
    with InProcessGrid.of_blocks(app, NODES, line=PatchyLine(), is_ahead=True) as grid:
        roster = ask_for_devices(grid, num_nodes=NODES, deadline_s=60.0, stop=stop)
        carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    run.result()


def one_life(folder: Path, config: RoundsConfig, *, events: int) -> tuple[bool, int]:
    """Fork a process that lives until its n-th event; return whether it died, and its events."""
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(told)
            death = Death(-1, "", events, Journal(folder.with_suffix(".journal")))
            live(folder, config, death)
            lived = events - death._left
            death.disarm()
            os.write(tells, str(lived).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent shows it
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(tells)
    with os.fdopen(told) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, events
    assert os.WEXITSTATUS(status) == 0, f"the run in {folder} could not go on"
    return False, int(said)


@dataclass(slots=True)
class Left:
    """What a run leaves that must not depend on how often it was killed.

    Attributes:
        ledger: its bytes.
        arrays: of checkpoint and result.
        counts: each device's invitations.
        rounds: of the report, without how long they took.
    """

    ledger: bytes
    arrays: dict[str, bytes]
    counts: list[tuple[Any, ...]]
    rounds: list[dict[str, Any]]
    key_is_gone: bool
    facts: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def by(folder: Path) -> Left:
        """Read it."""
        arrays = {}
        for name in (CHECKPOINT_FILE, "weights.npz"):
            with np.load(folder / name, allow_pickle=False) as file:
                arrays |= {f"{name} {key}": file[key].tobytes() for key in file.files}
        with sqlite3.connect(folder / COUNTS_FILE) as counts:
            invited = counts.execute("SELECT * FROM invitations ORDER BY 1, 2, 3").fetchall()
        report = json.loads((folder / "run.json").read_bytes())
        rounds = [{**one, "seconds": 0.0} for one in report["rounds"]]
        return Left(
            ledger=(folder / LEDGER_FILE).read_bytes(),
            arrays=arrays,
            counts=invited,
            rounds=rounds,
            key_is_gone=not (folder / "stream.key").exists(),
            facts={name: report[name] for name in ("status", "schedule", "privacy")},
        )


def run(folder: Path, num_rounds: int, kills: int, seed: int) -> dict[str, Any]:
    """Kill so often, and hold each run against the unbroken one."""
    random = Random(seed)
    config = config_of(num_rounds, adapts=seed % 2 == 1)
    # Costs seconds, and each process that is forked from here has it.
    participations = config.schedule(NODES * DEVICES_A_NODE).participations
    record_epsilon(config.recipe, participations=participations, delta=config.record_delta)
    died, events = one_life(folder / "unbroken", config, events=PATIENT)
    assert not died
    unbroken = Left.by(folder / "unbroken")
    killed, broken, points = 0, 0, []
    while killed < kills:
        broken += 1
        place, ends = folder / f"broken-{broken}", False
        while not ends:
            left = kills - killed
            at = random.randrange(1, events // 2) if left else PATIENT
            died, _ = one_life(place, config, events=at)
            killed, ends = killed + died, not died
            points += [at] if died else []
        found = Left.by(place)
        for name in Left.__slots__:
            assert getattr(found, name) == getattr(unbroken, name), f"{name} of run {broken}"
    return {
        "kills": killed,
        "runs": broken,
        "events": events,
        "points": points,
        "entries": unbroken.ledger.count(b"\n"),
        "replied": [one["replied"] for one in unbroken.rounds],
        "norms": [one["clipping_norm"] for one in unbroken.rounds],
        "noise_only": sum(one["noise_only"] for one in unbroken.rounds),
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
