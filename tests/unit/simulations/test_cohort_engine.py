"""Devices trained in batched products: as each alone, in any block, and as the one-device path."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_client.flower_app import client_app
from edge_client.local_training import local_trainer, train_block, train_on_device
from models.closed_form_batches import ScaledRows
from models.network_shape import NUM_WEIGHTS
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
from privacy import OperatingSystemNoise, UpdateGrid
from privacy.adaptive_clipping import grid_of
from server.engine.aggregation import reply_refusal
from simulations.cohort_engine import (
    CohortBlock,
    CohortProcesses,
    CohortTraining,
    FastSeededNoise,
)
from simulations.federation import SimulatedBlock
from simulations.seeded_noise import SeededNoise
from simulations.training_row_files import RowFiles, write_row_files
from tests.support.gradient_rows import row_of_every_kind
from tests.support.made_up_rows import made_up_rows
from tests.support.system_parts import REPOSITORY

WEIGHTS = new_flat_weights(seed=3)
GRID = UpdateGrid(clipping_norm=0.5)
PRIVATE = LocalRecipe(
    steps=5, sampling_rate=0.3, expected_batch_size=20, least_rows=1, record_noise_multiplier=1.0
)
PLAIN = replace(PRIVATE, record_noise_multiplier=0.0)
RECIPES = {
    "plain": PLAIN,
    "private": PRIVATE,
    "held back": replace(PRIVATE, proximal=0.5),
    "one step": LocalRecipe(least_rows=1),
    "hardly ever": replace(PRIVATE, sampling_rate=0.02),
    "all rows": replace(PLAIN, sampling_rate=1.0),
}
TABLES = [
    *(made_up_rows(n, seed=n) for n in (1, 2, 7, 8, 9, 64, 65, 181, 800)),
    row_of_every_kind(),
    made_up_rows(64, seed=5, missing_share=1.0),
    made_up_rows(64).take(slice(0, 0)),
]


def devices(kind=SeededNoise, tables=TABLES):
    return [(rows, kind(2, "device", number)) for number, rows in enumerate(tables)]


def poisoned(value):
    """Rows of which the third has an exposure, and so a gradient, that is not finite."""
    rows = made_up_rows(64, seed=7)
    exposure = rows.exposure.copy()
    exposure[2] = value
    return replace(rows, exposure=exposure)


@pytest.mark.parametrize("kind", [SeededNoise, FastSeededNoise])
@pytest.mark.parametrize("name", RECIPES)
def test_every_device_moves_as_it_does_alone_on_a_device(name, kind):
    recipe = RECIPES[name]
    expected = local_trainer(recipe).changes(devices(kind), weights=WEIGHTS)
    value = CohortTraining(recipe).changes(devices(kind), weights=WEIGHTS)
    assert value.dtype == np.float64
    assert np.linalg.norm(value - expected, axis=1).max() <= 1e-5
    assert np.linalg.norm(expected[5:-1], axis=1).min() > 1e-4
    assert not value[-1].any()


@pytest.mark.parametrize("kind", [SeededNoise, FastSeededNoise])
@pytest.mark.parametrize("recipe", [PLAIN, PRIVATE])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_no_bit_depends_on_the_size_of_a_block(recipe, kind, size):
    together = CohortTraining(recipe).changes(devices(kind), weights=WEIGHTS)
    engine = CohortTraining(recipe, devices_a_block=size)
    assert np.array_equal(engine.changes(devices(kind), weights=WEIGHTS), together)


def test_sum_on_the_grid_is_that_of_the_devices_alone():
    engine = CohortTraining(PRIVATE, devices_a_block=4)
    scaled = [(ScaledRows.of(rows), source) for rows, source in devices()]
    total = engine.contributions(iter(scaled), weights=WEIGHTS, grid=GRID)
    alone = [
        train_on_device(engine, rows, weights=WEIGHTS, grid=GRID, source=source)
        for rows, source in devices()
    ]
    assert total.dtype == np.int64
    assert np.array_equal(total, sum(alone))
    assert np.array_equal(total, train_block(engine, devices(), weights=WEIGHTS, grid=GRID))
    assert max(np.linalg.norm(GRID.restore(part)) for part in alone) <= GRID.clipping_norm


def test_no_devices_and_devices_with_too_few_rows_give_zeros():
    engine = CohortTraining(replace(PRIVATE, least_rows=801))
    assert not engine.contributions([], weights=WEIGHTS, grid=GRID).any()
    assert not engine.changes(devices(), weights=WEIGHTS).any()
    assert engine.changes([], weights=WEIGHTS).shape == (0, NUM_WEIGHTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_worth_zero_under_clipping(value):
    recipe = replace(PRIVATE, sampling_rate=1.0)
    pair = devices(tables=[poisoned(value), made_up_rows(64, seed=1)])
    moved = CohortTraining(recipe).changes(pair, weights=WEIGHTS)
    again = devices(tables=[poisoned(value), made_up_rows(64, seed=1)])
    expected = local_trainer(recipe).changes(again, weights=WEIGHTS)
    assert np.isfinite(moved).all()
    assert np.linalg.norm(moved - expected, axis=1).max() <= 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_without_clipping_the_device_is_refused_and_its_neighbours_are_not(value):
    recipe = replace(PLAIN, sampling_rate=1.0)
    tables = [made_up_rows(64, seed=1), poisoned(value), made_up_rows(64, seed=2)]
    engine = CohortTraining(recipe)
    total = train_block(engine, devices(tables=tables), weights=WEIGHTS, grid=GRID)
    first, bad, last = (
        train_on_device(engine, rows, weights=WEIGHTS, grid=GRID, source=source)
        for rows, source in devices(tables=tables)
    )
    assert not bad.any()
    assert first.any()
    assert np.array_equal(total, first + last)


def test_weights_that_are_not_finite_move_nothing_on_the_grid():
    weights = np.full(NUM_WEIGHTS, np.nan, np.float32)
    engine = CohortTraining(PLAIN)
    assert not train_block(engine, devices(), weights=weights, grid=GRID).any()


def test_other_weights_and_empty_blocks_are_refused():
    with pytest.raises(ValueError, match="weights must have shape"):
        CohortTraining(PLAIN).changes(devices(), weights=WEIGHTS[:-1])
    with pytest.raises(ValueError, match="devices_a_block must be at least 1"):
        CohortTraining(PLAIN, devices_a_block=0)


def test_entropy_of_the_operating_system_serves_as_source():
    engine, rows = CohortTraining(PRIVATE), made_up_rows(64)
    first, second = (
        engine.change(rows, weights=WEIGHTS, source=OperatingSystemNoise()) for _ in range(2)
    )
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


@pytest.fixture
def files(tmp_path):
    rows = made_up_rows(64, num_devices=9, seed=1)
    names = [f"d{number}" for number in range(9)]
    write_row_files(tmp_path, device_ids=names, rows=rows, num_blocks=2)
    return RowFiles(tmp_path)


def task_for(block, *, recipe=PRIVATE, has_norm_bit=False):
    return RoundTask(
        stream="s",
        index=4,
        clipping_norm=GRID.clipping_norm,
        cohort_size=9,
        device_ids=block.device_ids,
        recipe=recipe,
        has_norm_bit=has_norm_bit,
    )


@pytest.mark.parametrize("has_norm_bit", [False, True])
def test_block_behind_a_node_gives_the_sum_of_the_usual_block(files, has_norm_bit):
    for number in range(2):
        block, usual = CohortBlock(files, number, 5), SimulatedBlock(files, number, 5)
        task = task_for(block, has_norm_bit=has_norm_bit)
        total, num_devices, receipts = block.relay_task(task, WEIGHTS, waited_s=0.0)
        expected = train_block(
            local_trainer(PRIVATE),
            [
                (usual.rows(one), usual.source(one, stream=task.stream, index=task.index))
                for one in usual.device_ids
            ],
            weights=WEIGHTS,
            grid=grid_of(task.clipping_norm, has_norm_bit=has_norm_bit),
        )
        assert (num_devices, receipts) == (len(usual.device_ids), ())
        assert np.linalg.norm(GRID.restore(total - expected)) <= 1e-5 * num_devices


def test_client_app_of_a_node_hands_the_whole_task_to_the_engine(files):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    block = CohortBlock(files, 0, 5)
    task = task_for(block)
    content = RecordDict({WEIGHTS_RECORD: ArrayRecord({FLAT_ARRAY: Array(WEIGHTS)})})
    content[TASK_RECORD] = ConfigRecord({**task.to_plain()})
    message = Message(content, dst_node_id=2, message_type=MessageType.TRAIN)
    reply = client_app(lambda _: block)(message=message, context=None).content
    said = Contribution.from_plain(dict(reply.config_records[CONTRIBUTION_RECORD]))
    total = reply.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    assert np.array_equal(total, block.relay_task(task, WEIGHTS, waited_s=0.0)[0])
    assert said.num_devices == len(block.device_ids)
    refusal = reply_refusal(total, said, task=task, num_weights=WEIGHTS.size, grid=GRID)
    assert refusal is None


def test_block_takes_fast_noise_when_told_and_entropy_without_a_seed(files):
    fast = CohortBlock(files, 0, 5, has_fast_noise=True)
    one = fast.device_ids[0]
    assert isinstance(fast.source(one, stream="s", index=0), FastSeededNoise)
    unseeded = CohortBlock(files, 0, None).source(one, stream="s", index=0)
    assert isinstance(unseeded, OperatingSystemNoise)


def test_processes_give_the_bits_of_one(files, tmp_path):
    block = CohortBlock(files, 0, 5)
    task = replace(task_for(block), device_ids=tuple(f"d{number}" for number in range(9)))
    expected, _, _ = block.relay_task(task, WEIGHTS, waited_s=0.0)
    with CohortProcesses(tmp_path, seed=5, num_processes=2) as processes:
        assert np.array_equal(processes.sum_of(task, WEIGHTS), expected)
    assert expected.any()


BITS = """
from hashlib import sha256
import numpy as np
from models.network_shape import NUM_WEIGHTS
from simulations.cohort_engine import CohortTraining
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows
from models.wire.rounds import LocalRecipe
recipe = LocalRecipe(least_rows=1, sampling_rate=1.0, steps=2)
devices = [(made_up_rows(count, seed=count), SeededNoise(1, count)) for count in (300, 2500)]
weights = np.random.default_rng(1).normal(0, 0.2, NUM_WEIGHTS).astype(np.float32)
moved = CohortTraining(recipe).changes(devices, weights=weights)
print(sha256(moved.tobytes()).hexdigest())
"""


def test_no_bit_depends_on_the_threads_of_matrix_products():
    said = {
        subprocess.run(
            [sys.executable, "-c", BITS],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(said) == 1
