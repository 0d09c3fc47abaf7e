"""The planner against an exhaustive search, the design's figures and its own words."""

import datetime as dt
import math

import pytest

from privacy import RecordPolicy, noise_multiplier_for
from privacy.banded_factor import prefix_sum_error
from privacy.count_budget import METRICS
from privacy.planned_metrics import (
    FIGURES,
    AssumedScores,
    expected_estimate,
    expected_histogram,
    least_devices,
)
from privacy.planner import PlanRequest, factor_error, plan_for
from privacy.simulated_quality import SimulatedRun, run_that_speaks_for, simulated_runs

RECORD = RecordPolicy(
    noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5, least_rows=180
)
SCORES = AssumedScores(auc=0.85, prevalence=0.01, edges=(0.001, 0.01, 0.03, 0.1, 0.3))
START = dt.date(2027, 1, 1)


def request(**fields):
    usual = {
        "devices": 10_000,
        "epsilon": 2.0,
        "delta": 1e-8,
        "years": 2.0,
        "weights": 2500,
        "clipping_norm": 0.3,
        "record": RECORD,
    }
    return PlanRequest(**(usual | fields))


@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (24, 1), (104, 4), (200, 20), (50, 50)])
def test_the_quick_error_of_a_factor_is_the_explicit_one(rounds, bands):
    assert factor_error(rounds, bands) == pytest.approx(prefix_sum_error(rounds, bands), rel=1e-12)


