"""What our engine costs beside Flower's own FedAvg: the same client app, engine, nodes and work.

Both run in one start of Flower's simulation engine, some rounds of the one and some of the other in
turn. Ours also judges replies, keeps history, ledger, sums and checkpoints durable, and draws the
correlated noise; Flower's averages what comes.
"""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import flwr.simulation
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from edge_client.flower_app import client_app
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import (
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    LocalRecipe,
    RoundTask,
)
from privacy import UpdateGrid
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from simulations.federation import SimulatedBlock
from simulations.partition import block_of_devices
from simulations.seeded_streams import SeededKeys
from simulations.training_row_files import RowFiles, write_row_files
from tests.support.figures import Figures
from tests.support.fleets import simulated_rows

FIGURES = Figures("rounds")
NODES, DEVICES, TURNS, ROUNDS_A_TURN = 8, 480, 7, 4
RECIPE = LocalRecipe()
CLIP = 0.3


def fleet_of_rows(folder: Path) -> tuple[str, ...]:
    """Deal the rows of a small simulated fleet to many devices, some hundred rows each."""
    rows = simulated_rows()
    device_ids = tuple(f"d{number}" for number in range(DEVICES))
    per_device = 200
    chosen = np.arange(DEVICES * per_device) % len(rows)
    spread = replace(rows.take(chosen), device=np.repeat(np.arange(DEVICES), per_device))
    write_row_files(folder, device_ids=device_ids, rows=spread, num_blocks=NODES)
    return device_ids


def both_ways(row_folder: str) -> ClientApp:
    """Our ClientApp, which a task in the form of Flower's FedAvg reaches through an adapter."""

    def block_of(context):
        return SimulatedBlock(RowFiles(Path(row_folder)), context.node_config["partition-id"], 1)

    ours, app = client_app(block_of), ClientApp()

    @app.query()
    def query(message, context):
        return ours(message, context)

    @app.train()
    def train(message, context):
        if "config" not in message.content:
            return ours(message, context)
        device_ids = block_of(context).device_ids
        task = RoundTask(
            stream="fedavg",
            index=int(message.content["config"]["server-round"]),
            clipping_norm=CLIP,
            cohort_size=DEVICES,
            device_ids=device_ids,
            recipe=RECIPE,
        )
        arrays = message.content["arrays"]
        message.content = RecordDict(
            {TASK_RECORD: ConfigRecord(task.to_plain()), WEIGHTS_RECORD: arrays}
        )
        answer = ours(message, context).content[SUM_RECORD][FLAT_ARRAY].numpy()
        update = UpdateGrid(clipping_norm=CLIP).restore(answer) / len(device_ids)
        weights = (arrays[FLAT_ARRAY].numpy() + update).astype(np.float32)
        content = RecordDict(
            {
                "arrays": ArrayRecord({FLAT_ARRAY: Array(weights)}),
                "metrics": MetricRecord({"num-examples": len(device_ids)}),
            }
        )
        return Message(content, reply_to=message)

    return app


def flowers_rounds(grid) -> list[float]:
    """Seconds of each of some rounds of Flower's FedAvg, as its own hook sees them end."""
    ends = [time.perf_counter()]

    def on_round(_round, _arrays):
        ends.append(time.perf_counter())

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=NODES, min_available_nodes=NODES)
    weights = ArrayRecord({FLAT_ARRAY: Array(new_flat_weights(seed=0))})
    strategy.start(grid, weights, num_rounds=ROUNDS_A_TURN, evaluate_fn=on_round)
    # It calls the hook before the first round, too.
    return np.diff(ends)[1:].tolist()


def our_rounds(grid, roster, folder: Path, *, turn: int) -> list[float]:
    """Seconds of each of some rounds of ours, from the end of the one to the end of the next."""
    ends = []
    run = PlannedRun(
        config=RoundsConfig(
            stream=f"simulated-{turn}",
            num_rounds=ROUNDS_A_TURN + 1,
            cohort_size=DEVICES,
            clipping_norm=CLIP,
            epsilon=8.0,
            delta=1e-5,
            recipe=RECIPE,
        ),
        folder=RunFolder(folder),
        start=new_flat_weights(seed=0),
        keys=SeededKeys(turn),
        on_round=lambda _: ends.append(time.perf_counter()),
    )
    carry_out(run, grid, roster=roster, stop=threading.Event(), clock=lambda: datetime.now(UTC))
    return np.diff(ends).tolist()


def test_round_costs_little_more_than_a_round_of_flowers_fedavg(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows = tmp_path / "rows"
    rows.mkdir()
    device_ids = fleet_of_rows(rows)
    assert len(set(block_of_devices(device_ids, num_blocks=NODES).tolist())) == NODES
    ours: list[float] = []
    theirs: list[float] = []
    app = ServerApp()

    @app.main()
    def main(grid, _context):
        stop = threading.Event()
        roster = ask_for_devices(grid, num_nodes=NODES, deadline_s=120.0, stop=stop)
        for turn in range(TURNS + 1):
            flower, own = (
                flowers_rounds(grid),
                our_rounds(grid, roster, tmp_path / f"run-{turn}", turn=turn),
            )
            if turn:
                theirs.append(statistics.median(flower))
                ours.append(statistics.median(own))

    flwr.simulation.run_simulation(
        server_app=app,
        client_app=both_ways(str(rows)),
        num_supernodes=NODES,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": os.cpu_count(),
                "include_dashboard": False,
                "log_to_driver": False,
                "logging_level": logging.ERROR,
                "object_store_memory": 100 * 1024 * 1024,
            },
        },
    )
    assert len(ours) == len(theirs) == TURNS
    ratios = sorted(own / flower for own, flower in zip(ours, theirs, strict=True))
    middle = statistics.median(ratios)
    FIGURES.add(
        "a simulated round beside one of Flower's FedAvg",
        middle,
        unit="ratio",
        target=1.15,
        better="lower",
        spread=(ratios[0], ratios[-1]),
        against=f"flwr FedAvg, {NODES} nodes, {DEVICES} devices, same client app, "
        f"{statistics.median(theirs):.3f} s a round",
    )
    assert middle <= 1.15
