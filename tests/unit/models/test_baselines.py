"""Central peers and noisy copies of cells."""

import numpy as np
import pytest

from models.feature_spec import NUM_FEATURES
from models.metrics import average_precision
from models.telemetry import Outcomes
from models.training import baselines
from models.training.augmentation import (
    GaugeNoise,
    at_other_pace,
    various_gauges,
    with_gauge_noise,
    without_channels,
)
from models.training.baselines import PEERS, PeerScores, cross_fitted, score_with_peer
from tests.support.fleets import DAY, DESIGN_MAH, START_S, readings, times, together


def problem(seed, count=480):
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count, NUM_FEATURES)).astype(np.float32)
    label = features[:, 2] + 0.5 * rng.normal(0, 1, count) > 1.2
    features[rng.random(features.shape) < 0.05] = np.nan
    features[:, 7] = np.nan
    return features, label, np.arange(count) // 12


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_peers_learn_what_can_be_learnt_though_columns_are_empty(name):
    test_features, test_label, _ = problem(2)
    scores = score_with_peer(name, train=problem(1), test_features=test_features, seed=0)
    flagged = scores.flagged
    by_chance = test_label.mean()

    assert average_precision(test_label, scores.probability) > 3 * by_chance
    f1 = 2 * (flagged & test_label).sum() / (flagged.sum() + test_label.sum())
    assert f1 > 1.5 * 2 * by_chance / (1 + by_chance)


def test_cross_fitting_scores_every_window_by_a_peer_that_saw_nothing_of_its_group(monkeypatch):
    features, label, group = problem(3)
    known = np.random.default_rng(0).random(480) < 0.7
    features[:, 0] = np.arange(480)
    scored = []

    def score(name, *, train, test_features, seed):
        trained, tested = train[0][:, 0].astype(int), test_features[:, 0].astype(int)
        assert not set(group[trained].tolist()) & set(group[tested].tolist())
        assert known[trained].all()
        assert (train[1] == label[trained]).all()
        scored.extend(tested.tolist())
        return PeerScores(tested.astype(float), tested % 2 == 0)

    monkeypatch.setattr(baselines, "score_with_peer", score)
    scores = cross_fitted(
        "gradient_boosting", features=features, label=label, known=known, group=group
    )

    assert sorted(scored) == list(range(480))
    assert scores.probability.tolist() == list(range(480))
    assert scores.flagged.tolist() == [True, False] * 240


@pytest.mark.parametrize("name", PEERS)
def test_without_a_failure_to_learn_from_peers_flag_nothing(name):
    features, _, group = problem(5, 100)
    scores = score_with_peer(
        name, train=(features, np.zeros(100, bool), group), test_features=features[:7], seed=0
    )

    assert (scores.probability.tolist(), scores.flagged.tolist()) == ([0.0] * 7, [False] * 7)


def flat(count=2, days=300):
    return together(
        *(
            readings(times(days), device_id=f"d{i}", capacity=2700.0, charge=60.0)
            for i in range(count)
        )
    )


def test_a_noisy_gauge_has_its_bias_noise_and_steps():
    life = flat(400, 20)
    noisy = with_gauge_noise(
        life, np.full(400, DESIGN_MAH), GaugeNoise(step=0.0), np.random.default_rng(0)
    )
    ratio = noisy.values[:, 0].reshape(400, 80) / 2700

    # Standard errors: 2 % / sqrt(800) = 0.07 %, 1 % / sqrt(64,000) = 0.004 %.
    assert ratio.mean(axis=1).std() == pytest.approx(0.02, abs=0.003)
    assert ratio.std(axis=1).mean() == pytest.approx(0.01, abs=0.0005)
    assert np.array_equal(noisy.values[:, 1:], life.values[:, 1:], equal_nan=True)
    stepped = with_gauge_noise(
        life, np.full(400, DESIGN_MAH), GaugeNoise(), np.random.default_rng(0)
    )
    assert stepped.values[:, 0] % 30 == pytest.approx(0, abs=1e-2)
    none = GaugeNoise(bias_std=0.0, read_std=0.0, step=0.0)
    clean = with_gauge_noise(life, np.full(400, DESIGN_MAH), none, np.random.default_rng(0))
    assert np.array_equal(clean.values, life.values, equal_nan=True)


def test_another_pace_stretches_readings_and_outcomes_alike():
    life = flat(2, 100)
    outcomes = Outcomes(
        life.device_ids,
        np.full(2, START_S + 100 * DAY),
        np.array([START_S + 80.0 * DAY, np.nan]),
        np.array(["capacity_fade", None], dtype=object),
    )
    slower, then = at_other_pace(life, outcomes, np.array([0.5, 2.0]))
    first = START_S + 6 * 3600

    assert (slower.at_s[399] - first) / (life.at_s[399] - first) == pytest.approx(2)
    assert (slower.at_s[-1] - first) / (life.at_s[-1] - first) == pytest.approx(0.5)
    assert then.failed_at_s[0] - first == pytest.approx(2 * (80 * DAY - 6 * 3600))
    assert np.isnan(then.failed_at_s[1])


def test_channels_go_missing_on_whole_devices_but_capacity_never_does():
    thinned = without_channels(flat(200, 5), 0.3, np.random.default_rng(0))
    missing = np.isnan(thinned.values).reshape(200, 20, 8)

    assert not missing[:, :, 0].any()
    assert (missing[:, :, 2].all(axis=1) == missing[:, :, 2].any(axis=1)).all()
    # 4 standard errors of 200 devices at 0.3 are 0.13.
    assert missing[:, 0, 2].mean() == pytest.approx(0.3, abs=0.13)


def test_various_gauges_range_from_fine_to_coarse_and_each_keeps_its_own():
    gauges = various_gauges(400, np.random.default_rng(0))
    life = flat(400, 30)
    noisy = with_gauge_noise(life, np.full(400, DESIGN_MAH), gauges, np.random.default_rng(1))
    own_scatter = (noisy.values[:, 0] / life.values[:, 0]).reshape(400, -1).std(axis=1)

    assert 0.001 <= gauges.read_std.min() < 0.002
    assert 0.01 < gauges.read_std.max() <= 0.02
    fine = gauges.step == 0
    assert own_scatter[fine] == pytest.approx(gauges.read_std[fine], rel=0.35)
