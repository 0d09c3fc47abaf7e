"""What one device sends: bounded, exact in sums, and nothing where it sits out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_client.local_training import local_trainer, train_block, train_on_device
from models.training.central import as_batch
from models.training.local_epochs import new_flat_weights
from models.training.losses import row_losses
from models.training.network import HazardNetwork
from models.wire.rounds import LocalRecipe
from privacy import OperatingSystemNoise, UpdateGrid
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

PLAIN = LocalRecipe(record_noise_multiplier=0.0)
PRIVATE = LocalRecipe()
GRID = UpdateGrid(clipping_norm=0.5)


@pytest.fixture(scope="module")
def weights():
    return new_flat_weights(seed=1)


@pytest.fixture(scope="module")
def plain():
    return local_trainer(PLAIN)


@pytest.fixture(scope="module")
def private():
    return local_trainer(PRIVATE)


class EveryRow:
    """A source whose coins always fall in: one step is then the full gradient."""

    is_simulated = True

    def gaussian(self, size, *, std):
        return np.zeros(size)

    def uniform(self, size):
        return np.zeros(size)


def full_gradient(rows, weights):
    """Σ of the rows' gradients by plain torch, in the order of the parameters."""
    network = HazardNetwork()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights), network.parameters())
    batch = as_batch(rows)
    row_losses(*network(batch[0]), batch).sum().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()]).double().numpy()


def test_one_plain_step_is_the_gradient_over_the_public_divisor(plain, weights):
    rows = made_up_rows()
    change = plain.change(rows, weights=weights, source=EveryRow())
    expected = -0.25 / 96 * full_gradient(rows, weights)
    assert change == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_divisor_does_not_depend_on_the_private_number_of_rows(plain, weights):
    rows = made_up_rows(200)
    twice = rows.take(np.repeat(np.arange(200), 2))
    once = plain.change(rows, weights=weights, source=EveryRow())
    doubled = plain.change(twice, weights=weights, source=EveryRow())
    assert doubled == pytest.approx(2 * once, rel=1e-3, abs=1e-6)


def test_private_step_clips_every_row(private, weights):
    rows = made_up_rows()
    change = private.change(rows, weights=weights, source=EveryRow())
    assert np.linalg.norm(change) <= 0.25 / 96 * len(rows) * PRIVATE.record_max_grad_norm * 1.001
    assert np.linalg.norm(change) > 0


def test_private_noise_is_that_of_the_recipe(private, weights):
    rows = made_up_rows()
    source = SeededNoise(5, "coins")
    drawn = []

    class Recording:
        is_simulated = True
        uniform = staticmethod(source.uniform)

        def gaussian(self, size, *, std):
            drawn.append((size, std))
            return source.gaussian(size, std=std)

    private.change(rows, weights=weights, source=Recording())
    assert drawn == [(private.num_weights, 1.25)] * PRIVATE.steps


@pytest.mark.parametrize("recipe", [PLAIN, PRIVATE])
def test_same_source_gives_the_same_update_and_another_another(recipe, weights):
    trainer, rows = local_trainer(recipe), made_up_rows()

    def sent(*purpose):
        source = SeededNoise(1, *purpose)
        return train_on_device(trainer, rows, weights=weights, grid=GRID, source=source)

    assert np.array_equal(sent("a", 0), sent("a", 0))
    assert not np.array_equal(sent("a", 0), sent("a", 1))


def test_what_is_sent_is_within_the_clipping_norm(plain, weights):
    grid = UpdateGrid(clipping_norm=0.01)
    sent = train_on_device(
        plain, made_up_rows(), weights=weights, grid=grid, source=OperatingSystemNoise()
    )
    assert np.linalg.norm(grid.restore(sent)) == pytest.approx(0.01, rel=1e-6)
    assert sum(int(value) ** 2 for value in sent) <= 2**72


@pytest.mark.parametrize("trainer", ["plain", "private"])
def test_device_with_too_few_rows_sends_zeros(trainer, weights, request):
    rows = made_up_rows(PLAIN.least_rows - 1)
    sent = train_on_device(
        request.getfixturevalue(trainer),
        rows,
        weights=weights,
        grid=GRID,
        source=OperatingSystemNoise(),
    )
    assert sent.dtype == np.int64
    assert not sent.any()


def test_device_whose_training_does_not_stay_finite_sends_zeros(plain, weights):
    rows = made_up_rows()
    broken = replace(rows, exposure=np.full_like(rows.exposure, np.inf))
    sent = train_on_device(plain, broken, weights=weights, grid=GRID, source=OperatingSystemNoise())
    assert not sent.any()


def test_one_device_leaves_no_trace_in_the_next(plain, weights):
    rows = made_up_rows(seed=2)
    alone = train_on_device(plain, rows, weights=weights, grid=GRID, source=SeededNoise(1))
    other = made_up_rows(seed=9)
    train_on_device(plain, other, weights=weights, grid=GRID, source=SeededNoise(2))
    after = train_on_device(plain, rows, weights=weights, grid=GRID, source=SeededNoise(1))
    assert np.array_equal(alone, after)


@pytest.mark.parametrize("trainer", ["plain", "private"])
def test_sum_of_a_block_is_the_sum_of_its_devices(trainer, weights, request):
    trainer = request.getfixturevalue(trainer)
    devices = [made_up_rows(seed=seed) for seed in range(4)]
    alone = [
        train_on_device(trainer, rows, weights=weights, grid=GRID, source=SeededNoise(1, number))
        for number, rows in enumerate(devices)
    ]
    block = train_block(
        trainer,
        [(rows, SeededNoise(1, number)) for number, rows in reversed(list(enumerate(devices)))],
        weights=weights,
        grid=GRID,
    )
    assert np.array_equal(block, np.sum(alone, axis=0))


def test_weights_of_another_network_are_refused(plain):
    with pytest.raises(ValueError, match="weights must have shape"):
        plain.change(made_up_rows(), weights=np.zeros(3, np.float32), source=EveryRow())
