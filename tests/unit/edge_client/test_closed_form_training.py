"""Training in closed form: devices side by side, in blocks, and from any source."""

import numpy as np
import pytest

from edge_client.closed_form_training import ClosedFormTraining
from edge_client.local_training import local_trainer, train_block
from models.closed_form_batches import ScaledRows
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import OperatingSystemNoise, UpdateGrid
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

ONE_STEP = LocalRecipe()
FIVE_STEPS = LocalRecipe(
    steps=5, sampling_rate=0.1, expected_batch_size=30, record_noise_multiplier=1.0
)
GRID = UpdateGrid(clipping_norm=0.5)


@pytest.fixture(scope="module")
def weights():
    return new_flat_weights(seed=3)


@pytest.mark.parametrize("recipe", [ONE_STEP, FIVE_STEPS])
def test_devices_side_by_side_train_as_each_alone(recipe, weights):
    tables = [made_up_rows(n, seed=n) for n in (200, 50, 365, 181, 180, 300)]
    trainer = ClosedFormTraining(recipe)
    together = trainer.changes(
        [(rows, SeededNoise(2, number)) for number, rows in enumerate(tables)], weights=weights
    )
    for number, rows in enumerate(tables):
        alone = trainer.change(rows, weights=weights, source=SeededNoise(2, number))
        assert np.array_equal(together[number], alone)
    assert not together[1].any()


def test_rows_that_are_scaled_already_give_the_same(weights):
    tables = [made_up_rows(200, seed=seed) for seed in range(3)]
    trainer = ClosedFormTraining(ONE_STEP)
    scaled = ScaledRows.stacked([ScaledRows.of(rows) for rows in tables])
    sources = [SeededNoise(2, number) for number in range(3)]
    value = trainer.changes_of_scaled(
        scaled, [(0, 200), (200, 400), (400, 600)], sources, weights=weights
    )
    again = [(rows, SeededNoise(2, number)) for number, rows in enumerate(tables)]
    assert np.array_equal(value, trainer.changes(again, weights=weights))


def test_block_larger_than_a_batch_of_devices_is_the_sum_of_its_devices(weights):
    rows = [made_up_rows(180, seed=seed) for seed in range(3)]
    devices = [(rows[number % 3], SeededNoise(4, number)) for number in range(70)]
    trainer = local_trainer(ONE_STEP)
    total = train_block(trainer, devices, weights=weights, grid=GRID)
    again = [(rows[number % 3], SeededNoise(4, number)) for number in range(70)]
    halves = [
        train_block(trainer, part, weights=weights, grid=GRID) for part in (again[:9], again[9:])
    ]
    assert np.array_equal(total, halves[0] + halves[1])
    assert total.any()


def test_no_devices_give_no_changes(weights):
    changes = ClosedFormTraining(ONE_STEP).changes([], weights=weights)
    assert changes.shape == (0, 2493)


def test_entropy_of_the_operating_system_serves_as_source(weights):
    trainer, rows = local_trainer(ONE_STEP), made_up_rows(200)
    first, second = (
        trainer.change(rows, weights=weights, source=OperatingSystemNoise()) for _ in range(2)
    )
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)
