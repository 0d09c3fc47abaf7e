import itertools
from datetime import UTC, datetime, timedelta

import pytest

from edge_client.sensing.sampling import (
    SamplingSettings,
    after_failure,
    after_look,
    after_reading,
    age_s,
    begin,
    offset_s,
)

SETTINGS = SamplingSettings()
HOUR = 3600.0
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def begun(*, since_last_s=None, elapsed_s=1000.0, device_id="device-1"):
    return begin(SETTINGS, device_id=device_id, elapsed_s=elapsed_s, since_last_s=since_last_s)


def times_of_readings(schedule, clock):
    """Run the schedule over moments of the clock; returns those at which a reading was taken."""
    taken = []
    for elapsed_s in clock:
        if schedule.reading_is_due(elapsed_s):
            taken.append(elapsed_s)
            schedule = after_reading(schedule, elapsed_s)
    return taken


def test_first_reading_is_due_at_once_where_none_is_known_and_else_when_its_time_has_come():
    assert begun().reading_is_due(1000.0)
    assert begun(since_last_s=7 * HOUR).reading_is_due(1000.0)
    assert begun(since_last_s=2 * HOUR).reading_at_s == 1000.0 + 4 * HOUR


def test_month_has_a_reading_every_six_hours_on_a_grid_of_the_device():
    clock = [60.0 * minute for minute in range(30 * 24 * 60)]
    taken = times_of_readings(begun(elapsed_s=0.0), clock)
    gaps = {round((b - a) / 60) * 60 for a, b in itertools.pairwise(taken[1:])}

    assert gaps == {6 * HOUR}
    assert len(taken) in {120, 121}
    assert 3 * HOUR <= taken[1] - taken[0] <= 9 * HOUR
    assert taken[1] % (6 * HOUR) == pytest.approx(offset_s("device-1", 6 * HOUR), abs=60)


def test_devices_are_spread_evenly_over_the_interval():
    sixths = [int(6 * offset_s(f"device-{n}", 1.0)) for n in range(6000)]

    assert all(850 < sixths.count(sixth) < 1150 for sixth in range(6))


def test_one_reading_is_taken_after_a_week_of_sleep():
    schedule = after_reading(begun(elapsed_s=0.0), 0.0)
    woken_s = 7 * 24 * HOUR
    taken = times_of_readings(schedule, [woken_s + 60.0 * minute for minute in range(24 * 60)])

    assert taken[0] == woken_s
    assert all(b - a >= 3 * HOUR for a, b in itertools.pairwise(taken))
    assert len(taken) in {4, 5}


@pytest.mark.parametrize("set_by", [timedelta(days=-3650), timedelta(days=3650), timedelta(0)])
def test_wall_clock_that_was_set_decides_at_most_the_first_reading(set_by):
    last_at = NOW - timedelta(hours=1)
    schedule = begun(since_last_s=age_s(last_at, NOW + set_by), elapsed_s=0.0)
    taken = times_of_readings(schedule, [60.0 * minute for minute in range(2 * 24 * 60)])

    assert 7 <= len(taken) <= 9
    assert all(3 * HOUR <= b - a <= 9 * HOUR for a, b in itertools.pairwise(taken))


def test_sensor_that_fails_is_asked_again_in_five_minutes():
    schedule = after_failure(begun(), 1000.0)

    assert not schedule.reading_is_due(1299.0)
    assert schedule.reading_is_due(1300.0)


def test_looks_come_every_ten_minutes_and_a_reading_is_one():
    schedule = begun(since_last_s=0.0)
    assert schedule.look_is_due(1000.0)
    assert after_look(schedule, 1000.0).wait_s(1100.0) == 500.0
    assert after_reading(schedule, 2000.0).look_at_s == 2600.0


def test_age_of_a_reading_from_the_future_is_not_known():
    assert age_s(NOW - timedelta(hours=2), NOW) == 2 * HOUR
    assert age_s(NOW + timedelta(hours=2), NOW) is None
    assert age_s(None, NOW) is None


def test_interval_of_zero_is_refused():
    with pytest.raises(ValueError, match="every_s must be above 0, got 0"):
        SamplingSettings(every_s=0)
