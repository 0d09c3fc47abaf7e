"""How far back readings may leave by age: by the clock, and by the time that they cover."""

import pytest

from edge_client.store.clock import STEP_S, age_limit

DAY = 86_400
NOW = 1_800_000_000
YEAR = 365 * DAY
RETENTION_S = 2 * YEAR
THIRD_S = RETENTION_S // 3
JUMP_S = 13 * YEAR


def limit_of(times, now_s=NOW, retention_s=RETENTION_S):
    """Ask with times in the order in which they were recorded."""
    numbered = [(at_s, number) for number, at_s in enumerate(times, 1) if at_s <= now_s]
    return age_limit(sorted(numbered, reverse=True), now_s=now_s, retention_s=retention_s)


def steady(step_s, *, until_s=NOW, days=3 * 365):
    return range(until_s - days * DAY, until_s + 1, step_s)


@pytest.mark.parametrize("step_s", [3_600, 6 * 3_600, DAY, 30 * DAY, 91 * DAY, THIRD_S])
def test_steady_clock_makes_readings_leave_on_the_day(step_s):
    assert limit_of(steady(step_s)) == NOW - RETENTION_S


@pytest.mark.parametrize("gap_days", [20, 33, 35, 45, 120, 240])
def test_so_does_one_that_is_used_in_bursts(gap_days):
    starts = range(NOW - 6 * YEAR, NOW - DAY, gap_days * DAY)
    bursts = [start_s + 6 * 3_600 * number for start_s in starts for number in range(10)]
    now_s = bursts[-1]
    assert limit_of(bursts, now_s) == now_s - RETENTION_S


@pytest.mark.parametrize("times", [[], [NOW], [NOW - DAY, NOW], list(steady(DAY, days=700))])
def test_nothing_leaves_before_so_much_time_is_covered(times):
    assert limit_of(times) is None


@pytest.mark.parametrize("stood_days", [0, 1, 40, 365, 480])
def test_jump_counts_for_a_month_then_as_long_as_it_stands_and_never_above_a_third(stood_days):
    now_s = NOW + JUMP_S
    times = [*steady(DAY), *range(now_s - stood_days * DAY, now_s + 1, DAY)]
    counted_s = max(STEP_S, min(stood_days * DAY, THIRD_S))
    assert limit_of(times, now_s) == NOW - RETENTION_S + counted_s + stood_days * DAY


def test_what_is_from_before_years_in_storage_leaves_after_two_thirds_more():
    for storage_s in (3 * YEAR, 9 * YEAR):
        now_s = NOW + storage_s
        times = [*steady(DAY), *range(now_s - 2 * THIRD_S, now_s + 1, DAY)]
        assert NOW <= limit_of(times, now_s) <= now_s - RETENTION_S


def test_times_that_the_clock_was_set_back_from_count_for_nothing():
    wrong = [range(NOW + years * YEAR, NOW + years * YEAR + 20 * DAY, DAY) for years in (4, 7, 9)]
    told = [*steady(DAY, until_s=NOW - DAY)]
    for days, episode in enumerate(wrong):
        told += [*episode, NOW + days * DAY]
    now_s = NOW + JUMP_S
    assert limit_of([*told, now_s], now_s) == NOW + 2 * DAY - RETENTION_S + STEP_S


def test_late_readings_and_old_tables_neither_hasten_nor_hold_back():
    recorded = [*steady(DAY, until_s=NOW - DAY)]
    for late in ([NOW - 300 * DAY], [NOW - 9 * YEAR], [*steady(DAY, until_s=NOW - 4 * YEAR)]):
        assert limit_of([*recorded, *late, NOW]) == NOW - RETENTION_S
