"""The recipe: held-out devices, absent groups, calibration, threshold, reference."""

import numpy as np
import pytest
import torch

from models.calibration import Calibration
from models.feature_spec import FEATURE_NAMES, FEATURES, GROUPS, NUM_FEATURES, group_index
from models.hazard_bins import NUM_BINS, exposure
from models.metrics import average_precision
from models.training.central import as_batch, train_centrally
from models.training.export_onnx import parameters_of
from models.training.losses import row_losses
from models.training.network import MASKED, HazardNetwork, scaling
from models.training.outputs import numpy_outputs
from models.training.recipe import (
    OPTIONAL_GROUPS,
    RecipeSettings,
    TrainedModel,
    choose_threshold,
    explanation_reference,
    fit_calibration,
    soon_labels,
    train_model,
)
from models.training_rows import TrainingRows
from tests.support.fleets import random_network, simulated_rows

MARGIN = FEATURE_NAMES.index("days_to_eol_linear_30d")
SMALL = RecipeSettings(num_steps=60, batch_size=256, learning_rate=0.02)


def rows_of(days, event, *, features=None, device=None, cause=0):
    share, event_bin = exposure(np.asarray(days, float), np.asarray(event))
    count = len(share)
    return TrainingRows(
        np.arange(count) if device is None else device,
        np.zeros((count, NUM_FEATURES), np.float32) if features is None else features,
        share,
        event_bin,
        np.where(event_bin >= 0, cause, -1).astype(np.int8),
    )


def learnable_rows(seed, count=2000):
    """Lives whose length hangs on one feature alone."""
    rng = np.random.default_rng(seed)
    line = rng.uniform(0, 400, count)
    days = np.maximum(line * rng.lognormal(0, 0.3, count), 0.5)
    watched = rng.uniform(30, 500, count)
    features = np.full((count, NUM_FEATURES), np.nan, np.float32)
    features[:, MARGIN] = line
    return rows_of(
        np.minimum(days, watched),
        days <= watched,
        features=features,
        device=np.arange(count) // 10,
        cause=1,
    )


def test_labels_are_known_when_the_month_was_lived_or_ended_by_a_failure():
    label, known = soon_labels(rows_of([30, 30.1, 29, 31, 12], [True, True, False, False, True]))

    assert label.tolist() == [True, False, False, False, True]
    assert known.tolist() == [True, True, False, True, True]


@pytest.mark.slow
def test_training_learns_what_can_be_learnt():
    test = learnable_rows(2)
    model = train_model([learnable_rows(1)], [learnable_rows(3)], settings=SMALL, seed=4)
    label, known = soon_labels(test)
    found = average_precision(label[known], model.probability(test.features)[known])
    best = average_precision(label[known], -test.features[known, MARGIN])

    assert found > best - 0.05
    assert 0.05 < model.threshold < 0.95


@pytest.mark.slow
def test_training_is_the_same_for_the_same_seed_and_another_for_another():
    rows = learnable_rows(1, 300)
    brief = RecipeSettings(num_steps=8, batch_size=64)
    one, same, other = (
        train_model([rows], [rows], settings=brief, seed=seed) for seed in (4, 4, 5)
    )

    assert one.parameters.flat().tobytes() == same.parameters.flat().tobytes()
    assert (one.threshold, one.calibration) == (same.threshold, same.calibration)
    assert one.parameters.flat().tobytes() != other.parameters.flat().tobytes()


@pytest.mark.slow
def test_calibration_finds_scale_and_shift_that_were_put_in():
    """Lives drawn from the network's own hazards, shifted and scaled: 8,000 rows."""
    network = random_network(3)
    features = np.resize(simulated_rows().features, (8_000, NUM_FEATURES))
    truth = Calibration(scale=0.7, shift=0.5)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        logits, _ = network(torch.from_numpy(features))
        from models.training.network import cumulative_hazards

        hazards = cumulative_hazards(truth.scale * logits + truth.shift).numpy()
    dies = rng.random(hazards.shape) < -np.expm1(-hazards)
    event_bin = np.where(dies.any(axis=1), dies.argmax(axis=1), -1).astype(np.int8)
    lived = np.arange(NUM_BINS) < np.where(event_bin < 0, NUM_BINS, event_bin)[:, None]
    rows = TrainingRows(
        np.arange(8_000),
        features,
        lived.astype(np.float32),
        event_bin,
        np.full(8_000, -1, np.int8),
    )
    found = fit_calibration(network, rows)

    assert found.scale == pytest.approx(0.7, abs=0.05)
    assert found.shift == pytest.approx(0.5, abs=0.1)
    assert fit_calibration(network, rows.take(slice(0, 0))) == Calibration()


