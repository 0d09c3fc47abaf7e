"""FedProx on the device: one update on every path, less drift, and no row's protection touched."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from edge_client.local_training import TrainingPath, local_trainer
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe, RoundTask
from privacy.policy import record_policy
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows
from tests.support.stream_policies import stream_policy

FEW_ROWS = {"steps": 5, "sampling_rate": 0.1, "expected_batch_size": 30, "least_rows": 150}
PRIVATE = LocalRecipe(**FEW_ROWS, record_noise_multiplier=1.0, proximal=1.5)
PLAIN = LocalRecipe(**FEW_ROWS, record_noise_multiplier=0.0, learning_rate=0.5, proximal=1.5)


@pytest.fixture(scope="module")
def weights():
    return new_flat_weights(seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [PRIVATE, PLAIN], ids=["private", "plain"])
def test_closed_form_opacus_and_devices_side_by_side_make_one_update(recipe, weights):
    reference, trainer = local_trainer(recipe, path=TrainingPath.OPACUS), local_trainer(recipe)
    tables = [made_up_rows(200 + 40 * seed, seed=seed) for seed in range(3)]
    together = trainer.changes(
        [(rows, SeededNoise(1, seed)) for seed, rows in enumerate(tables)], weights=weights
    )
    free = local_trainer(replace(recipe, proximal=0.0))
    for seed, rows in enumerate(tables):
        expected = reference.change(rows, weights=weights, source=SeededNoise(1, seed))
        alone = trainer.change(rows, weights=weights, source=SeededNoise(1, seed))
        assert np.array_equal(together[seed], alone)
        assert np.abs(alone - expected).max() <= 1e-6
        without = free.change(rows, weights=weights, source=SeededNoise(1, seed))
        assert np.abs(alone - without).max() > 1e-3


@pytest.mark.slow
def test_reference_is_held_to_the_weights_of_its_own_device_and_round(weights):
    """One prepared network serves device after device."""
    reference = local_trainer(PLAIN, path=TrainingPath.OPACUS)
    rows = made_up_rows(200)
    first = reference.change(rows, weights=weights, source=SeededNoise(1, 0))
    reference.change(rows, weights=-weights, source=SeededNoise(1, 1))
    again = reference.change(rows, weights=weights, source=SeededNoise(1, 0))
    assert np.array_equal(first, again)


def test_one_step_is_the_gradient_whatever_holds_it_back(weights):
    one = replace(PRIVATE, steps=1)
    rows = made_up_rows(200)
    changes = [
        local_trainer(recipe).change(rows, weights=weights, source=SeededNoise(1, 0))
        for recipe in (one, replace(one, proximal=0.0))
    ]
    assert np.array_equal(*changes)


def test_devices_drift_less_the_more_they_are_held_back(weights):
    """Over ten steps: how far they go, and how far from each other, both fall with μ."""
    tables = [made_up_rows(200, seed=seed) for seed in range(6)]
    far, apart = [], []
    for proximal in (0.0, 0.2, 0.6, 1.2):
        recipe = replace(
            PLAIN, steps=10, sampling_rate=1.0, expected_batch_size=200, proximal=proximal
        )
        changes = local_trainer(recipe).changes(
            [(rows, SeededNoise(1, seed)) for seed, rows in enumerate(tables)], weights=weights
        )
        far.append(np.linalg.norm(changes, axis=1).mean())
        apart.append(np.linalg.norm(changes - changes.mean(axis=0), axis=1).mean())
    assert far == sorted(far, reverse=True)
    assert apart == sorted(apart, reverse=True)
    assert far[-1] < 0.5 * far[0]
    assert apart[-1] < 0.5 * apart[0]


class NoNoise:
    is_simulated = True

    def __init__(self):
        self.drawn = []

    def gaussian(self, size, *, std):
        self.drawn.append((size, std))
        return np.zeros(size)

    def uniform(self, size):
        self.drawn.append((size, None))
        return np.zeros(size)


@pytest.mark.slow
@pytest.mark.parametrize("path", TrainingPath)
def test_rows_are_clipped_and_noised_before_and_as_without_it(path, weights):
    """Held back whole, a device keeps only its last step: what all its rows may weigh at most."""
    recipe = replace(PRIVATE, proximal=1.0 / PRIVATE.learning_rate)
    rows, source, usual = made_up_rows(200), NoNoise(), NoNoise()
    change = local_trainer(recipe, path=path).change(rows, weights=weights, source=source)
    rate = recipe.learning_rate / recipe.expected_batch_size
    assert 0 < np.linalg.norm(change) <= rate * len(rows) * recipe.record_max_grad_norm * 1.001
    free = local_trainer(replace(recipe, proximal=0.0), path=path)
    free.change(rows, weights=weights, source=usual)
    assert source.drawn == usual.drawn


def test_policy_and_what_is_charged_know_nothing_of_it():
    assert record_policy(PRIVATE) == record_policy(replace(PRIVATE, proximal=0.0))
    policy = stream_policy()
    assert replace(policy, record=record_policy(PRIVATE)).digest == (
        replace(policy, record=record_policy(replace(PRIVATE, proximal=0.0))).digest
    )
    assert b"proximal" not in policy.to_bytes()


def task(recipe):
    return RoundTask(
        stream="s",
        index=0,
        clipping_norm=1.0,
        cohort_size=1,
        device_ids=("a",),
        recipe=recipe,
    )


def test_unchanged_recipe_is_yesterdays_task_to_the_letter():
    yesterday = {name: value for name, value in asdict(LocalRecipe()).items() if name != "proximal"}
    plain = task(LocalRecipe()).to_plain()
    assert {name: plain[name] for name in yesterday} == yesterday
    assert "proximal" not in plain
    assert RoundTask.from_plain(plain) == task(LocalRecipe())
    held = task(PRIVATE)
    assert held.to_plain()["proximal"] == 1.5
    assert RoundTask.from_plain(held.to_plain()) == held


@pytest.mark.parametrize("proximal", [-0.1, float("nan"), float("inf"), 4.1])
def test_recipe_that_would_step_past_its_anchor_is_refused(proximal):
    with pytest.raises(ValueError, match="proximal"):
        LocalRecipe(proximal=proximal)
