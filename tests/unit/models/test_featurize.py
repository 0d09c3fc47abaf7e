"""Features of lives whose answer is known in closed form, and what decides their status."""

import numpy as np
import pytest

from models.feature_spec import FEATURE_NAMES, FEATURES, GROUPS, digest, group_index
from models.featurize import featurize, featurize_now
from models.prediction import STATUSES, Status
from tests.support.fleets import (
    DAY,
    DESIGN_MAH,
    END_OF_LIFE_MAH,
    START_S,
    days_of,
    profiles,
    readings,
    times,
    together,
)

SPAN = DESIGN_MAH - END_OF_LIFE_MAH


def featurized(life, **choices):
    return featurize(life, profiles(len(life.device_ids)), **choices)


def column(table, name):
    return table.features[:, FEATURE_NAMES.index(name)]


def status_of(table):
    return [str(STATUSES[index]) for index in table.status]


def fading(*, days=150, loss_a_day=4.0, per_day=4, start=DESIGN_MAH, **channels):
    at_s = times(days, per_day=per_day)
    return readings(at_s, capacity=start - loss_a_day * days_of(at_s), **channels)


def test_rows_stand_at_the_midnights_from_the_first_reading_to_the_last():
    at_s = START_S + np.array([0, 6, 24, 30, 49]) * 3600
    table = featurized(readings(at_s, capacity=2900.0))

    assert table.as_of_s.tolist() == [START_S + DAY, START_S + 2 * DAY]


def test_every_nth_midnight_of_each_device_is_kept():
    both = together(
        fading(days=20), readings(times(10, start_s=START_S + 3600), device_id="d1", capacity=1.0)
    )
    table = featurized(both, every_days=7)

    assert ((table.as_of_s - START_S) / DAY).tolist() == [1, 8, 15, 1, 8]


@pytest.mark.parametrize("per_day", [1, 4, 24])
def test_a_straight_fade_has_its_slope_margin_and_day_of_crossing(per_day):
    table = featurized(fading(per_day=per_day))
    row = 120
    # A day's median stands for the middle of the day's readings, the reference for the first ten.
    centre = (1 - 1 / per_day) / 2
    reference = DESIGN_MAH - 4.0 * 5.5 / per_day
    span = reference - END_OF_LIFE_MAH
    as_of_day = (table.as_of_s[row] - START_S) / DAY
    margin = (DESIGN_MAH - 4.0 * (as_of_day - centre) - END_OF_LIFE_MAH) / span

    for name in ("capacity_slope_10d", "capacity_slope_30d", "capacity_slope_60d"):
        assert column(table, name)[row] == pytest.approx(-30 * 4.0 / span, rel=1e-4)
    assert column(table, "health_margin_fitted_30d")[row] == pytest.approx(margin, rel=1e-4)
    assert column(table, "health_margin_fitted_90d")[row] == pytest.approx(margin, rel=1e-4)
    expected_days = margin * span / 4.0
    assert column(table, "days_to_eol_linear_30d")[row] == pytest.approx(expected_days, rel=1e-3)
    assert column(table, "days_to_eol_linear_90d")[row] == pytest.approx(expected_days, rel=1e-3)
    assert column(table, "fade_acceleration")[row] == pytest.approx(0, abs=1e-4)
    assert column(table, "capacity_scatter_30d")[row] == pytest.approx(0, abs=1e-4)
    # The median of seven days lags three days behind the line.
    lagging = margin + 4.0 * 3 / span
    assert column(table, "health_margin")[row] == pytest.approx(lagging, rel=1e-4)


def test_margins_are_measured_against_the_reference_and_against_design():
    table = featurized(readings(times(60), capacity=2700.0))

    assert column(table, "health_margin")[-1] == pytest.approx(1.0)
    assert column(table, "health_margin_design")[-1] == pytest.approx(300 / SPAN)
    assert column(table, "charge_capacity_remaining")[-1] == pytest.approx(0.9)
    assert column(table, "days_to_eol_linear_30d")[-1] == 3650


def test_a_pack_that_enters_below_end_of_life_has_a_span_of_two_percent_of_design():
    table = featurized(readings(times(60), capacity=2340.0))

    assert column(table, "health_margin")[-1] == pytest.approx(-1.0)
    assert column(table, "days_to_eol_linear_90d")[-1] == 0


