"""Readings of any cadence become days, and days become packs."""

import numpy as np
import pytest

from models.daily_grid import DAY_VALUES, daily_grid
from models.telemetry_audit import audit
from tests.support.fleets import DAY, DESIGN_MAH, START_S, readings, times, together

HOUR = 3600


def grid_of(life, **choices):
    return daily_grid(audit(life), np.full(len(life.device_ids), DESIGN_MAH), **choices)


def day(grid, name):
    return grid.values[DAY_VALUES.index(name)]


def packs_of(grid):
    rows = np.arange(len(grid))
    return np.flatnonzero(grid.pack_start == rows).tolist()


def test_a_day_ends_with_the_reading_at_its_midnight():
    at_s = START_S + np.array([6, 24, 25, 48]) * HOUR
    grid = grid_of(readings(at_s, capacity=[1.0, 3.0, 10.0, 20.0]))

    assert grid.as_of_s.tolist() == [START_S + DAY, START_S + 2 * DAY]
    assert grid.capacity_mah.tolist() == [2.0, 15.0]
    assert day(grid, "num_capacities").tolist() == [2, 2]
    assert grid.last_at_s.tolist() == [at_s[1], at_s[3]]


def test_days_without_readings_stay_empty_and_in_place():
    at_s = START_S + np.array([6, 100]) * HOUR
    grid = grid_of(readings(at_s, capacity=7.0, usage=1.0))

    assert len(grid) == 5
    assert grid.capacity_mah == pytest.approx([7, np.nan, np.nan, np.nan, 7], nan_ok=True)
    assert day(grid, "num_capacities").tolist() == [1, 0, 0, 0, 1]
    assert grid.last_at_s.tolist() == [at_s[0]] * 4 + [at_s[1]]


def test_each_measurement_is_gathered_by_its_own_rule():
    life = readings(
        times(1),
        capacity=[1.0, 2, 9, np.nan],
        charge=[50.0, np.nan, 70, np.nan],
        temp_max=[30.0, 45, 20, np.nan],
        temp_avg=[20.0, 24, 22, np.nan],
        usage=[1.0, 2, 3, 4],
        resistance=[80.0, 90, 95, 200],
        shutdowns=[5.0, 6, 6, 8],
    )
    grid = grid_of(life)

    found = {name: day(grid, name)[0] for name in DAY_VALUES}
    assert found == pytest.approx(
        {
            "num_capacities": 3,
            "num_capacities_refused": 0,
            "capacity_mah": 2,
            "charge_duration_min": 60,
            "temp_max_c": 45,
            "temp_avg_c": 22,
            "resistance_mohm": 92.5,
            "usage_hours": 9,
            "usage_covered_days": 0.75,
            "cycles": np.nan,
            "cycles_covered_days": np.nan,
            "shutdowns": 3,
            "cycle_counter": np.nan,
        },
        nan_ok=True,
    )


def test_medians_of_a_crowded_day_are_the_same_as_of_a_quiet_one():
    rng = np.random.default_rng(1)
    at_s = times(3, per_day=96)
    values = rng.normal(2900, 30, len(at_s)).astype(np.float32)
    grid = grid_of(readings(at_s, capacity=values))

    expected = [np.median(values[i * 96 : (i + 1) * 96].astype(float)) for i in range(3)]
    assert grid.capacity_mah.tolist() == expected


def test_the_last_day_runs_until_now():
    now_s = START_S + 5 * DAY - 7 * HOUR
    grid = grid_of(readings(times(2), capacity=1.0), until_s=now_s)

    assert grid.as_of_s.tolist() == [START_S + days * DAY for days in (1, 2, 3, 4)] + [now_s]
    assert day(grid, "num_capacities").tolist() == [4, 4, 0, 0, 0]


def test_cycles_are_divided_by_the_days_since_the_counter_was_read():
    counter = np.full(16, np.nan)
    counter[[0, 5, 15]] = [10, 15, 25]
    grid = grid_of(readings(times(4), cycles=counter))

    assert day(grid, "cycles") == pytest.approx([np.nan, 5, np.nan, 10], nan_ok=True)
    assert day(grid, "cycles_covered_days") == pytest.approx(
        [np.nan, 1.25, np.nan, 2.5], nan_ok=True
    )


def changed_pack(*, outage_days=0, rise=0.2, counter=True, day=20):
    at_s = times(40)
    new = at_s > START_S + day * DAY
    at_s = at_s + np.where(new, outage_days * DAY, 0)
    cycles = np.where(new, np.arange(160) - 80.0, 300.0 + np.arange(160)) if counter else np.nan
    return readings(at_s, capacity=DESIGN_MAH * np.where(new, 0.75 + rise, 0.75), cycles=cycles)


@pytest.mark.parametrize("outage_days", [0, 5, 8, 60])
def test_a_new_pack_is_found_on_its_first_day_also_after_an_outage(outage_days):
    assert packs_of(grid_of(changed_pack(outage_days=outage_days))) == [0, 20 + outage_days]


@pytest.mark.parametrize(
    ("rise", "counter", "found"),
    [(0.07, True, False), (0.09, True, True), (0.19, False, False), (0.21, False, True)],
)
def test_a_new_pack_needs_a_rise_and_more_of_it_where_nobody_counts(rise, counter, found):
    assert (len(packs_of(grid_of(changed_pack(rise=rise, counter=counter)))) == 2) is found


def test_a_counter_that_restarts_is_no_new_pack():
    cycles = np.concatenate([np.arange(80.0) + 300, np.arange(80.0)])

    assert packs_of(grid_of(readings(times(40), capacity=2800.0, cycles=cycles))) == [0]


def test_a_gauge_that_learns_anew_is_no_new_pack():
    capacity = np.where(np.arange(160) < 80, 2300.0, 2900.0)

    assert packs_of(
        grid_of(readings(times(40), capacity=capacity, cycles=300 + np.arange(160.0)))
    ) == [0]


def test_a_counter_that_restarts_in_the_week_after_is_no_second_new_pack():
    life = changed_pack()
    after = np.flatnonzero(life.at_s > START_S + 22 * DAY)
    life.values[after, 1] -= life.values[after[0], 1]

    assert packs_of(grid_of(life)) == [0, 20]


def test_every_one_of_several_new_packs_is_found():
    at_s = times(90)
    own_day = (np.arange(360) // 4) % 30
    life = readings(at_s, capacity=3000.0 - 20 * own_day, cycles=own_day * 5.0)

    assert packs_of(grid_of(together(life, life))) == [0, 30, 60, 90, 120, 150]


def test_cycles_count_from_new_on_each_pack():
    at_s = times(60, per_day=1)
    counter = np.concatenate([50 + np.arange(30.0), np.arange(30.0)])
    counter[45:] -= counter[45]
    capacity = np.where(np.arange(60) < 30, 2250.0, 2950.0)
    grid = grid_of(readings(at_s, capacity=capacity, cycles=counter))

    assert grid.cycle_count[[0, 29]].tolist() == [50, 79]
    assert grid.cycle_count[[30, 44, 45, 59]].tolist() == [0, 14, 14, 28]


def test_a_fleet_without_readings_has_no_days():
    grid = grid_of(readings(np.zeros(0, np.int64)))

    assert len(grid) == 0
