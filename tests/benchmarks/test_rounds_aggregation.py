"""What the server pays for a round's replies: judging, adding up, noise, ledger and checkpoint.

2,000 nodes with one device each and 3,000 weights. Replies come into being as they are pulled, so
that what is held is the server's own; the time that this takes is the nodes' and is left out.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
import tracemalloc
from datetime import UTC, datetime

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    Contribution,
    LocalRecipe,
    RoundTask,
)
from privacy import OperatingSystemNoise, UpdateGrid
from server.engine.collection import Collector
from server.engine.flower_messages import Roster
from server.engine.rounds import RoundsConfig
from server.engine.server_optimizer import OptimizerState
from server.engine.strategy import FederatedRounds
from server.runs.folder import RunFolder
from server.streams.stream_state import begin_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.figures import Figures

FIGURES = Figures("rounds")
NODES, COHORT, WEIGHTS, ROUNDS = 8_000, 2_000, 3_000, 9
TARGET_S = 1.0
BYTES_A_REPLY = 1_024
UNIT = UpdateGrid(clipping_norm=0.3)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class RepliesAsPulled:
    """A grid whose nodes all answer at once; it keeps a number for each message and no more."""

    def __init__(self, stream: str) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._stream, self._index, self._number = stream, 0, 0
        self._node_of: dict[str, int] = {}
        self.first_pull: list[float] = []
        self.own: list[float] = []
        random = np.random.default_rng(1)
        drawn = random.normal(size=(50, WEIGHTS))
        drawn *= 0.29 / np.linalg.norm(drawn, axis=1, keepdims=True)
        self.updates = [UNIT.quantise(one) for one in drawn]
        self._arrays = [Array(one) for one in self.updates]

    def get_node_ids(self):
        return list(self._node_of.values())

    def push_messages(self, messages):
        ids = []
        for message in messages:
            self._number += 1
            message.metadata.__dict__["_message_id"] = key = f"m{self._number}"
            self._node_of[key] = message.metadata.dst_node_id
            self._index = int(message.metadata.group_id)
            ids.append(key)
        return ids

    def pull_messages(self, ids):
        if len(self.first_pull) <= self._index:
            self.first_pull.append(time.perf_counter())
            self.own.append(0.0)
        begun = time.perf_counter()
        replies = [self._reply(key, self._node_of.pop(key)) for key in ids]
        self.own[self._index] += time.perf_counter() - begun
        return replies

    def _reply(self, key: str, node_id: int) -> Message:
        asked = Message(RecordDict(), node_id, "train", group_id="0")
        asked.metadata.__dict__["_message_id"] = key
        facts = Contribution(stream=self._stream, index=self._index, num_devices=1)
        array = self._arrays[node_id % len(self._arrays)]
        content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: array})})
        content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
        return Message(content, reply_to=asked)


def rounds_in(folder) -> FederatedRounds:
    """A stream under correlated noise over 8,000 devices."""
    config = RoundsConfig(
        stream="bench",
        num_rounds=ROUNDS,
        cohort_size=COHORT,
        clipping_norm=0.3,
        epsilon=2.0,
        delta=1e-8,
        deadline_s=600.0,
    )
    roster = Roster.of({node: [f"d{node:05}"] for node in range(NODES)})
    held = RunFolder(folder)
    start = OptimizerState.start(np.zeros(WEIGHTS, np.float32))
    stream = begin_stream(
        held.path,
        held.home,
        config.terms(config.schedule(NODES)),
        start=start,
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
        lock=held.hand_over_lock(),
    )
    return FederatedRounds(
        config=config,
        roster=roster,
        schedule=config.schedule(NODES),
        stream=stream,
        state=start,
        clock=lambda: NOW,
        stop=threading.Event(),
    )


def test_two_thousand_updates_are_added_noised_and_kept_within_a_second(tmp_path):
    rounds, grid = rounds_in(tmp_path / "run"), RepliesAsPulled("bench")
    ours, plain = [], []

    def on_round(record):
        since = time.perf_counter() - grid.first_pull[record.index]
        ours.append(since - grid.own[record.index])
        assert record.replied == COHORT
        arrays = [grid.updates[number % len(grid.updates)] for number in range(COHORT)]
        begun = time.perf_counter()
        total = np.sum(arrays, axis=0)
        plain.append(time.perf_counter() - begun)
        assert total.dtype == np.int64

    rounds.on_round = on_round
    assert rounds.run(grid)
    ours, plain = ours[1:], plain[1:]
    seconds = statistics.median(ours)
    bare = statistics.median(plain)
    FIGURES.add(
        "2,000 updates of 3,000 weights: judged, added, noised, charged, kept",
        seconds,
        unit="s",
        target=TARGET_S,
        better="lower",
        spread=(min(ours), max(ours)),
        against=f"a plain numpy sum of the same arrays in memory: {bare:.4f} s",
    )
    assert seconds <= TARGET_S


def most_held(num_replies: int) -> int:
    """Return the most memory that collecting so many replies holds at once, in bytes."""
    grid = RepliesAsPulled("bench")
    tasks = {
        node: RoundTask(
            stream="bench",
            index=0,
            clipping_norm=0.3,
            cohort_size=num_replies,
            device_ids=(f"d{node}",),
            recipe=LocalRecipe(),
        )
        for node in range(num_replies)
    }
    collector = Collector(deadline_s=600.0, stop=threading.Event(), poll_s=0.001)
    weights = np.zeros(WEIGHTS, np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        found = collector.collect(
            grid, (), tasks, weights=weights, unit=UNIT, on_look=lambda _: None
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.sum.num_replied == num_replies
    return peak


def test_memory_does_not_grow_with_the_cohort():
    few, many = most_held(200), most_held(2_000)
    each = (many - few) / 1_800
    FIGURES.add(
        "memory of one more reply while a round is collected",
        each,
        unit="B",
        target=BYTES_A_REPLY,
        better="lower",
        against=(
            f"24,000 B of its array; {few / 1e6:.2f} MB at 200 replies, "
            f"{many / 1e6:.2f} MB at 2,000"
        ),
    )
    assert each <= BYTES_A_REPLY
