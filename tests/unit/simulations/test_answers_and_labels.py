"""Labels by rule, scored against the truth that only the simulation knows."""

from dataclasses import replace

import numpy as np
import pytest

from models.labels import label_packs
from models.telemetry import CAUSES, SECONDS_PER_DAY
from simulations import FleetRecipe, simulate_fleet
from simulations.answers import owner_answers

pytestmark = pytest.mark.slow
RECIPE = replace(
    FleetRecipe(), fade_scale=1.0, resistance_prone_share=0.3, charger_faults_a_year=0.15
)
FADE, RESISTANCE = CAUSES.index("capacity_fade"), CAUSES.index("resistance_growth")


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=250, num_days=250, seed=8, recipe=RECIPE)


@pytest.fixture(scope="module")
def all_answers(fleet):
    everybody = replace(RECIPE, answer_share=1.0, cause_known_share=1.0)
    return owner_answers(fleet.truth, seed=8, recipe=everybody)


@pytest.fixture(scope="module")
def labelled_by_rule(fleet):
    return first_pack_labels(fleet, None)


@pytest.fixture(scope="module")
def labelled_with_answers(fleet, all_answers):
    return first_pack_labels(fleet, all_answers)


def first_pack_labels(fleet, answers):
    labels = label_packs(fleet.telemetry, fleet.profiles, answers=answers)
    first = labels.pack == 0
    failed_at_s = np.full(len(fleet.profiles), np.nan)
    failed_at_s[labels.device[first]] = labels.failed_at_s[first]
    cause = np.full(len(fleet.profiles), -1)
    cause[labels.device[first]] = labels.cause[first]
    return failed_at_s, cause


def test_rules_find_most_wear_and_seldom_accuse_the_healthy(fleet, labelled_by_rule):
    truth = fleet.truth.first_packs
    labelled, cause = labelled_by_rule
    faded, healthy = truth.cause == FADE, truth.cause < 0
    delay_days = (labelled - truth.ended_at_s) / SECONDS_PER_DAY

    assert faded.sum() > 25
    assert np.isfinite(labelled[faded]).mean() > 0.5
    assert np.nanmedian(np.abs(delay_days[faded])) < 15
    assert np.isfinite(labelled[healthy]).mean() < 0.06
    assert np.isin(cause[faded & np.isfinite(labelled)], [FADE, RESISTANCE, -1]).all()


def test_silent_deaths_are_never_labelled(fleet, labelled_with_answers):
    truth = fleet.truth.first_packs
    labelled, _ = labelled_with_answers
    sudden = (truth.cause == CAUSES.index("sudden_death")) & fleet.truth.is_silent

    assert sudden.sum() >= 2
    assert np.isnan(labelled[sudden]).all()


def test_owners_answer_for_the_failures_that_they_survive_to_see(fleet, all_answers):
    answers = owner_answers(fleet.truth, seed=8, recipe=RECIPE)
    packs = fleet.truth.packs
    failures = packs.rows(packs.cause >= 0)
    first_cause = fleet.truth.first_packs.cause[all_answers.device]
    once = np.bincount(all_answers.device, minlength=250)[all_answers.device] == 1

    assert len(all_answers.device) == len(failures) - fleet.truth.is_silent.sum()
    assert len(answers.device) / len(all_answers.device) == pytest.approx(0.5, abs=0.2)
    assert (answers.cause == -1).mean() == pytest.approx(0.3, abs=0.2)
    assert (all_answers.cause == first_cause)[once].mean() > 0.95


def test_answers_name_causes_that_no_rule_can(labelled_by_rule, labelled_with_answers):
    _, without = labelled_by_rule
    _, with_answers = labelled_with_answers

    assert set(without.tolist()) <= {-1, FADE, RESISTANCE}
    assert set(with_answers.tolist()) >= {CAUSES.index("swelling"), CAUSES.index("charger_fault")}
