"""The likelihood under censoring against numerical integration, and gradients at extremes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate

from models.hazard_bins import (
    BASE_RATE_PER_DAY,
    EDGES_DAYS,
    LEAST_RATE_PER_DAY,
    NUM_BINS,
    WIDTHS_DAYS,
    exposure,
)
from models.telemetry import CAUSES
from models.training.losses import CAUSE_WEIGHT, batch_loss, row_losses
from models.training.network import cumulative_hazards
from tests.support.fleets import random_network, simulated_rows


def batch_of(days, event, cause=None):
    share, event_bin = exposure(np.asarray(days, float), np.asarray(event))
    cause = np.full(len(days), -1) if cause is None else np.asarray(cause)
    return (
        torch.zeros(len(days), 1),
        torch.from_numpy(share),
        torch.from_numpy(event_bin.astype(np.int64)),
        torch.from_numpy(cause.astype(np.int64)),
    )


def losses(logits, batch, causes=None):
    causes = torch.zeros(len(logits), len(CAUSES)) if causes is None else causes
    return row_losses(logits, causes, batch).detach().numpy()


def rate_of(logits):
    """Return a day's hazard rate as a step function of days, in plain numpy."""
    wide = np.logaddexp(0, np.asarray(logits, float) + np.log(WIDTHS_DAYS * BASE_RATE_PER_DAY))
    rates = wide / WIDTHS_DAYS + LEAST_RATE_PER_DAY
    return lambda day: rates[min(np.searchsorted(EDGES_DAYS, day, side="right") - 1, NUM_BINS - 1)]


@pytest.mark.parametrize("days", [0.5, 3.0, 12.0, 44.0, 400.0, 1000.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_the_likelihood_of_a_piecewise_constant_hazard(days, seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (1, NUM_BINS))).float()
    rate = rate_of(logits[0].numpy())
    edges = [float(edge) for edge in EDGES_DAYS if 0 < edge < days]

    lived, _ = integrate.quad(rate, 0, days, points=edges or None, limit=200)
    assert losses(logits, batch_of([days], [False])) == pytest.approx([lived], rel=2e-3)

    low, high = next((low, high) for low, high in pairwise(EDGES_DAYS) if low < days <= high)
    before = integrate.quad(rate, 0, low, points=edges or None, limit=200)[0] if low else 0.0
    within = (high - low) * rate((low + high) / 2)
    expected = -np.log(np.exp(-before) - np.exp(-before - within))
    assert losses(logits, batch_of([days], [True])) == pytest.approx([expected], rel=2e-3)


def test_a_constant_hazard_is_estimated_as_failures_over_time_at_risk():
    """The maximum-likelihood rate of an exponential life is events / exposure; bins blur it."""
    rng = np.random.default_rng(5)
    rate = 1 / 250
    life, watched = rng.exponential(1 / rate, 4000), rng.uniform(50, 900, 4000)
    days, event = np.minimum(life, watched), life <= watched
    batch = batch_of(days, event)
    rates = np.geomspace(1 / 500, 1 / 120, 60)
    means = []
    for candidate in rates:
        wide = WIDTHS_DAYS * (candidate - LEAST_RATE_PER_DAY)
        logit = np.log(np.expm1(wide)) - np.log(WIDTHS_DAYS * BASE_RATE_PER_DAY)
        logits = torch.from_numpy(np.tile(logit, (4000, 1))).float()
        means.append(losses(logits, batch).mean())

    assert rates[int(np.argmin(means))] == pytest.approx(event.sum() / days.sum(), rel=0.03)


def test_known_causes_add_their_cross_entropy_and_unknown_ones_nothing():
    logits = torch.zeros(3, NUM_BINS)
    causes = torch.tensor([[2.0, 0, 0, 0, 0]] * 3)
    known = losses(logits, batch_of([10, 10, 10], [True, True, False], [0, -1, 0]), causes)
    plain = losses(logits, batch_of([10, 10, 10], [True, True, False]), causes)
    entropy = -np.log(np.exp(2) / (np.exp(2) + 4))

    assert known - plain == pytest.approx([CAUSE_WEIGHT * entropy, 0, 0], abs=1e-6)


@pytest.mark.parametrize("size", [0.0, 30.0, 300.0, 3000.0])
def test_losses_and_gradients_stay_finite_at_extremes(size):
    logits = torch.tensor([[size] * NUM_BINS, [-size] * NUM_BINS] * 2, requires_grad=True)
    causes = torch.full((4, len(CAUSES)), size, requires_grad=True)
    batch = batch_of([0.01, 0.01, 1000, 3000], [True, True, True, False], [0, 1, 2, -1])
    loss = row_losses(logits, causes, batch)
    loss.sum().backward()

    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(causes.grad).all()


def test_hazards_are_positive_and_a_zero_logit_stands_for_the_base_rate():
    hazards = cumulative_hazards(torch.zeros(1, NUM_BINS))[0].numpy()
    short = WIDTHS_DAYS < 10

    assert (cumulative_hazards(torch.full((1, NUM_BINS), -500.0)) > 0).all()
    assert hazards[short] / WIDTHS_DAYS[short] == pytest.approx(BASE_RATE_PER_DAY, rel=0.02)


def test_the_loss_of_a_batch_is_the_mean_over_its_rows_and_moves_every_weight():
    from models.training.central import as_batch

    network, batch = random_network(2), as_batch(simulated_rows().take(slice(0, 4000, 7)))
    loss = batch_loss(network, batch)
    loss.backward()
    with torch.no_grad():
        rows = row_losses(*network(batch[0]), batch)

    assert loss.item() == pytest.approx(rows.mean().item(), rel=1e-6)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.head.parameters())
