"""Calibration of confidence under censoring, against counts, a made-up law and a fleet."""

import numpy as np
import pytest

from models.band_reliability import (
    confidence_reliability,
    fit_confidence_scales,
    survival_at,
)
from models.bundle import load_bundle
from models.featurize import featurize
from models.inference import Predictor
from models.prediction import ACTIONS, action_band
from simulations import FleetRecipe, simulate_fleet

DAY = 86_400


def test_survival_is_the_count_where_nothing_is_censored():
    durations = np.array([1.0, 5.0, 7.0, 7.0, 40.0, 100.0])
    events = np.ones(6, bool)
    assert survival_at(durations, events, 7.0) == pytest.approx(4 / 6)
    assert survival_at(durations, events, 7.5) == pytest.approx(2 / 6)
    assert survival_at(durations, events, 0.0) == 1.0
    assert survival_at(durations, events, np.inf) == 0.0


def test_survival_is_that_of_kaplan_and_meier():
    """Durations 6, 6, 6, 6+, 7, 9+, 10, 10+, 11+, 13, 16 of Freireich's leukaemia trial (1963).

    S(7) = .857 and S(10) = .753 are printed in every textbook for its 21 patients.
    """
    durations = np.array(
        [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35], float
    )
    events = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], bool)
    assert survival_at(durations, events, 6.5) == pytest.approx(0.857, abs=5e-4)
    assert survival_at(durations, events, 10.5) == pytest.approx(0.753, abs=5e-4)
    assert survival_at(durations, events, 23.5) == pytest.approx(0.448, abs=5e-4)
    assert survival_at(durations, events, 36.0) is None


def made_up(count, *, seed, censoring_days):
    """Exponential lives whose true rate is known, with the confidence that follows from it."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(5), np.log(500), count))
    life = rng.exponential(mean)
    action = action_band(mean * np.log(2))
    edges = np.array([0.0, 7.0, 30.0, 90.0, np.inf])
    confidence = np.exp(-edges[action] / mean) - np.exp(-edges[action + 1] / mean)
    end = rng.uniform(0, censoring_days, count)
    return confidence, action, np.minimum(life, end), life <= end


@pytest.mark.parametrize("censoring_days", [1e9, 300.0])
def test_true_confidence_is_found_calibrated_with_and_without_censoring(censoring_days):
    confidence, action, duration, event = made_up(40_000, seed=1, censoring_days=censoring_days)
    found = confidence_reliability(
        confidence=confidence, action=action, duration_days=duration, event_observed=event
    )
    # 20 bins of 2,000: a standard error of .011 each; the mean of 20 passes .02 once in 10⁶.
    assert found.expected_calibration_error() < 0.02
    assert found.num_rows_unknown == 0
    assert len(found.bins) == 20


def test_overconfidence_is_found_by_its_size():
    confidence, action, duration, event = made_up(40_000, seed=2, censoring_days=300.0)
    found = confidence_reliability(
        confidence=np.minimum(confidence + 0.2, 1.0),
        action=action,
        duration_days=duration,
        event_observed=event,
    )
    assert found.expected_calibration_error() == pytest.approx(0.2, abs=0.04)


def test_scales_undo_overconfidence_on_rows_they_were_not_fitted_on():
    names = ("confidence", "action", "duration_days", "event_observed")
    fitted, judged = (
        dict(zip(names, made_up(20_000, seed=seed, censoring_days=300.0), strict=True))
        for seed in (3, 4)
    )
    for rows in (fitted, judged):
        rows["confidence"] = np.minimum(1.3 * rows["confidence"], 1.0)
    scales = np.array(fit_confidence_scales(**fitted))
    before = confidence_reliability(**judged).expected_calibration_error()
    judged["confidence"] = judged["confidence"] * scales[judged["action"]]
    after = confidence_reliability(**judged).expected_calibration_error()

    assert scales[0] == pytest.approx(1 / 1.3, abs=0.1)
    assert before > 0.1
    assert after < 0.05


def test_scales_never_make_surer_and_leave_alone_what_few_rows_tell_of():
    confidence, action, duration, event = made_up(20_000, seed=5, censoring_days=300.0)
    keep = (action != 1) | (np.cumsum(action == 1) < 200)
    scales = fit_confidence_scales(
        confidence=0.5 * confidence[keep],
        action=action[keep],
        duration_days=duration[keep],
        event_observed=event[keep],
    )
    assert scales == (1.0, 1.0, 1.0, 1.0)


def test_what_the_study_is_too_short_for_is_counted_as_unknown():
    found = confidence_reliability(
        confidence=np.full(10, 0.6),
        action=np.full(10, 2),
        duration_days=np.full(10, 40.0),
        event_observed=np.zeros(10, bool),
    )
    assert found.expected_calibration_error() is None
    assert found.num_rows_unknown == 10
    assert found.bins[0].frequency is None


@pytest.mark.slow
def test_confidence_of_the_default_bundle_is_calibrated_on_a_fleet_it_has_not_seen():
    fleet = simulate_fleet(num_devices=150, num_days=540, seed=78, recipe=FleetRecipe())
    table = featurize(fleet.telemetry, fleet.profiles, every_days=7)
    end_s = np.fmin(fleet.outcomes.failed_at_s, fleet.outcomes.observed_until_s)[table.device]
    rows = np.flatnonzero(table.is_ok() & (table.pack == 0) & (table.as_of_s < end_s))
    said = Predictor(load_bundle()).predict(table.features[rows])
    found = confidence_reliability(
        confidence=said.confidence,
        action=said.action,
        duration_days=(end_s[rows] - table.as_of_s[rows]) / DAY,
        event_observed=np.isfinite(fleet.outcomes.failed_at_s)[table.device[rows]],
    )
    soon = found.expected_calibration_error(ACTIONS[:3])
    print(f"confidence: ECE {found.expected_calibration_error():.3f}, under 90 days {soon:.3f}")
    assert found.num_rows_unknown == 0
    assert found.expected_calibration_error() < 0.05
    # Few devices are behind these rows: one that fails early moves a whole bin.
    assert soon < 0.25
    told = {entry.kind: entry.frequency for entry in found.levels}
    assert told["high"] > 0.8
    assert told["high"] > told["medium"] > told["low"]
