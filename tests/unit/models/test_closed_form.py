"""Row gradients in closed form: never beyond the bound, and the same in any company."""

import numpy as np
import pytest
import torch

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows, scaled_inputs
from models.feature_spec import FEATURES, NUM_FEATURES
from models.network_shape import NUM_WEIGHTS
from models.training.network import HazardNetwork
from tests.support.gradient_rows import (
    random_weights,
    row_of_every_kind,
)
from tests.support.made_up_rows import made_up_rows


@pytest.mark.parametrize("scale", [1e4, 1e12, 1e20, 1e37])
def test_no_weights_let_a_row_beyond_the_bound(scale):
    scaled = ScaledRows.of(row_of_every_kind())
    alone = RaggedBatch(scaled, tuple(range(len(scaled) + 1)))
    gradients = clipped_sums(random_weights(scale)[None], alone, max_grad_norm=1.0)
    assert np.isfinite(gradients).all()
    assert np.linalg.norm(gradients, axis=1).max() <= 1 + 1e-5


def test_a_device_alone_and_among_others_is_the_same_to_the_last_bit():
    tables = [ScaledRows.of(made_up_rows(n, seed=n)) for n in (7, 2, 33, 0, 100, 64, 257)]
    bounds = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    weights = np.stack([random_weights(0.3, seed=seed) for seed in range(len(tables))])
    together = RaggedBatch(ScaledRows.stacked(tables), tuple(bounds))
    for own in (weights, weights[:1]):
        sums = clipped_sums(own, together, max_grad_norm=1.0)
        for number, table in enumerate(tables):
            alone = RaggedBatch(table, (0, len(table)))
            expected = clipped_sums(own[number % len(own)][None], alone, max_grad_norm=1.0)
            assert np.array_equal(sums[number], expected[0])


def test_a_batch_without_rows_gives_zeros():
    nothing = ScaledRows.of(made_up_rows(5).take(slice(0, 0)))
    sums = clipped_sums(random_weights(0.3)[None], RaggedBatch(nothing, (0, 0, 0)), max_grad_norm=1)
    assert sums.shape == (2, NUM_WEIGHTS)
    assert not sums.any()


def test_picked_rows_are_those_of_the_coins():
    rows = ScaledRows.of(made_up_rows(20))
    picks = [np.array([3, 4]), np.array([], np.int64), np.array([19])]
    batch = RaggedBatch.picked(rows, picks)
    assert batch.bounds == (0, 2, 2, 3)
    assert np.array_equal(batch.rows.inputs, rows.inputs[[3, 4, 19]])


def test_scaling_is_that_of_the_network():
    generator = np.random.default_rng(4)
    span = np.array([(f.low, f.high) for f in FEATURES])
    features = generator.uniform(2 * span[:, 0] - span[:, 1], 2 * span[:, 1], (400, NUM_FEATURES))
    features[generator.random(features.shape) < 0.2] = np.nan
    features[0], features[1], features[2] = np.inf, -np.inf, np.nan
    network = HazardNetwork()
    for dtype, bound in ((np.float32, 1e-6), (np.float64, 1e-12)):
        values = features.astype(dtype)
        expected = network.double() if dtype is np.float64 else network
        expected = expected.scaled(torch.from_numpy(values)).numpy()
        scaled = scaled_inputs(values)
        assert np.isfinite(scaled).all()
        assert np.abs(scaled[:, :-1] - expected).max() <= bound
        assert (scaled[:, -1] == 1).all()


@pytest.mark.parametrize(
    ("shape", "named"), [((1, 3), "weights must have shape"), ((2, NUM_WEIGHTS), "1 or 1 sets")]
)
def test_weights_of_another_network_or_number_of_devices_are_refused(shape, named):
    batch = RaggedBatch(ScaledRows.of(made_up_rows(5)), (0, 5))
    with pytest.raises(ValueError, match=named):
        clipped_sums(np.zeros(shape, np.float32), batch, max_grad_norm=1.0)
