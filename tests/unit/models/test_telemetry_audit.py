"""What the audit refuses, what it only notes, and how it counts."""

import numpy as np
import pytest

from models.telemetry import COLUMN, MEASUREMENTS
from models.telemetry_audit import audit
from tests.support.fleets import DAY, START_S, random_life, readings, times, together

HOUR = 3600
CYCLES = COLUMN["charge_cycle_count"]


def test_tidy_readings_pass_as_they_are():
    life = readings(times(5), capacity=2900.0, cycles=np.arange(20.0))
    audited = audit(life, manufactured_at_s=np.array([START_S]), now_s=START_S + 5 * DAY)

    assert np.array_equal(audited.telemetry.values, life.values, equal_nan=True)
    assert (audited.report.refused, audited.report.noted) == ({}, {})
    assert audited.report.num_readings == 20
    assert audited.report.completeness["full_charge_capacity_mah"] == 1.0
    assert audited.report.completeness["usage_hours"] == 0.0


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda m: m.name)
def test_values_out_of_range_are_blanked_and_counted_and_limits_are_valid(measurement):
    values = readings(times(2)).values
    column = COLUMN[measurement.name]
    below = np.nextafter(np.float32(measurement.low), np.float32(-np.inf))
    above = np.nextafter(np.float32(measurement.high), np.float32(np.inf))
    values[:6, column] = [measurement.low, measurement.high, below, above, np.inf, -np.inf]
    life = readings(times(2))
    life.values[:] = values
    audited = audit(life)

    assert np.isfinite(audited.telemetry.values[:, column]).tolist() == [True] * 2 + [False] * 6
    assert audited.report.refused == {f"out_of_range:{measurement.name}": 4}
    assert audited.capacity_refused.sum() == (4 if column == 0 else 0)


def test_the_readings_that_came_in_are_left_as_they_are():
    life = readings(times(2), capacity=-5.0)
    audit(life)

    assert (life.values[:, 0] == -5).all()


def test_readings_before_manufacture_are_refused_with_a_day_of_tolerance():
    at_s = START_S + np.array([-25, -24, 0, 24]) * HOUR
    audited = audit(readings(at_s, capacity=1.0), manufactured_at_s=np.array([START_S]))

    assert audited.telemetry.at_s.tolist() == at_s[1:].tolist()
    assert audited.report.refused == {"before_manufacture": 1}


def test_readings_in_the_future_behind_a_silent_week_are_refused():
    at_s = np.concatenate([times(10), times(3, start_s=START_S + 17 * DAY)])
    audited = audit(readings(at_s, capacity=1.0), now_s=START_S + 10 * DAY)

    assert audited.telemetry.at_s.tolist() == times(10).tolist()
    assert audited.report.refused == {"in_the_future": 12}


def test_readings_that_run_on_into_the_future_are_only_noted():
    audited = audit(readings(times(20), capacity=1.0), now_s=START_S + 10 * DAY)

    assert len(audited.telemetry) == 80
    assert audited.report.noted == {"beyond_now": 36}


def test_a_silent_week_in_the_past_refuses_nothing():
    at_s = np.concatenate([times(10), times(3, start_s=START_S + 30 * DAY)])
    audited = audit(readings(at_s, capacity=1.0), now_s=START_S + 33 * DAY)

    assert audited.report.refused == {}


@pytest.mark.parametrize("jump_days", [-200, -3, 3, 5000])
@pytest.mark.parametrize("length", [1, 2])
def test_one_or_two_readings_under_a_wrong_clock_are_refused(jump_days, length):
    at_s = times(10)
    at_s[20 : 20 + length] += jump_days * DAY
    audited = audit(readings(at_s, capacity=1.0))

    assert audited.report.refused == {"clock_jump": length}
    assert audited.report.noted.get("out_of_order") is None
    assert np.isin(audited.telemetry.at_s, times(10)).all()


