"""What devices measure, and what they keep of it."""

from dataclasses import replace

import numpy as np
import pytest

from models.telemetry import COLUMN, MEASUREMENTS, SECONDS_PER_DAY
from simulations import FleetRecipe
from simulations.fleet import lives_of, simulate_devices
from simulations.manufacturing import DEVICE_MODELS
from simulations.recording import record
from simulations.sensing import sense

RECIPE = FleetRecipe()
START_S = int(RECIPE.start_at.timestamp())
TIDY = replace(
    RECIPE,
    lost_reading_share=0.0,
    missing_value_share=0.0,
    outage_interval_days=1e6,
    clock_fault_interval_days=1e6,
    duplicate_share=0.0,
    reboot_interval_days=1e6,
)


@pytest.fixture(scope="module")
def lives():
    return lives_of(np.arange(250), num_days=200, seed=3, recipe=RECIPE)


@pytest.fixture(scope="module")
def measured(lives):
    return sense(lives, recipe=RECIPE)


def of(measured, name):
    return measured[COLUMN[name]]


def readings_of(recipe, *, days=120, count=40, seed=3):
    fleet = simulate_devices(np.arange(count), num_days=days, seed=seed, recipe=recipe)
    return fleet.telemetry


def per_day(values):
    return np.repeat(values, 4, axis=0)


def test_values_lie_in_their_valid_ranges(measured):
    for measurement, values in zip(MEASUREMENTS, measured, strict=True):
        known = values[~np.isnan(values)]
        assert known.min() >= measurement.low
        assert known.max() <= measurement.high


def test_gauge_is_biased_and_noisy_and_shows_integer_percent(lives, measured):
    shown = of(measured, "full_charge_capacity_mah") / lives.design_mah
    truth = per_day(lives.days.capacity_mah) / lives.design_mah
    error = shown / truth - 1

    np.testing.assert_allclose(100 * shown, np.round(100 * shown), atol=1e-3)
    assert error.mean(axis=0).std() == pytest.approx(0.02, abs=0.006)
    within = (error - error.mean(axis=0)).std()
    assert 0.010 < within < 0.022


def test_gauge_without_noise_bias_and_steps_shows_the_truth(lives):
    exact = replace(RECIPE, gauge_noise=0.0, gauge_bias_scale=0.0, gauge_step=0.0)

    shown = of(sense(lives, recipe=exact), "full_charge_capacity_mah")

    warm = lives.days.temperature_c.reshape(shown.shape) > 15
    truth = per_day(lives.days.capacity_mah)
    np.testing.assert_allclose(shown[warm], truth[warm], rtol=1e-5)
    assert (shown[~warm] < truth[~warm]).all()


def test_bias_jumps_when_the_gauge_learns_anew(lives):
    def bias(recipe):
        quiet = replace(recipe, gauge_noise=0.0, gauge_step=0.0)
        shown = of(sense(lives, recipe=quiet), "full_charge_capacity_mah")
        warm = lives.days.temperature_c.reshape(shown.shape) > 15
        return np.where(warm, shown / per_day(lives.days.capacity_mah), np.nan)

    jumping = bias(replace(RECIPE, relearn_interval_days=20.0))
    steady = bias(replace(RECIPE, relearn_interval_days=1e6))
    same_pack = (lives.days.pack_number == 0).all(axis=0)

    assert np.nanstd(steady[:, same_pack], axis=0).max() < 1e-4
    assert np.nanmedian(np.nanstd(jumping[:, same_pack], axis=0)) > 0.005


def test_absent_channels_are_missing_in_every_reading(lives, measured):
    names = np.array([model.name for model in DEVICE_MODELS])[lives.hardware.model]

    assert np.isnan(of(measured, "internal_resistance_mohm")[:, names == "lock"]).all()
    assert np.isnan(of(measured, "battery_temp_max_c")[:, names == "camera"]).all()
    assert not np.isnan(of(measured, "internal_resistance_mohm")[:, names == "tracker"]).any()


def test_at_most_one_charge_a_day_is_completed(lives, measured):
    completed = ~np.isnan(of(measured, "charge_duration_min"))
    of_day = completed.reshape(-1, 4, completed.shape[1]).sum(axis=1)

    assert of_day.max() == 1
    assert of_day.mean() == pytest.approx(0.95, abs=0.01)


def test_faulty_chargers_show_in_the_duration_of_charges(lives, measured):
    minutes = of(measured, "charge_duration_min")
    stretch = per_day(lives.days.charge_stretch)
    known = ~np.isnan(minutes)
    late = known & (stretch > 1.7)
    faulty = late.any(axis=0) & (known & (stretch == 1)).any(axis=0)
    ratios = [
        minutes[late[:, device], device].mean()
        / minutes[known[:, device] & (stretch[:, device] == 1), device].mean()
        for device in np.flatnonzero(faulty)
    ]

    assert len(ratios) > 2
    assert np.mean(ratios) > 1.6


def test_highest_temperature_moves_away_from_the_mean_as_the_pack_swells(lives, measured):
    above = of(measured, "battery_temp_max_c") - of(measured, "battery_temp_avg_c")
    swollen = per_day(lives.days.swelling) > 0.85

    assert np.nanmin(above) >= 0
    assert np.nanmean(above[swollen]) > np.nanmean(above[~swollen]) + 1.5


def test_shutdowns_gather_where_resistance_nears_its_limit(lives, measured):
    shutdowns = np.diff(of(measured, "unexpected_shutdown_count"), axis=0)
    near = per_day(lives.days.resistance > lives.days.resistance_limit - 0.1)[1:]

    assert (shutdowns >= 0).all()
    assert shutdowns[near].mean() > 0.05
    assert shutdowns[~near].mean() < 0.02


