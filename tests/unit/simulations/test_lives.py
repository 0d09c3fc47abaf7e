"""Lives, deaths and endings of whole fleets."""

from dataclasses import replace

import numpy as np
import pytest

from models.telemetry import CAUSES, SECONDS_PER_DAY
from simulations import FleetRecipe
from simulations.censoring import FAILED, REPLACED_AFTER_NOTICE, REPLACED_BY_OWNER, RETIRED
from simulations.fleet import lives_of
from simulations.prevalence import days_before_failure, summarise

pytestmark = pytest.mark.slow
RECIPE = FleetRecipe()
QUIET = replace(
    RECIPE,
    charger_faults_a_year=0.0,
    sudden_deaths_a_year=0.0,
    swelling_a_year=0.0,
    resistance_prone_share=0.0,
    retired_a_year=0.0,
    owner_replaced_a_year=0.0,
    owner_replaced_worn_a_year=0.0,
)


def live(count, days, *, seed=1, recipe=RECIPE, notices_s=None):
    return lives_of(
        np.arange(count), num_days=days, seed=seed, recipe=recipe, notice_replacements_s=notices_s
    )


@pytest.fixture(scope="module")
def fleet():
    return live(2500, 365, seed=11)


@pytest.fixture(scope="module")
def worn():
    """A fleet that wears fast, so that a few devices show every ending."""
    return live(400, 500, seed=2, recipe=replace(RECIPE, fade_scale=1.3))


def test_default_fleet_has_the_stated_prevalence_and_every_cause(fleet):
    summary = summarise(fleet.truth)

    assert 0.01 < summary.prevalence_30d < 0.03
    assert set(summary.cause_shares) == set(CAUSES)
    assert min(summary.cause_shares.values()) > 0.05
    assert sum(summary.endings.values()) == 2500


def test_half_the_fleet_enters_aged_and_none_enters_failed(fleet):
    truth = fleet.truth
    health = truth.capacity_mah[:, 0] / fleet.design_mah

    assert (fleet.age_at_start_days > 0).mean() == pytest.approx(0.5, abs=0.04)
    assert fleet.age_at_start_days.max() <= RECIPE.max_entry_age_days
    assert (truth.first_packs.ended_at_s > truth.day_start_s[0]).all()
    # Wear at entry is a mean of the user's year, so a few packs may cross a limit early on.
    early = truth.first_packs.ended_at_s < truth.day_start_s[3]
    assert (early & np.isin(truth.first_packs.cause, [0, 1, 2])).mean() < 0.005
    assert np.median(health[fleet.age_at_start_days == 0]) > 0.98