@pytest.mark.slow
def test_calibration_never_makes_the_likelihood_worse():
    network, rows = random_network(5), simulated_rows().take(slice(0, None, 5))
    found, batch = fit_calibration(network, rows), as_batch(rows)
    with torch.no_grad():
        logits, causes = network(batch[0])
        plain = row_losses(logits, causes, batch).mean()
        fitted = row_losses(found.scale * logits + found.shift, causes, batch).mean()

    assert fitted < plain


@pytest.mark.slow
def test_the_threshold_is_chosen_among_rows_whose_month_is_known():
    model = TrainedModel(parameters_of(random_network(6)), Calibration(), 0.5)
    rows = learnable_rows(7)
    label, known = soon_labels(rows)
    threshold = choose_threshold(model, [rows])
    flagged = model.probability(rows.features)[known] >= np.float32(threshold)

    others = [
        f1(label[known], model.probability(rows.features)[known] >= np.float32(t))
        for t in np.linspace(0.01, 0.99, 50)
    ]
    assert f1(label[known], flagged) >= max(others) - 1e-9


def f1(label, flagged):
    return 2 * (label & flagged).sum() / max(label.sum() + flagged.sum(), 1)


def test_the_reference_is_the_median_of_devices_that_live_half_a_year():
    features = np.zeros((4, NUM_FEATURES), np.float32)
    features[:, 0] = [10, 30, 1000, 2000]
    features[:, 5] = np.nan
    rows = rows_of([400, 400, 20, 100], [False, True, True, False], features=features)
    reference = explanation_reference(rows)

    assert reference[0] == 20
    assert reference[5] == (FEATURES[5].low + FEATURES[5].high) / 2


def test_devices_lose_whole_optional_groups_in_training():
    from models.training.recipe import _with_absent_groups

    rows = learnable_rows(8)
    full = TrainingRows(
        rows.device,
        np.ones_like(rows.features),
        rows.exposure,
        rows.event_bin,
        rows.cause,
    )
    thinned = _with_absent_groups(full, RecipeSettings(), np.random.default_rng(0))
    absent = np.isnan(thinned.features)
    group = np.array(group_index())

    for number, name in enumerate(GROUPS):
        own = absent[:, group == number]
        assert (own.all(axis=1) == own.any(axis=1)).all()
        if name not in OPTIONAL_GROUPS:
            assert not own.any()
    by_device = [
        absent[rows.device == d][0, group == GROUPS.index("usage")].any() for d in range(200)
    ]
    # 0.35 + 0.65 x 0.3 = 0.545 of the devices; 200 of them: 4 standard errors are 0.141.
    assert np.mean(by_device) == pytest.approx(0.545, abs=0.141)


@pytest.mark.slow
def test_masked_features_move_no_output():
    network = random_network(9)
    features = simulated_rows().features[::500].copy()
    before = numpy_outputs(network, Calibration(), features)
    for name in MASKED:
        features[:, FEATURE_NAMES.index(name)] = np.random.default_rng(1).uniform(0, 99)
    after = numpy_outputs(network, Calibration(), features)
    for name in MASKED:
        features[:, FEATURE_NAMES.index(name)] = np.nan
    missing = numpy_outputs(network, Calibration(), features)

    for name in before:
        assert before[name].tolist() == after[name].tolist() == missing[name].tolist()


def test_scaling_brings_every_range_to_plus_minus_one():
    network = HazardNetwork()
    edges = np.array([(f.low, f.high) for f in FEATURES], np.float32).T.copy()
    values = network.scaled(torch.from_numpy(edges))[:, :NUM_FEATURES].numpy()
    seen = scaling()["seen"].astype(bool)

    assert values[0, seen] == pytest.approx(-1, abs=1e-6)
    assert values[1, seen] == pytest.approx(1, abs=1e-6)
    assert (values[:, ~seen] == 0).all()


@pytest.mark.slow
def test_training_can_go_on_from_weights_that_are_there():
    rows = learnable_rows(10)
    started = train_centrally(rows, seed=1, num_steps=30, batch_size=256)
    before = row_losses_mean(started, rows)
    continued = train_centrally(
        rows, seed=2, num_steps=30, batch_size=256, learning_rate=1e-3, network=started
    )

    assert continued is started
    assert row_losses_mean(continued, rows) < before


def row_losses_mean(network, rows):
    from models.training.losses import batch_loss

    with torch.no_grad():
        return batch_loss(network, as_batch(rows)).item()
