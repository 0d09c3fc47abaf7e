"""A reply that stands for many devices is the sum of theirs, whatever one of them does."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.errors import DeviceAwayError
from edge_client.flower_app import client_app
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    LocalRecipe,
    RoundTask,
)
from privacy import UpdateGrid
from server.engine.aggregation import reply_refusal
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

WEIGHTS = new_flat_weights(seed=1)
GRID = UpdateGrid(clipping_norm=0.4)
PLAIN = LocalRecipe(record_noise_multiplier=0.0, least_rows=60)
PRIVATE = LocalRecipe(least_rows=60, steps=2, sampling_rate=0.2, proximal=0.5)
KINDS = ("honest", "away", "too few rows", "not finite", "too long")


@lru_cache(maxsize=64)
def rows_of(kind, seed):
    rows = made_up_rows(20 if kind == "too few rows" else 80, seed=seed)
    if kind == "not finite":
        return replace(rows, exposure=np.full_like(rows.exposure, np.inf))
    if kind == "too long":
        return replace(rows, exposure=rows.exposure * np.float32(1e6))
    return rows


class Block:
    """Devices named by what they do and a number."""

    def __init__(self, device_ids):
        self.device_ids = tuple(device_ids)

    def rows(self, device_id):
        kind, _, seed = device_id.rpartition(" ")
        if kind == "away":
            raise DeviceAwayError(f"{device_id} does not answer")
        return rows_of(kind, int(seed))

    def source(self, device_id, *, stream, index):
        return SeededNoise(1, stream, device_id, index)


def asked(block, device_ids, recipe):
    """Return task, sum and contribution of the real client app of a node."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    task = RoundTask(
        stream="s",
        index=4,
        clipping_norm=GRID.clipping_norm,
        cohort_size=50,
        device_ids=tuple(device_ids),
        recipe=recipe,
    )
    content = RecordDict({WEIGHTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(WEIGHTS)})})
    content[TASK_RECORD] = ConfigRecord({**task.to_plain()})
    message = Message(content, dst_node_id=2, message_type=MessageType.TRAIN)
    reply = client_app(lambda _: block)(message=message, context=None).content
    said = Contribution.from_plain(dict(reply.config_records[CONTRIBUTION_RECORD]))
    return task, reply.array_records[SUM_RECORD][FLAT_ARRAY].numpy(), said


@lru_cache(maxsize=64)
def alone(device_id, recipe):
    _, total, said = asked(Block([device_id]), [device_id], recipe)
    assert np.linalg.norm(GRID.restore(total)) <= GRID.clipping_norm
    return total, said.num_devices


DEVICES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 4)).map(lambda one: f"{one[0]} {one[1]}"),
    min_size=1,
    max_size=12,
    unique=True,
)


@pytest.mark.slow
@settings(max_examples=30)
@given(devices=DEVICES, recipe=st.sampled_from([PLAIN, PRIVATE]), data=st.data())
def test_sum_of_a_block_is_that_of_its_devices_alone(devices, recipe, data):
    invited = data.draw(st.permutations(devices))[: data.draw(st.integers(1, len(devices)))]
    task, total, said = asked(Block(devices), invited, recipe)
    parts = [alone(device_id, recipe) for device_id in invited]
    assert np.array_equal(total, sum(part for part, _ in parts))
    assert said.num_devices == sum(num for _, num in parts)
    assert said.num_devices == sum(not one.startswith("away") for one in invited)
    refusal = reply_refusal(total, said, task=task, num_weights=WEIGHTS.size, grid=GRID)
    assert refusal is None


def test_each_kind_of_device_is_what_it_says():
    norms = {kind: np.linalg.norm(GRID.restore(alone(f"{kind} 1", PLAIN)[0])) for kind in KINDS}
    assert norms["honest"] > 0
    assert norms["too long"] == pytest.approx(GRID.clipping_norm, rel=1e-6)
    assert [norms[kind] for kind in ("away", "too few rows", "not finite")] == [0, 0, 0]
