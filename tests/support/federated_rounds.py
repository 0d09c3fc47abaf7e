"""Rounds over Flower's messages in memory: their configuration, nodes, and what they leave."""

import threading
from datetime import UTC, datetime

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
from privacy import (
    OperatingSystemNoise,
    UpdateGrid,
    read_ledger,
)
from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import OptimizerState, ServerRecipe
from server.engine.strategy import FederatedRounds
from server.privacy_home.ledger_file import LEDGER_FILE
from server.runs.folder import RunFolder
from server.streams.stream_state import begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NUM_WEIGHTS = 3
GRID = UpdateGrid(clipping_norm=1.0)
UPDATE = np.array([0.6, 0.0, -0.8])
SENT = GRID.quantise(UPDATE * (1 - 1e-9))


def config_of(**changes):
    values = {
        "stream": "test",
        "num_rounds": 2,
        "cohort_size": 4,
        "clipping_norm": 1.0,
        "epsilon": None,
        "delta": 1e-6,
        "recipe": LocalRecipe(record_noise_multiplier=0.0),
        "server": ServerRecipe(optimizer="fedavg", learning_rate=1.0, final_rate=1.0),
        "deadline_s": 0.2,
    }
    return RoundsConfig(**(values | changes))


def task_of(message):
    return RoundTask.from_plain(message.content.config_records[TASK_RECORD])


def contribution(total, *, stream="test", index=0, num_devices=2, receipts=()):
    facts = Contribution(stream=stream, index=index, num_devices=num_devices, receipts=receipts)
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return content


def honest(message):
    task = task_of(message)
    number = len(task.device_ids)
    return [contribution(number * SENT, index=task.index, num_devices=number)]


def honest_to(stream):
    def answer(message):
        task = task_of(message)
        number = len(task.device_ids)
        return [contribution(number * SENT, stream=stream, index=task.index, num_devices=number)]

    return answer


def roster_of(nodes):
    return Roster.of({node: [f"{node}-{number}" for number in range(2)] for node in nodes})


def rounds_over(nodes, tmp_path, *, config=None, source=None, home=None, run="run", **changes):
    config = config or config_of()
    roster = roster_of(nodes)
    schedule = config.schedule(len(roster.device_ids))
    folder = RunFolder(tmp_path / run, home=home)
    start = OptimizerState.start(np.zeros(NUM_WEIGHTS, np.float32))
    stream = begin_stream(
        folder.path,
        folder.home,
        config.terms(schedule),
        start=start,
        keys=OperatingSystemKeys(),
        source=source or OperatingSystemNoise(),
        lock=folder.hand_over_lock(),
    )
    return FederatedRounds(
        config=config,
        roster=roster,
        schedule=schedule,
        stream=stream,
        state=start,
        clock=lambda: NOW,
        stop=threading.Event(),
        poll_s=0.001,
        **changes,
    )


def resumed(rounds):
    """The same run in another process."""
    rounds.stream.close()
    folder = RunFolder(rounds.stream.folder, home=rounds.stream.home.path, is_resumed=True)
    stream, state = resume_stream(
        folder.path,
        folder.home,
        rounds.stream.terms,
        keys=OperatingSystemKeys(),
        lock=folder.hand_over_lock(),
    )
    return FederatedRounds(
        config=rounds.config,
        roster=rounds.roster,
        schedule=rounds.schedule,
        stream=stream,
        state=state,
        clock=lambda: NOW,
        stop=threading.Event(),
        poll_s=0.001,
        on_round=rounds.on_round,
    )


def ledger_of(rounds):
    text = (rounds.stream.home.path / LEDGER_FILE).read_text(encoding="ascii")
    head = rounds.stream.entry
    return read_ledger(text, head=None if head is None else head.hash)