def test_no_schedule_of_any_cohort_participations_and_separation_does_better():
    """Every (n, b, p) that 400 training devices can keep in half a year of weekly rounds."""
    asked = request(devices=500, years=0.5, most_a_year=12.0, epsilon=8.0, weights=10)
    best = plan_for(asked).schedule
    found = math.inf
    for k in range(1, asked.most_participations + 1):
        sigma = noise_multiplier_for(epsilon=8.0, delta=1e-8, participations=k, share=0.85)
        cohort = k * asked.training_devices // asked.num_rounds
        for separation in range(1, asked.num_rounds + 1):
            if min(k, math.ceil(asked.num_rounds / separation)) < k:
                continue
            size = min(cohort, asked.training_devices // separation)
            bands = min(
                range(1, separation + 1), key=lambda p: prefix_sum_error(asked.num_rounds, p)
            )
            error = sigma * prefix_sum_error(asked.num_rounds, bands) / size
            found = min(found, error)

    assert best.error <= found * 1.001


def test_a_plan_of_two_years_at_two_is_near_the_default_policy():
    plan = plan_for(request(devices=13_542))
    chosen = plan.schedule

    assert (chosen.participations, chosen.separation, chosen.bands) == (21, 5, 5)
    assert chosen.cohort_size == 2166
    assert chosen.noise_multiplier == pytest.approx(13.186, abs=1e-3)
    assert plan.epsilon == pytest.approx(2.0, rel=1e-8)
    assert plan.keeps_rule
    assert plan.first_retirement(start=START) == dt.date(2028, 12, 1)
    assert plan.last_retirement(start=START) == dt.date(2028, 12, 22)


def test_dropout_weakens_updates_and_changes_no_promise():
    full, half = plan_for(request()), plan_for(request(dropout=0.5))

    assert half.schedule.error == pytest.approx(2 * full.schedule.error)
    assert half.policy(stream="s") == full.policy(stream="s")


def test_held_out_devices_spend_all_of_theirs_on_metrics_and_the_others_what_updates_leave():
    plan = plan_for(request())
    privacy = plan.policy(stream="s").privacy
    spent = {
        held_out: math.fsum(c.mu_squared for c in plan.channels if c.held_out is held_out)
        for held_out in (True, False)
    }

    assert spent[True] == pytest.approx(privacy.mu_squared_in_all, rel=1e-6)
    assert spent[False] == pytest.approx(privacy.mu_squared_for_counts, rel=1e-6)
    assert [c.max_answers for c in plan.channels] == [8, 8, 24]
    nobody = plan_for(request(held_out_share=0.0))
    assert METRICS not in {channel.name for channel in nobody.channels}


def test_the_rule_of_thumb_is_told_with_the_fleet_that_keeps_it():
    plan = plan_for(request(devices=1000))

    assert not plan.keeps_rule
    assert plan_for(request(devices=plan.least_devices_for_rule)).keeps_rule
    assert not plan_for(request(devices=plan.least_devices_for_rule - 1)).keeps_rule


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("devices", 0),
        ("weights", 0),
        ("years", 0.0),
        ("years", math.nan),
        ("epsilon", -1.0),
        ("delta", 1.1e-5),
        ("dropout", 1.0),
        ("rounds_a_week", 8.0),
        ("most_a_year", 0.0),
        ("held_out_share", 1.0),
        ("update_share", 1.0),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        request(**{field: value})


def test_the_least_number_of_held_out_devices_is_the_least_at_which_a_figure_is_told():
    channel = plan_for(request()).channels[-1]
    for figure in FIGURES:
        least = least_devices(figure, SCORES, channel=channel)
        enough = expected_estimate(figure, SCORES, devices=least, channel=channel)
        too_few = expected_estimate(figure, SCORES, devices=round(least * 0.99), channel=channel)

        assert enough.is_measurable
        assert not too_few.is_measurable


def test_expected_counts_are_those_of_the_assumed_scores():
    channel = plan_for(request()).channels[-1]
    histogram = expected_histogram(SCORES, devices=1000, channel=channel)

    assert histogram.positives.sum() == pytest.approx(1000 * 24 * 0.01)
    assert histogram.negatives.sum() == pytest.approx(1000 * 24 * 0.99)
    both = histogram.positives + histogram.negatives
    frequency = histogram.positives / both
    bounds = (0.0, *SCORES.edges, 1.0)
    for low, share, high in zip(bounds, frequency, bounds[1:], strict=False):
        assert low <= share <= high, "a calibrated score keeps each bin's word"


@pytest.mark.parametrize(("auc", "prevalence"), [(0.5, 0.01), (1.0, 0.01), (0.8, 0.0), (0.8, 1.0)])
def test_scores_that_no_model_has_are_refused(auc, prevalence):
    with pytest.raises(ValueError):
        AssumedScores(auc=auc, prevalence=prevalence, edges=(0.1,))


RUN = SimulatedRun(
    devices=8000,
    weights=2500,
    num_rounds=100,
    cohort_size=1000,
    participations=12,
    separation=8,
    bands=8,
    noise_multiplier=10.0,
    epsilon=2.0,
    delta=1e-8,
    record_noise_multiplier=1.0,
    signal_to_noise=30.0,
    start_auc=(0.6, 0.6, 0.6),
    noiseless_auc=(0.8, 0.8, 0.8),
    private_auc=(0.78, 0.79, 0.7),
    start_average_precision=(0.1, 0.1, 0.1),
    noiseless_average_precision=(0.3, 0.3, 0.3),
    private_average_precision=(0.2, 0.2, 0.2),
    prevalence=0.02,
    source="made up for a test",
)


def test_a_run_speaks_for_plans_with_as_little_noise_and_about_as_many_rounds():
    def speaks(*, weights=2500, num_rounds=104, signal_to_noise=30.0):
        return run_that_speaks_for(
            [RUN], weights=weights, num_rounds=num_rounds, signal_to_noise=signal_to_noise
        )

    assert speaks() == speaks(signal_to_noise=90.0) == RUN
    assert speaks(num_rounds=50) == speaks(num_rounds=200) == RUN
    for other in ({"weights": 2400}, {"num_rounds": 201}, {"num_rounds": 49}):
        assert speaks(**other) is None
    assert speaks(signal_to_noise=29.9) is None
    assert RUN.gain_kept == pytest.approx(0.9)


def test_runs_that_ship_are_whole_and_name_their_source():
    for run in simulated_runs():
        assert SimulatedRun.from_json(run.to_json()) == run
        assert run.source
        expected = run.num_rounds * run.cohort_size
        expected /= run.noise_multiplier * factor_error(run.num_rounds, run.bands)
        assert run.signal_to_noise == pytest.approx(expected / math.sqrt(run.weights), rel=1e-6)


def test_a_run_whose_seeds_do_not_go_together_is_refused():
    fields = RUN.to_json()
    with pytest.raises(ValueError, match="one value a seed"):
        SimulatedRun.from_json(fields | {"private_auc": [0.7]})
    with pytest.raises(ValueError, match="finite"):
        SimulatedRun.from_json(fields | {"private_auc": [0.7, 0.7, math.nan]})