def test_cycle_count_restarts_with_a_new_pack(lives, measured):
    count = of(measured, "charge_cycle_count")
    renewed = np.diff(lives.days.pack_number, axis=0) > 0
    day, device = np.nonzero(renewed)

    assert len(day) > 5
    assert (count[4 * (day + 1), device] <= 2).all()
    steps = np.diff(count, axis=0)
    assert (steps >= 0).sum() == steps.size - (
        count[4 * day + 3, device] > count[4 * day + 4, device]
    ).sum()


def test_tidy_telemetry_has_every_reading_in_time_order():
    telemetry = readings_of(replace(TIDY, retired_a_year=0.0, sudden_deaths_a_year=0.0))
    at_s = telemetry.at_s[telemetry.offsets[0] : telemetry.offsets[1]]

    assert (np.diff(telemetry.offsets) == 480).sum() >= 38
    assert (np.diff(at_s) > 0).all()
    assert START_S < at_s[0] <= START_S + SECONDS_PER_DAY / 4
    assert at_s[-1] <= START_S + 120 * SECONDS_PER_DAY


@pytest.mark.slow
def test_lost_readings_outages_and_duplicates_come_at_their_rates():
    everything = len(readings_of(TIDY, count=100))
    lossy = len(readings_of(replace(TIDY, lost_reading_share=0.1), count=100))
    twice = len(readings_of(replace(TIDY, duplicate_share=0.1), count=100))
    # One burst in 20 days, 2 days long, blanks about one day in eleven.
    bursts = replace(TIDY, outage_interval_days=20.0, outage_mean_days=2.0)
    with_bursts = len(readings_of(bursts, count=100))

    assert lossy / everything == pytest.approx(0.9, abs=0.01)
    assert twice / everything == pytest.approx(1.1, abs=0.01)
    assert with_bursts / everything == pytest.approx(0.91, abs=0.02)


def test_duplicates_are_whole_and_stand_together():
    telemetry = readings_of(replace(TIDY, duplicate_share=0.2))
    same = np.diff(telemetry.at_s) == 0
    rows = np.flatnonzero(same)

    assert len(rows) > 1000
    np.testing.assert_array_equal(telemetry.values[rows], telemetry.values[rows + 1])


def test_clock_faults_show_as_jumps_in_recording_order():
    faulty = replace(TIDY, clock_fault_interval_days=15.0)
    telemetry = readings_of(faulty, count=100)
    steps = np.concatenate(
        [
            np.diff(telemetry.at_s[a:b])
            for a, b in zip(telemetry.offsets[:-1], telemetry.offsets[1:], strict=True)
        ]
    )

    assert (steps < 0).sum() > 50
    assert (steps > SECONDS_PER_DAY).sum() > 50
    assert telemetry.at_s.min() < 946_684_800 + 365 * SECONDS_PER_DAY
    in_time = (telemetry.at_s >= START_S) & (telemetry.at_s <= START_S + 121 * SECONDS_PER_DAY)
    assert in_time.mean() > 0.9


def test_single_values_go_missing_at_their_rate():
    whole = readings_of(TIDY, count=100)
    holed = readings_of(replace(TIDY, missing_value_share=0.05), count=100)
    was_there = ~np.isnan(whole.values)

    lost = np.isnan(holed.values) & was_there

    np.testing.assert_allclose(lost.sum(axis=0) / was_there.sum(axis=0), 0.05, atol=0.01)
    assert not (np.isnan(whole.values) & ~np.isnan(holed.values)).any()


def test_reboots_reset_both_counters(lives, measured):
    often = replace(TIDY, reboot_interval_days=30.0)

    recorded = record(measured.copy(), lives, start_s=START_S, recipe=often)
    steady = record(measured.copy(), lives, start_s=START_S, recipe=TIDY)

    assert np.array_equal(recorded.counts, steady.counts)
    for name in ("charge_cycle_count", "unexpected_shutdown_count"):
        counted = recorded.values[:, COLUMN[name]]
        whole = steady.values[:, COLUMN[name]]
        assert counted.min() == 0
        assert (counted <= whole).all()
        assert (counted < whole).any()


@pytest.mark.parametrize(("cadence_h", "readings_a_day"), [(12, 2), (24, 1)])
def test_slower_cadence_sums_up_the_same_days(cadence_h, readings_a_day):
    quiet = replace(TIDY, retired_a_year=0.0, sudden_deaths_a_year=0.0, charger_faults_a_year=0.0)
    quick = readings_of(quiet, days=30, count=10)
    slow = readings_of(replace(quiet, cadence_h=cadence_h), days=30, count=10)
    group = 4 // readings_a_day
    grouped = quick.values[:120].reshape(30 * readings_a_day, group, 8)
    merged = slow.values[: 30 * readings_a_day]

    assert len(slow) * group == len(quick)
    for name, combine in (
        ("full_charge_capacity_mah", lambda group: group[:, -1]),
        ("charge_cycle_count", lambda group: group[:, -1]),
        ("battery_temp_max_c", lambda group: group.max(axis=1)),
        ("battery_temp_avg_c", lambda group: group.mean(axis=1)),
        ("usage_hours", lambda group: group.sum(axis=1)),
        ("charge_duration_min", lambda group: np.nansum(group, axis=1)),
    ):
        expected = combine(grouped[:, :, COLUMN[name]])
        got = merged[:, COLUMN[name]]
        if name == "charge_duration_min":
            got = np.nan_to_num(got)
        np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=name)
