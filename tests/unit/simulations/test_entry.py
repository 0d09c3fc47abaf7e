"""How packs enter a study: aged, before any failure, and past their knee where they may be."""

from dataclasses import replace

import numpy as np
import pytest

from simulations import FleetRecipe
from simulations.fleet import life_block
from simulations.scenarios import load_scenario

RECIPE = load_scenario("reference").recipe
COUNT = 800


def block(recipe, *, days=2):
    return life_block(np.arange(COUNT), num_days=days, seed=5, recipe=recipe)


@pytest.fixture(scope="module")
def entered():
    return block(RECIPE)


def test_packs_enter_before_their_knee_unless_they_may_have_passed_it(entered):
    before = block(replace(RECIPE, past_knee_share=0.0))

    assert before.wear.knee_loss.max() == 0.0
    assert (entered.wear.knee_loss > 0).mean() > 0.05
    assert (entered.age_at_start_days >= before.age_at_start_days).all()
    assert entered.age_at_start_days.max() <= RECIPE.max_entry_age_days


def test_no_pack_enters_failed(entered):
    health = entered.capacity_mah / entered.end_of_life_mah

    assert health.min() > 1.0
    assert (entered.resistance < entered.failure_traits.resistance_limit).all()
    assert entered.swelling.max() < 0.95


def test_share_of_the_packs_that_may_have_passed_it(entered):
    half = block(replace(RECIPE, past_knee_share=0.5))
    past = (half.wear.knee_loss > 0).sum()

    assert 0.35 < past / (entered.wear.knee_loss > 0).sum() < 0.65


def test_entry_past_the_knee_is_where_living_there_leads():
    """Packs of a mean user in a mean place, aged at once and day by day."""
    steady = replace(
        RECIPE,
        efc_sigma=0.0,
        efc_shape=1e6,
        soc_ceiling_share=0.0,
        user_changes_a_year=0.0,
        climate_mix=(0.0, 0.0, 0.0, 0.0, 1.0),
        aged_share=1.0,
        max_entry_age_days=700.0,
        gradual_share=0.0,
        resistance_limit=(9.0, 9.0),
        swelling_a_year=0.0,
        retired_a_year=0.0,
        owner_replaced_a_year=0.0,
        owner_replaced_worn_a_year=0.0,
        sudden_deaths_a_year=0.0,
        charger_faults_a_year=0.0,
    )
    aged = life_block(np.arange(150), num_days=1, seed=5, recipe=steady)
    lived = life_block(np.arange(150), num_days=700, seed=5, recipe=replace(steady, aged_share=0.0))
    days = lived.live(700)
    age = np.floor(aged.age_at_start_days).astype(int)
    reached = days.capacity_mah[np.maximum(age - 1, 0), np.arange(150)] / lived.new_mah
    known = (age > 30) & (days.pack_number[np.maximum(age - 1, 0), np.arange(150)] == 0)

    assert (aged.wear.knee_loss > 0.01).sum() > 15
    # A mean year is not the year that was: wear before the knee is off by a tenth of a percent or
    # two, and what comes past it grows e-fold in half a year.
    off = np.abs(aged.health - reached)[known]
    assert np.median(off) < 0.003
    assert np.percentile(off, 95) < 0.02
    assert np.corrcoef(aged.health[known], reached[known])[0, 1] > 0.97


def test_device_enters_alike_alone_and_in_a_block(entered):
    alone = life_block(np.array([417]), num_days=2, seed=5, recipe=RECIPE)

    assert alone.wear.knee_loss[0] == entered.wear.knee_loss[417]
    assert alone.health[0] == entered.health[417]


def test_default_recipe_enters_before_the_knee():
    assert FleetRecipe().past_knee_share == 0.0
