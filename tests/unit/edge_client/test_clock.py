"""A clock that jumps ahead is believed once its time has stood for a month, and not before."""

import pytest

from edge_client.store.clock import STANDING_S, has_stood

DAY = 86_400
NOW = 1_800_000_000
QUARTER = 91 * DAY


def every(step_s, *, until_s=NOW, count=200):
    return [until_s - number * step_s for number in range(count)]


def stands(newest_first, now_s=NOW):
    return has_stood(newest_first, now_s=now_s)


@pytest.mark.parametrize("step_s", [60, 6 * 3_600, DAY, 30 * DAY, QUARTER])
def test_steady_clock_is_believed_whatever_the_rhythm(step_s):
    assert stands(every(step_s))
    assert stands(every(step_s), NOW + step_s)


@pytest.mark.parametrize("num_readings", [0, 1, 2, 5])
def test_few_readings_of_today_are_no_reason_for_doubt(num_readings):
    assert stands(every(60, count=num_readings))


@pytest.mark.parametrize("ahead_s", [70 * DAY, 365 * DAY, 13 * 365 * DAY])
@pytest.mark.parametrize("num_wrong", [0, 1, 2, 3, 12, 120])
def test_jump_is_not_believed_before_it_has_stood(ahead_s, num_wrong):
    wrong = every(6 * 3_600, until_s=NOW + ahead_s, count=num_wrong)
    assert not stands([*wrong, *every(6 * 3_600)], NOW + ahead_s)


def test_jump_that_has_stood_for_a_month_is_believed():
    now_s = NOW + 13 * 365 * DAY
    old = every(6 * 3_600)
    verdicts = [
        stands([*every(6 * 3_600, until_s=now_s, count=number), *old], now_s)
        for number in range(1, 140)
    ]
    assert verdicts == sorted(verdicts)
    assert verdicts.index(True) == pytest.approx(4 * STANDING_S / DAY, abs=5)


def test_off_for_a_month_is_no_jump():
    assert stands(every(6 * 3_600), NOW + 30 * DAY)
    assert not stands(every(6 * 3_600), NOW + 40 * DAY)


@pytest.mark.parametrize("num_wrong", [1, 12, 120, 400])
def test_clock_that_was_set_back_is_believed_at_once(num_wrong):
    wrong = every(6 * 3_600, until_s=NOW + 9_999 * DAY, count=num_wrong)
    assert stands([*every(60, count=7), *wrong, *every(6 * 3_600)])


def test_second_episode_is_not_vouched_for_by_the_first():
    first = every(6 * 3_600, until_s=NOW + 5_000 * DAY, count=40)
    second = every(6 * 3_600, until_s=NOW + 5_012 * DAY, count=40)
    between = every(6 * 3_600, until_s=NOW + DAY, count=4)
    times = [*second, *between, *first, *every(6 * 3_600)]
    assert not stands(times, NOW + 5_012 * DAY)


def test_late_readings_are_no_jump():
    times = every(6 * 3_600)
    assert stands([times[0], NOW - 300 * DAY, *times[1:]])
    assert stands([*times[:9], NOW - 300 * DAY, NOW - 400 * DAY, *times[9:]])
