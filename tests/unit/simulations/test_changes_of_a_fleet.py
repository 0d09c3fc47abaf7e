"""Fleets that change while they are watched: users who change, and a new device model."""

from dataclasses import replace

import numpy as np
import pytest

from models.telemetry import SECONDS_PER_DAY
from simulations import FleetRecipe, simulate_fleet
from simulations.fleet import lives_of
from simulations.prevalence import summarise

RECIPE = FleetRecipe()
NEWCOMERS = FleetRecipe(
    new_model="scanner", new_model_share=0.4, new_model_from_day=60.0, new_model_over_days=40.0
)
DAYS = 200


def lives(recipe, *, count=300, days=DAYS):
    return lives_of(np.arange(count), num_days=days, seed=9, recipe=recipe)


def test_users_do_not_change_unless_told():
    assert lives(RECIPE, count=5, days=10).days.habits is None


def test_users_change_at_the_stated_rate_and_their_use_with_them():
    changing = lives(replace(RECIPE, user_changes_a_year=2.0, habit_change_share=0.0))
    habits, users = changing.days.habits, changing.users
    ever = habits.changed_on[-1] >= 0

    # Five standard errors of 1 - exp(-2 x 200 / 365.25) = 0.665 among 300.
    assert ever.mean() == pytest.approx(0.665, abs=0.14)
    before = habits.changed_on < 0
    assert np.array_equal(
        habits.full_cycles_a_day[before],
        np.broadcast_to(users.full_cycles_a_day, (DAYS, 300))[before],
    )
    factor = np.log(habits.full_cycles_a_day[-1] / users.full_cycles_a_day)[ever]
    assert factor.std() == pytest.approx(0.5, abs=0.1)
    long_ago = ever & (habits.changed_on[-1] < DAYS - 40)
    used = changing.days.full_cycles[-40:, long_ago].mean(axis=0)
    correlation = np.corrcoef(np.log(used), np.log(habits.full_cycles_a_day[-1, long_ago]))[0, 1]
    assert correlation > 0.9


def test_some_changes_draw_anew_where_charging_stops():
    changing = lives(replace(RECIPE, user_changes_a_year=3.0, habit_change_share=1.0))
    ceiling, users = changing.days.habits.soc_ceiling, changing.users
    moved = (ceiling[-1] != users.soc_ceiling).mean()
    kept = lives(replace(RECIPE, user_changes_a_year=3.0, habit_change_share=0.0))

    assert moved > 0.25
    assert (ceiling[-1] < 1).mean() == pytest.approx(0.30, abs=0.1)
    assert np.array_equal(
        kept.days.habits.soc_ceiling, np.broadcast_to(kept.users.soc_ceiling, (DAYS, 300))
    )
    assert (changing.days.depth <= 0.9 * ceiling + 1e-6).all()


def test_users_who_change_leave_the_days_before_as_they_were():
    usual = lives(RECIPE)
    changing = lives(replace(RECIPE, user_changes_a_year=2.0))
    before = changing.days.habits.changed_on < 0

    assert np.array_equal(usual.days.full_cycles[before], changing.days.full_cycles[before])


def test_new_model_enters_new_in_its_window():
    fleet = simulate_fleet(num_devices=200, num_days=DAYS, seed=4, recipe=NEWCOMERS)
    is_new = fleet.profiles.device_model == "scanner"
    start_s = NEWCOMERS.start_at.timestamp()
    first_s = np.array(
        [fleet.truth.packs.installed_at_s[fleet.truth.packs.device == i][0] for i in range(200)]
    )
    entered_day = (first_s - start_s) / SECONDS_PER_DAY

    assert is_new.mean() == pytest.approx(0.4, abs=0.12)
    assert (entered_day[~is_new] == 0).all()
    assert entered_day[is_new].min() >= 60
    assert entered_day[is_new].max() <= 100
    age_days = (first_s - fleet.profiles.manufactured_at_s) / SECONDS_PER_DAY
    assert age_days[is_new].max() < 91
    first_known = np.argmax(~np.isnan(fleet.truth.capacity_mah), axis=1)
    assert np.array_equal(first_known, entered_day)
    health = fleet.truth.capacity_mah[np.arange(200), first_known] / 3000.0
    assert health[is_new].min() > 0.95


def test_new_device_says_nothing_before_it_is_there_and_counts_from_its_beginning():
    tidy = replace(NEWCOMERS, clock_fault_interval_days=1e6, reboot_interval_days=1e6)
    fleet = simulate_fleet(num_devices=120, num_days=DAYS, seed=4, recipe=tidy)
    is_new = np.flatnonzero(fleet.profiles.device_model == "scanner")
    first_packs = fleet.truth.first_packs

    for device in is_new[:20].tolist():
        readings = fleet.telemetry.devices(device, device + 1)
        assert readings.at_s.min() >= first_packs.installed_at_s[device]
        cycles, shutdowns = readings.values[:8, 1], readings.values[:8, 5]
        assert np.nanmin(cycles) <= 3
        assert np.nanmin(shutdowns) <= 1


def test_the_rest_of_the_fleet_is_as_without_the_new_model():
    with_new = simulate_fleet(num_devices=60, num_days=90, seed=4, recipe=NEWCOMERS)
    without = simulate_fleet(num_devices=60, num_days=90, seed=4)
    old = with_new.profiles.device_model != "scanner"

    assert np.array_equal(
        with_new.truth.capacity_mah[old], without.truth.capacity_mah[old], equal_nan=True
    )


def test_days_before_a_device_came_are_not_at_risk():
    newcomers = lives(replace(NEWCOMERS, new_model_share=1.0), count=100).truth
    everyone = lives(replace(RECIPE, device_model_mix=(0,) * 7 + (1,)), count=100).truth

    at_risk = summarise(newcomers).device_days_at_risk
    assert at_risk < 0.75 * summarise(everyone).device_days_at_risk


def test_device_that_has_not_come_by_the_end_is_listed_and_silent():
    late = replace(NEWCOMERS, new_model_share=1.0, new_model_from_day=500.0)
    fleet = simulate_fleet(num_devices=10, num_days=50, seed=1, recipe=late)

    assert len(fleet.telemetry) == 0
    assert len(fleet.outcomes.device_ids) == len(fleet.outcomes.failed_at_s) == 10
    assert summarise(fleet.truth).device_days_at_risk == 0


def test_new_model_must_be_one_that_is_known():
    with pytest.raises(ValueError, match="new_model must be one of tracker, gateway"):
        replace(RECIPE, new_model="toaster", new_model_share=0.1)