def test_long_runs_under_a_wrong_clock_are_sorted_in_where_they_claim_to_belong():
    at_s = times(20)
    at_s[40:46] -= 5 * DAY + 600
    audited = audit(readings(at_s, capacity=np.arange(80.0) + 1))

    assert audited.report.refused == {}
    assert audited.report.noted["out_of_order"] == 1
    assert (np.diff(audited.telemetry.at_s) > 0).all()
    moved = np.searchsorted(audited.telemetry.at_s, at_s[40])
    assert audited.telemetry.values[moved, 0] == 41


@pytest.mark.parametrize("cadence_days", [1 / 24, 0.25, 1, 7, 45])
def test_no_cadence_is_taken_for_a_clock_that_jumps(cadence_days):
    at_s = START_S + np.round(np.arange(30) * cadence_days * DAY).astype(np.int64)
    audited = audit(readings(at_s, capacity=1.0))

    assert (audited.report.refused, audited.report.noted) == ({}, {})


def test_of_readings_at_the_same_time_the_first_recorded_stays():
    at_s = times(2)[[0, 1, 1, 1, 2, 3]]
    audited = audit(readings(at_s, capacity=[1.0, 2, 3, 4, 5, 6]))

    assert audited.telemetry.values[:, 0].tolist() == [1, 2, 5, 6]
    assert audited.report.refused == {"duplicate": 2}


def test_the_same_time_on_two_devices_is_no_duplicate():
    life = readings(times(2), capacity=1.0)
    both = together(life, readings(times(2), device_id="d1", capacity=2.0))

    assert audit(both).report.refused == {}


def test_counters_become_growth_and_resets_are_undone():
    counter = np.array([100, 103, np.nan, 104, 2, 5, 60, 55], float)
    audited = audit(readings(times(2), cycles=counter, shutdowns=0.0))
    growth = audited.growth[:, CYCLES]

    assert growth == pytest.approx([np.nan, 3, np.nan, 1, 2, 3, 55, 0], nan_ok=True)
    assert audited.report.noted == {"counter_reset:charge_cycle_count": 2}
    assert np.isnan(audited.growth[:, 0]).all()


def test_a_counter_never_grows_from_one_device_to_the_next():
    both = together(
        readings(times(1), cycles=[10.0, 11, 12, 13]),
        readings(times(1), device_id="d1", cycles=[900.0, 901, 902, 903]),
    )
    growth = audit(both).growth[:, CYCLES]

    assert growth == pytest.approx([np.nan, 1, 1, 1, np.nan, 1, 1, 1], nan_ok=True)


def test_gaps_are_measured_against_the_devices_own_cadence():
    often, seldom = times(20), times(70, per_day=1)
    lost = np.r_[0:40, 50:80]
    both = together(
        readings(often[lost], capacity=1.0), readings(seldom, device_id="d1", capacity=1.0)
    )

    assert audit(both).report.noted == {"gap": 1}


def test_devices_are_audited_as_if_alone():
    lives = [random_life(seed, device_id=f"d{seed}") for seed in range(6)]
    lives[2].at_s[30:36] -= 9 * DAY
    whole = audit(together(*lives))
    alone = [audit(life) for life in lives]

    assert (
        whole.telemetry.at_s.tolist()
        == np.concatenate([part.telemetry.at_s for part in alone]).tolist()
    )
    assert np.array_equal(
        whole.growth, np.concatenate([part.growth for part in alone]), equal_nan=True
    )
    for kind in ("refused", "noted"):
        counted: dict[str, int] = {}
        for part in alone:
            for reason, count in getattr(part.report, kind).items():
                counted[reason] = counted.get(reason, 0) + count
        assert getattr(whole.report, kind) == counted


def test_no_readings_at_all_are_no_finding():
    audited = audit(readings(np.zeros(0, np.int64)))

    assert audited.report.num_readings == 0
    assert (audited.report.refused, audited.report.noted) == ({}, {})
