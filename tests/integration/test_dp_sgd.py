"""Private training: clipping by row, noise from the source, empty batches and bad rows."""

import numpy as np
import pytest
import torch

from privacy import OperatingSystemNoise
from privacy.dp_sgd import make_private


class NoNoise:
    """A source whose Gaussians are zero, to look at the gradients alone."""

    is_simulated = True

    def gaussian(self, size, *, std):
        return np.zeros(size)

    def uniform(self, size):
        return np.full(size, 0.5)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def private(network, *, source, sigma=1.0, bound=0.7):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return make_private(
        network, optimizer, noise_multiplier=sigma, max_grad_norm=bound, source=source
    )


def one_step(pair, features):
    pair.optimizer.zero_grad()
    pair.module(features).pow(2).sum(dim=1).sum().backward()
    pair.optimizer.step()


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy().copy()


def clipped_sum_by_hand(network, features, bound):
    """One row at a time through plain autograd."""
    total = 0.0
    for row in features:
        loss = network(row[None]).pow(2).sum()
        grads = torch.autograd.grad(loss, list(network.parameters()))
        gradient = torch.cat([grad.flatten() for grad in grads]).double()
        total = total + gradient * min(1.0, bound / float(gradient.norm()))
    return total.numpy()


def test_step_is_the_sum_of_row_gradients_clipped_one_by_one(network):
    features = torch.randn(20, 5)
    expected = clipped_sum_by_hand(network, features, bound=0.7)
    before = flat(network)

    one_step(private(network, source=NoNoise()), features)

    assert (before - flat(network)) / 0.1 == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_noise_has_the_claimed_scale_and_covers_every_parameter(network):
    pair = private(network, source=OperatingSystemNoise(), sigma=2.0, bound=0.7)
    nothing = torch.zeros(0, 5)
    draws = []
    for _ in range(400):
        before = flat(network)
        one_step(pair, nothing)
        draws.append((before - flat(network)) / 0.1)
    draws = np.array(draws)
    # Standard error of a standard deviation is s/√(2m); 6 of them over all, 7 for the worst of 34.
    assert draws.std() == pytest.approx(1.4, rel=6 / np.sqrt(2 * draws.size))
    assert np.abs(draws.std(axis=0) / 1.4 - 1).max() < 7 / np.sqrt(2 * 400)


def test_torch_seed_does_not_repeat_the_noise(network):
    pair = private(network, source=OperatingSystemNoise())
    moves = []
    for _ in range(2):
        torch.manual_seed(0)
        before = flat(network)
        one_step(pair, torch.zeros(0, 5))
        moves.append(flat(network) - before)
    assert not np.allclose(moves[0], moves[1])


def test_empty_batch_without_noise_moves_nothing(network):
    before = flat(network)
    one_step(private(network, source=NoNoise()), torch.zeros(0, 5))
    assert np.array_equal(flat(network), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_row_without_a_finite_gradient_adds_zero(network, bad):
    features = torch.randn(6, 5)
    expected = clipped_sum_by_hand(network, features, bound=0.7)
    poisoned = torch.cat([features[:3], torch.full((1, 5), bad), features[3:]])
    before = flat(network)

    one_step(private(network, source=NoNoise()), poisoned)

    assert (before - flat(network)) / 0.1 == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_source_can_change_between_devices(network):
    pair = private(network, source=OperatingSystemNoise())
    pair.draw_from(NoNoise())
    before = flat(network)
    one_step(pair, torch.zeros(0, 5))
    assert np.array_equal(flat(network), before)


@pytest.mark.parametrize(("sigma", "bound", "named"), [(0, 1, "noise"), (1, 0, "max_grad")])
def test_training_without_noise_or_bound_is_not_called_private(network, sigma, bound, named):
    with pytest.raises(ValueError, match=named):
        private(network, source=NoNoise(), sigma=sigma, bound=bound)