def test_charging_resistance_and_temperature_are_told_against_the_first_days():
    day = days_of(times(120))
    life = fading(
        days=120,
        charge=np.where(day < 5, 50.0, 60.0),
        resistance=np.where(day < 5, 80.0, 100.0),
        temp_max=np.where(day == 100, 48.0, 33.0),
        temp_avg=25.0,
    )
    table = featurized(life)

    assert column(table, "charge_time_ratio")[-1] == pytest.approx(1.2)
    assert column(table, "avg_charge_time")[-1] == pytest.approx(60)
    assert column(table, "charge_time_trend")[-1] == pytest.approx(0, abs=1e-5)
    assert column(table, "resistance_ratio")[-1] == pytest.approx(1.25)
    assert column(table, "battery_temp_avg")[-1] == pytest.approx(25)
    assert column(table, "battery_temp_max")[[110, 119]].tolist() == [48, 48]
    assert column(table, "temp_spread")[-1] == pytest.approx((29 * 8 + 23) / 30)


def test_a_steady_rise_of_charge_time_has_its_trend():
    at_s = times(90, per_day=1)
    table = featurized(readings(at_s, capacity=2900.0, charge=100.0 + np.arange(90.0)))

    assert column(table, "charge_time_trend")[-1] == pytest.approx(30 / 104.5, rel=1e-4)


@pytest.mark.parametrize("per_day", [1, 3, 4, 24])
def test_use_and_cycles_a_day_do_not_depend_on_the_cadence(per_day):
    at_s = times(100, per_day=per_day)
    life = readings(
        at_s, capacity=2900.0, usage=6.0 / per_day, cycles=np.floor(0.5 * days_of(at_s) * 8) / 8
    )
    table = featurized(life)

    assert column(table, "usage_intensity")[5:] == pytest.approx(6.0, rel=1e-5)
    assert column(table, "usage_change")[5:] == pytest.approx(1.0, rel=1e-5)
    assert column(table, "cycles_per_day")[-1] == pytest.approx(0.5, rel=0.03)


def test_lost_readings_do_not_speed_up_the_cycles():
    at_s = times(100)
    kept = np.random.default_rng(1).random(400) < 0.4
    life = readings(at_s[kept], capacity=2900.0, cycles=2.0 * days_of(at_s)[kept])

    assert column(featurized(life), "cycles_per_day")[-1] == pytest.approx(2.0, rel=1e-3)


def test_shutdowns_are_counted_in_their_windows_across_a_reset():
    counter = np.zeros(400)
    counter[200:] += 3
    counter[320:] += 4
    counter[385:] += 5
    counter[390:] -= counter[390]
    counter[395:] += 2
    table = featurized(fading(days=100, shutdowns=counter))

    assert column(table, "unexpected_shutdowns")[[40, 60, 85, 99]].tolist() == [0, 3, 4, 11]
    assert column(table, "unexpected_shutdowns_7d")[[85, 99]].tolist() == [4, 7]


def test_channels_that_are_not_measured_stay_missing():
    table = featurized(readings(times(60), capacity=2900.0))
    known = {name for name in FEATURE_NAMES if np.isfinite(column(table, name)[-1])}

    of_capacity = {f.name for f in FEATURES if f.group in {"capacity_level", "capacity_trend"}}
    assert known == of_capacity | {"days_since_manufacture"}


def test_features_stay_within_their_ranges_whatever_was_read():
    rng = np.random.default_rng(3)
    life = readings(
        times(120),
        capacity=rng.choice([1.0, 10.0, 3000.0, 900_000.0], 480),
        charge=rng.choice([0.1, 2880.0], 480),
        temp_max=rng.choice([-60.0, 120.0], 480),
        temp_avg=rng.choice([-60.0, 120.0], 480),
        shutdowns=rng.choice([0.0, 1e6], 480),
        usage=700.0,
        cycles=rng.choice([0.0, 1e5], 480),
        resistance=rng.choice([0.01, 1e5], 480),
    )
    features = featurized(life).features
    low, high = np.array([(f.low, f.high) for f in FEATURES], np.float32).T

    assert (np.isnan(features) | ((features >= low) & (features <= high))).all()


