"""Training in closed form gives the update that Opacus gives, from the same randomness."""

from dataclasses import replace

import numpy as np
import pytest

from edge_client.local_training import TrainingPath, local_trainer
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

ONE_STEP = LocalRecipe()
FIVE_STEPS = LocalRecipe(
    steps=5, sampling_rate=0.1, expected_batch_size=30, record_noise_multiplier=1.0
)
RECIPES = [
    ONE_STEP,
    FIVE_STEPS,
    replace(ONE_STEP, record_noise_multiplier=0.0),
    replace(FIVE_STEPS, record_noise_multiplier=0.0),
    replace(ONE_STEP, sampling_rate=0.002, least_rows=1),
]


@pytest.fixture(scope="module")
def weights():
    return new_flat_weights(seed=3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_paths_make_one_update_of_one_source(recipe, weights):
    reference = local_trainer(recipe, path=TrainingPath.OPACUS)
    trainer = local_trainer(recipe)
    for seed in range(3):
        rows = made_up_rows(180 + 60 * seed, seed=seed)
        expected = reference.change(rows, weights=weights, source=SeededNoise(1, seed))
        value = trainer.change(rows, weights=weights, source=SeededNoise(1, seed))
        # Opacus' path keeps weights in float32, so an update is known to a rounding of them.
        rounding = recipe.steps * float(np.spacing(np.abs(weights).max()))
        assert np.abs(value - expected).max() <= rounding
        assert np.linalg.norm(value) > 100 * rounding


def test_both_paths_draw_the_same_numbers_in_the_same_order(weights):
    drawn = {}

    class Recording:
        is_simulated = True

        def __init__(self, path):
            self.calls = drawn[path] = []

        def uniform(self, size):
            self.calls.append(("uniform", size))
            return np.full(size, 0.05)

        def gaussian(self, size, *, std):
            self.calls.append(("gaussian", size, std))
            return np.zeros(size)

    for path in TrainingPath:
        trainer = local_trainer(FIVE_STEPS, path=path)
        trainer.change(made_up_rows(200), weights=weights, source=Recording(path))
    assert drawn[TrainingPath.CLOSED_FORM] == drawn[TrainingPath.OPACUS]
    assert drawn[TrainingPath.CLOSED_FORM] == [("uniform", 200), ("gaussian", 2493, 1.0)] * 5


def test_row_that_poisons_moves_nothing_but_noise(weights):
    rows = made_up_rows(200)
    share = rows.exposure.copy()
    share[:] = np.nan
    for path in TrainingPath:
        trainer = local_trainer(ONE_STEP, path=path)
        change = trainer.change(
            replace(rows, exposure=share), weights=weights, source=SeededNoise(6)
        )
        noise = SeededNoise(6)
        noise.uniform(200)
        expected = -0.25 / 96 * noise.gaussian(2493, std=1.25)
        assert np.abs(change - expected).max() <= 1e-7
