"""Row gradients in closed form, against Opacus' hooks on the real network."""

from dataclasses import replace

import numpy as np
import pytest

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows
from models.hazard_bins import NUM_BINS
from models.training.local_epochs import new_flat_weights
from tests.support.gradient_rows import (
    BOUND,
    closed_form,
    distance,
    random_weights,
    row_of_every_kind,
)
from tests.support.made_up_rows import made_up_rows
from tests.support.opacus_sums import opacus_clipped_sum, our_opacus_clipped_sum


@pytest.mark.parametrize("max_grad_norm", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("scale", [0.03, 0.3, 1.0])
def test_sums_are_those_of_opacus(scale, max_grad_norm):
    rows = row_of_every_kind()
    assert set(rows.event_bin.tolist()) == {-1, *range(NUM_BINS)}
    for dtype, bound in ((np.float32, BOUND), (np.float64, 1e-10)):
        weights = random_weights(scale, dtype=dtype)
        expected = opacus_clipped_sum(weights, rows, max_grad_norm=max_grad_norm)
        value = closed_form(weights, rows, max_grad_norm=max_grad_norm)
        assert distance(value, expected) <= bound


@pytest.mark.parametrize("seed", range(10))
def test_sums_are_those_of_opacus_for_fresh_weights_and_any_rows(seed):
    weights = new_flat_weights(seed=seed)
    rows = made_up_rows(17 + 31 * seed, seed=seed, num_devices=2, missing_share=0.1 * seed)
    expected = opacus_clipped_sum(weights, rows, max_grad_norm=1.0)
    assert distance(closed_form(weights, rows, max_grad_norm=1.0), expected) <= BOUND


def test_every_single_row_has_the_gradient_of_opacus():
    rows, weights = row_of_every_kind(seed=1), random_weights(0.3, dtype=np.float64)
    scaled = ScaledRows.of(rows, dtype=np.float64)
    alone = RaggedBatch(scaled, tuple(range(len(rows) + 1)))
    gradients = clipped_sums(weights[None], alone, max_grad_norm=0.5)
    assert np.linalg.norm(gradients, axis=1).max() <= 0.5
    for number in range(0, len(rows), 7):
        one = rows.take(slice(number, number + 1))
        expected = opacus_clipped_sum(weights, one, max_grad_norm=0.5)
        assert distance(gradients[number], expected) <= 1e-10


def test_without_a_bound_gradients_are_added_up_as_they_are():
    rows, weights = row_of_every_kind(seed=2), random_weights(0.3)
    unbounded = closed_form(weights, rows, max_grad_norm=None)
    assert distance(unbounded, opacus_clipped_sum(weights, rows, max_grad_norm=1e12)) <= BOUND


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_row_without_a_finite_gradient_adds_zero_as_in_the_reference(bad):
    rows, weights = made_up_rows(), random_weights(0.3)
    share = rows.exposure.copy()
    share[10:13] = bad
    broken = replace(rows, exposure=share)
    without = rows.take(np.r_[0:10, 13 : len(rows)])
    value = closed_form(weights, broken, max_grad_norm=1.0)
    assert distance(value, closed_form(weights, without, max_grad_norm=1.0)) <= BOUND
    assert distance(value, our_opacus_clipped_sum(weights, broken, max_grad_norm=1.0)) <= BOUND


def test_weights_that_are_not_finite_give_zeros_as_in_the_reference():
    rows, weights = made_up_rows(50), random_weights(0.3)
    weights[-1] = np.nan
    assert not closed_form(weights, rows, max_grad_norm=1.0).any()
    assert not our_opacus_clipped_sum(weights, rows, max_grad_norm=1.0).any()