def test_a_new_pack_resets_reference_age_and_status():
    day = days_of(times(120))
    new = day > 80
    life = readings(
        times(120),
        capacity=np.where(new, 2940.0, 2500.0),
        cycles=np.where(new, day - 80, 400 + day),
        charge=np.where(new, 50.0, 75.0),
        resistance=np.where(new, 80.0, 160.0),
    )
    table = featurized(life)

    assert table.pack.tolist() == [0] * 80 + [1] * 40
    assert table.capacity_reference_mah[[79, 80, 119]].tolist() == [2500, 2940, 2940]
    assert column(table, "resistance_ratio")[[79, 119]].tolist() == [1, 1]
    assert column(table, "days_since_manufacture")[[79, 80, 119]].tolist() == [90, 1, 40]
    assert status_of(table)[79] == "ok"
    assert set(status_of(table)[80:107]) == {"insufficient_history"}
    assert status_of(table)[107] == "ok"
    assert table.pack_since_s[[79, 80]].tolist() == [START_S + 6 * 3600, START_S + 80 * DAY]


def test_28_days_must_have_passed_since_the_first_reading():
    statuses = status_of(featurized(readings(times(40) - 6 * 3600, capacity=2900.0)))

    assert statuses[:27] == ["insufficient_history"] * 27
    assert set(statuses[27:]) == {"ok"}


def test_a_device_that_starts_late_is_young_from_its_own_start():
    start = START_S + 400 * DAY
    table = featurized(readings(times(40, start_s=start), capacity=2900.0))

    assert table.as_of_s[0] == start + DAY
    assert status_of(table)[26:29] == ["insufficient_history", "insufficient_history", "ok"]


def test_five_valid_capacities_in_30_days_are_enough():
    at_s = times(80, per_day=1)
    for count, expected in ((4, Status.INSUFFICIENT_HISTORY), (5, Status.OK)):
        capacity = np.full(80, np.nan)
        capacity[0] = 2900.0
        capacity[79 - 6 * np.arange(count)] = 2900.0
        table = featurized(readings(at_s, capacity=capacity, temp_avg=20.0))
        assert status_of(table)[-1] == str(expected)


def test_capacities_that_are_there_but_cannot_be_are_invalid_data():
    capacity = np.full(240, 2900.0)
    capacity[100:] = -1.0
    statuses = status_of(featurized(readings(times(60), capacity=capacity)))

    assert statuses[50:54] == ["ok"] * 3 + ["invalid_data"]
    assert set(statuses[54:]) == {"invalid_data"}


def test_health_is_the_latest_known_where_the_last_week_measured_no_capacity():
    capacity = np.where(np.arange(240) < 160, 2900.0, np.nan)
    table = featurized(readings(times(60), capacity=capacity, temp_avg=20.0))

    assert status_of(table)[55] == "ok"
    assert table.capacity_mah[[45, 46, 55]].tolist() == [2900] * 3
    assert np.isnan(column(table, "health_margin")[55])


def test_a_device_silent_for_more_than_a_week_is_stale():
    at_s = np.concatenate([times(60), times(3, start_s=START_S + 80 * DAY)])
    statuses = status_of(featurized(readings(at_s, capacity=2900.0)))

    assert statuses[66:68] == ["ok", "stale"]
    assert set(statuses[67:80]) == {"stale"}
    assert statuses[80] == "ok"


def test_a_silent_device_is_stale_at_any_later_moment():
    life = readings(times(60), capacity=2900.0)
    now = featurize_now(life, profiles(), now_s=START_S + 70 * DAY)

    assert status_of(now) == ["stale"]


def test_a_device_without_readings_has_no_rows():
    both = together(readings(times(60), capacity=2900.0), readings(np.zeros(0), device_id="d1"))
    table = featurized(both)

    assert set(table.device.tolist()) == {0}
    assert len(featurize_now(both, profiles(2), now_s=START_S + DAY).status) == 1
    assert len(featurized(readings(np.zeros(0))).status) == 0


def test_the_specification_is_whole_and_its_digest_stays():
    assert 20 <= len(FEATURES) <= 30
    assert {f.group for f in FEATURES} == set(GROUPS)
    assert {f.layer for f in FEATURES} == {"basic", "temporal", "interaction"}
    assert all(f.low < f.high and f.unit and f.formula for f in FEATURES)
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(group_index())
    assert digest() == "1446113f3462ac16458bb381c7bc4282bfc15a320050ef856fad66b2ccf1c7a3"