def test_true_capacity_falls_below_the_end_of_life_on_the_day_of_a_capacity_failure(fleet):
    truth, first = fleet.truth, fleet.truth.first_packs
    faded = np.flatnonzero(first.cause == 0)
    day = ((first.ended_at_s[faded] - truth.day_start_s[0]) // SECONDS_PER_DAY).astype(int)
    later = day > 0
    faded, day = faded[later], day[later]
    limit = fleet.end_of_life_mah[faded]
    seen = ~truth.is_silent[faded]

    assert (truth.capacity_mah[faded, day - 1] >= limit * 0.99999).all()
    assert (truth.capacity_mah[faded, day] < limit)[seen].all()


def test_capacity_never_grows_but_with_a_new_pack(worn):
    truth = worn.truth
    grown = np.diff(truth.capacity_mah, axis=1) > 0
    renewed = np.diff(truth.pack_number, axis=1) > 0

    assert renewed.sum() > 20
    assert (grown <= renewed).all()
    assert (np.diff(truth.resistance_ratio, axis=1)[renewed] < 0).mean() > 0.99


def test_silent_devices_are_gone_for_ever_and_mostly_die_suddenly(fleet):
    truth, first = fleet.truth, fleet.truth.first_packs
    silent = np.flatnonzero(truth.is_silent & (first.ending == FAILED))

    assert len(silent) > 20
    assert np.isnan(truth.capacity_mah[silent, -1]).all()
    assert (truth.pack_number[silent, -1] == -1).all()
    sudden = first.cause == CAUSES.index("sudden_death")
    faded = first.cause == CAUSES.index("capacity_fade")
    assert truth.is_silent[sudden].mean() > 0.6
    assert truth.is_silent[faded].mean() < 0.2
    assert truth.silent_failure_share == pytest.approx(truth.is_silent[first.cause >= 0].mean())


def test_failed_device_comes_back_with_a_new_pack(worn):
    packs = worn.truth.packs
    second = packs.rows(packs.pack_number == 1)
    first = worn.truth.first_packs.rows(second.device)

    assert len(second) > 20
    assert (second.installed_at_s >= first.ended_at_s).all()
    after_failure = first.ending == FAILED
    assert after_failure.any()
    assert (first.ending[~after_failure] == REPLACED_BY_OWNER).all()
    assert worn.truth.packs.pack_number.max() >= 1


def test_devices_are_retired_at_the_stated_rate():
    lives = live(2000, 183, recipe=replace(QUIET, retired_a_year=0.12))
    retired = np.isfinite(lives.truth.retired_at_s)

    half_a_year = 1 - 0.88**0.5
    # Five standard errors of a share of 0.062 among 2,000.
    assert retired.mean() == pytest.approx(half_a_year, abs=5 * np.sqrt(0.062 * 0.938 / 2000))
    first = lives.truth.first_packs
    ended = first.ending == RETIRED
    assert (first.ended_at_s[ended] == lives.truth.retired_at_s[ended]).all()
    assert (first.ending[retired & ~ended] == FAILED).all()


def test_owners_replace_worn_packs_more_often(worn):
    first = worn.truth.first_packs
    replaced = np.flatnonzero(first.ending == REPLACED_BY_OWNER)
    day = ((first.ended_at_s[replaced] - worn.truth.day_start_s[0]) // SECONDS_PER_DAY).astype(int)
    left = (
        worn.truth.capacity_mah[replaced, np.maximum(day - 1, 0)] - worn.end_of_life_mah[replaced]
    )
    spare = first.capacity_when_new_mah[replaced] - worn.end_of_life_mah[replaced]

    assert len(replaced) > 10
    assert (left / spare < 0.3).mean() > 0.5


def test_replacement_after_a_notice_is_an_ending_of_its_own_and_changes_nothing_before():
    start_s = RECIPE.start_at.timestamp()
    notices = np.full(100, np.nan)
    notices[[3, 8]] = start_s + 40.5 * SECONDS_PER_DAY

    without = live(100, 90, recipe=QUIET)
    with_notices = live(100, 90, recipe=QUIET, notices_s=notices)
    first = with_notices.truth.first_packs

    assert (first.ending == REPLACED_AFTER_NOTICE).nonzero()[0].tolist() == [3, 8]
    assert first.ended_at_s[3] == start_s + 41 * SECONDS_PER_DAY
    assert np.isnan(with_notices.truth.outcomes(("x",) * 100).failed_at_s[3])
    before, after = slice(None, 41), slice(41, None)
    capacities = without.truth.capacity_mah, with_notices.truth.capacity_mah
    assert np.array_equal(capacities[0][:, before], capacities[1][:, before])
    untouched = np.setdiff1d(np.arange(100), [3, 8])
    assert np.array_equal(capacities[0][untouched, after], capacities[1][untouched, after])


def test_hotter_climate_and_bad_lots_wear_faster():
    def health(**changed):
        recipe = replace(QUIET, aged_share=0.0, **changed)
        lives = live(300, 150, recipe=recipe)
        return np.nanmean(lives.truth.capacity_mah[:, 149] / lives.design_mah)

    usual = health()

    assert health(warming_c=12.0) < usual - 0.005
    assert health(bad_lot_share=0.5) < usual - 0.02


def test_first_days_do_not_depend_on_the_length_of_the_study():
    short, long = live(50, 60), live(50, 120)

    assert np.array_equal(short.truth.capacity_mah, long.truth.capacity_mah[:, :60], equal_nan=True)


def test_prevalence_counts_days_whose_horizon_is_known():
    day = SECONDS_PER_DAY
    outcomes = live(3, 90, recipe=QUIET).truth.outcomes(("a", "b", "c"))
    outcomes = replace(
        outcomes,
        observed_until_s=np.array([90 * day, 50 * day, 40 * day]),
        failed_at_s=np.array([np.nan, 50 * day, np.nan]),
    )

    positive, at_risk = days_before_failure(
        outcomes, day_start_s=day * np.arange(90), horizon_days=30
    )

    # a: midnights 0-60. b: 0-49, of which 20-49 stand before the failure. c: 0-10.
    assert positive == 30
    assert at_risk == 61 + 50 + 11


def test_summary_of_a_fleet_without_failures_says_so():
    summary = summarise(live(5, 20, recipe=QUIET).truth)

    assert summary.failures == 0
    assert summary.prevalence_30d is None
    assert summary.cause_shares == {}
    assert summary.silent_failure_share is None
