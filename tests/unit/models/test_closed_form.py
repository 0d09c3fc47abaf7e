"""Row gradients in closed form, against Opacus' hooks on the real network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows, scaled_inputs
from models.feature_spec import FEATURES, NUM_FEATURES
from models.hazard_bins import EDGES_DAYS, NUM_BINS, exposure
from models.network_shape import NUM_WEIGHTS
from models.telemetry import CAUSES
from models.training.local_epochs import new_flat_weights
from models.training.network import HazardNetwork
from models.training_rows import TrainingRows
from tests.support.made_up_rows import made_up_rows
from tests.support.opacus_sums import opacus_clipped_sum, our_opacus_clipped_sum

BOUND = 1e-6


def random_weights(scale, *, seed=0, dtype=np.float32):
    return (scale * np.random.default_rng(seed).normal(size=NUM_WEIGHTS)).astype(dtype)


def row_of_every_kind(seed=0):
    """Failures in every bin with every cause and without one, censored rows, missing and extreme
    features, in no order."""
    generator = np.random.default_rng(seed)
    middles = (np.array(EDGES_DAYS[1:]) + np.array(EDGES_DAYS[:-1])) / 2
    failed = np.repeat(middles, len(CAUSES) + 1)
    cause = np.tile(np.arange(-1, len(CAUSES)), NUM_BINS)
    days = np.concatenate([failed, np.linspace(0.5, 1500, 40)])
    event = np.arange(len(days)) < len(failed)
    share, event_bin = exposure(days, event)
    features = np.array(
        [generator.uniform(f.low, f.high, len(days)) for f in FEATURES], np.float32
    ).T
    features[generator.random(features.shape) < 0.15] = np.nan
    features[3] = np.nan
    features[4], features[5] = 1e30, -1e30
    features[6], features[7] = np.inf, -np.inf
    return TrainingRows(
        device=np.zeros(len(days), np.intp),
        features=features,
        exposure=share,
        event_bin=event_bin,
        cause=np.concatenate([cause, np.full(40, -1)]).astype(np.int8),
    ).take(generator.permutation(len(days)))


def closed_form(weights, rows, *, max_grad_norm):
    scaled = ScaledRows.of(rows, dtype=weights.dtype)
    batch = RaggedBatch(scaled, (0, len(rows)))
    return clipped_sums(weights[None], batch, max_grad_norm=max_grad_norm)[0]


def distance(value, reference):
    """‖value − reference‖₂ / ‖reference‖₂."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


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
