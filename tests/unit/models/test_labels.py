"""When a pack counts as failed, from when on that is known, and what is never a failure."""

import numpy as np
import pytest

from models.featurize import PackReferences
from models.labels import OwnerAnswers, label_packs
from models.telemetry import CAUSES
from tests.support.fleets import (
    DAY,
    END_OF_LIFE_MAH,
    START_S,
    profiles,
    readings,
    times,
    together,
)

FADE, RESISTANCE = CAUSES.index("capacity_fade"), CAUSES.index("resistance_growth")


def midnight(day):
    return START_S + day * DAY


def daily(capacity, **channels):
    capacity = np.asarray(capacity, float)
    return readings(times(len(capacity), per_day=1), capacity=capacity, **channels)


def label(life, **choices):
    return label_packs(life, profiles(len(life.device_ids)), **choices)


def failed_day(outcomes, pack=0):
    return (outcomes.failed_at_s[pack] - START_S) / DAY


def dropping(day, days=60, low=2300.0):
    return np.where(np.arange(1, days + 1) < day, 2700.0, low)


# By capacity


def test_a_pack_fails_on_the_first_of_five_filtered_days_below_end_of_life():
    outcomes = label(daily(dropping(30)))

    assert failed_day(outcomes) == 30
    assert outcomes.cause.tolist() == [FADE]


def test_the_week_around_a_day_outvotes_single_bad_days():
    capacity = np.full(60, 2700.0)
    capacity[[20, 22, 24, 40, 41, 42]] = 1000.0

    assert np.isnan(label(daily(capacity)).failed_at_s).all()


def test_four_filtered_days_below_are_not_enough():
    for low_days, failures in ((4, 0), (5, 1)):
        capacity = np.full(60, 2700.0)
        capacity[30 : 30 + low_days] = 2300.0
        outcomes = label(daily(capacity))
        assert np.isfinite(outcomes.failed_at_s).sum() == failures


def test_exactly_at_end_of_life_is_not_below_it():
    assert np.isnan(label(daily(np.full(60, END_OF_LIFE_MAH))).failed_at_s).all()


def test_days_count_only_where_capacity_was_measured():
    capacity = dropping(30, days=90)
    capacity[np.arange(90) % 3 != 0] = np.nan
    outcomes = label(daily(capacity, temp_avg=20.0))

    assert failed_day(outcomes) == 31


def test_the_median_of_a_day_stands_for_its_readings():
    capacity = np.repeat(dropping(30), 4)
    capacity[::4] = 100.0
    outcomes = label(readings(times(60), capacity=capacity))

    assert failed_day(outcomes) == 30


def naive_capacity_rule(capacity, end_of_life):
    """Return the number of the first failed measured day, or None, by loops."""
    measured = [day for day, value in enumerate(capacity) if not np.isnan(value)]
    values = [capacity[day] for day in measured]
    filtered = [np.median(values[max(i - 3, 0) : i + 4]) for i in range(len(values))]
    for first in range(len(values) - 7):
        if all(filtered[first + k] < end_of_life for k in range(5)):
            return measured[first] + 1
    return None


@pytest.mark.parametrize("seed", range(25))
def test_the_rule_of_capacity_equals_loops_on_noisy_lives(seed):
    rng = np.random.default_rng(seed)
    capacity = 2600 - rng.uniform(2, 6) * np.arange(90) + rng.normal(0, 60, 90)
    capacity[rng.random(90) < 0.3] = np.nan
    life = daily(np.round(capacity), temp_avg=20.0)
    outcomes = label(life)
    expected = naive_capacity_rule(life.values[:, 0], END_OF_LIFE_MAH)

    if expected is None:
        assert np.isnan(outcomes.failed_at_s[0])
    else:
        assert failed_day(outcomes) == expected


# Confirmation


def test_a_failure_appears_only_once_the_readings_that_confirm_it_exist():
    life = daily(dropping(30))
    seen = {}
    for day in range(25, 60):
        outcomes = label(life.rows(life.at_s <= midnight(day)))
        seen[day] = failed_day(outcomes)

    assert all(np.isnan(seen[day]) for day in range(25, 37))
    assert all(seen[day] == 30 for day in range(37, 60))


def test_what_is_known_of_a_living_pack_ends_seven_measured_days_before_its_last():
    outcomes = label(daily(np.full(60, 2700.0)))

    assert outcomes.known_until_s.tolist() == [midnight(53)]
    assert np.isnan(outcomes.failed_at_s).all()


def test_a_silent_device_is_known_no_further_than_its_readings():
    life = daily(np.full(60, 2700.0))
    silent = label(life.rows(life.at_s <= midnight(40)), now_s=midnight(300))

    assert silent.known_until_s.tolist() == [midnight(33)]
    assert np.isnan(silent.failed_at_s).all()


def test_a_pack_that_nobody_could_judge_is_known_only_at_its_beginning():
    outcomes = label(readings(times(60), temp_avg=20.0))

    assert outcomes.known_until_s.tolist() == [midnight(1)]


# By shutdowns


def shutting_down(*, count, within_days=10, resistance=None, days=100, at_day=60):
    at_s = times(days)
    day = (at_s - START_S) / DAY
    counter = np.floor(np.clip((day - at_day) / within_days, 0, 1) * count)
    return readings(
        at_s,
        capacity=2800.0,
        shutdowns=counter,
        **({} if resistance is None else {"resistance": resistance(day)}),
    )


def test_six_shutdowns_in_three_weeks_are_a_failure_on_the_day_of_the_sixth():
    outcomes = label(shutting_down(count=6, within_days=10))

    assert failed_day(outcomes) == 70
    assert outcomes.cause.tolist() == [-1]


@pytest.mark.parametrize(("count", "within_days"), [(5, 10), (6, 26)], ids=["too few", "too slow"])
def test_fewer_or_slower_shutdowns_are_none(count, within_days):
    assert np.isnan(label(shutting_down(count=count, within_days=within_days)).failed_at_s).all()


def test_measured_resistance_must_have_grown_to_1_8_of_the_first():
    grown = label(shutting_down(count=8, resistance=lambda day: np.where(day > 50, 1.81, 1.0) * 80))
    not_grown = label(
        shutting_down(count=8, resistance=lambda day: np.where(day > 50, 1.79, 1.0) * 80)
    )

    assert failed_day(grown) == 68
    assert grown.cause.tolist() == [RESISTANCE]
    assert np.isnan(not_grown.failed_at_s).all()


def test_the_reference_of_resistance_is_what_the_pack_showed_first_however_old_it_was():
    """An aged pack at 1.3 of new needs 2.34 of new: the definition, with what follows from it."""
    aged = shutting_down(count=8, resistance=lambda day: 80 * np.where(day > 50, 2.3, 1.3))
    worse = shutting_down(count=8, resistance=lambda day: 80 * np.where(day > 50, 2.35, 1.3))

    assert np.isnan(label(aged).failed_at_s).all()
    assert failed_day(label(worse)) == 68


@pytest.mark.parametrize(
    ("remembered", "failures"), [(80.0, 1), (90.0, 0), (np.nan, 0)], ids=["new", "aged", "unknown"]
)
def test_what_a_device_remembers_of_its_packs_first_days_wins(remembered, failures):
    life = shutting_down(count=8, resistance=lambda day: np.where(day > 50, 150.0, 120.0))
    references = PackReferences(
        capacity_mah=np.nan, charge_duration_min=np.nan, resistance_mohm=remembered, since_s=0
    )

    failed_at_s = label(life, references=references).failed_at_s

    assert np.isfinite(failed_at_s).sum() == failures


def test_what_is_remembered_of_the_first_pack_says_nothing_of_its_successor():
    number = np.arange(1, 161)
    new = number >= 60
    life = daily(
        np.where(new, 2990.0, 2700.0),
        cycles=np.where(new, number - 60, 500 + number),
        resistance=np.where(number > 120, 150.0, 120.0),
        shutdowns=np.clip(number - 130, 0, 8),
    )
    references = PackReferences(
        capacity_mah=np.nan, charge_duration_min=np.nan, resistance_mohm=80.0, since_s=0
    )

    assert np.isnan(label(life, references=references).failed_at_s).tolist() == [True, True]


def test_resistance_that_is_not_measured_in_that_week_does_not_vote():
    life = shutting_down(count=8, resistance=lambda day: np.where(day > 50, np.nan, 80.0))

    assert failed_day(label(life)) == 68
    assert label(life).cause.tolist() == [-1]


def test_a_counter_that_restarts_counts_no_shutdown_twice():
    counter = np.concatenate([np.full(200, 40.0), np.zeros(200)])

    assert np.isnan(
        label(readings(times(100), capacity=2800.0, shutdowns=counter)).failed_at_s
    ).all()


# By the owner, and what is no failure


def answers(*rows):
    device, day, cause = zip(*rows, strict=True)
    return OwnerAnswers(
        np.array(device), np.array([midnight(d) for d in day]), np.array(cause, np.int8)
    )


def test_the_owners_word_is_a_failure_with_the_owners_cause():
    swelling = CAUSES.index("swelling")
    outcomes = label(daily(np.full(60, 2700.0)), answers=answers((0, 40, swelling)))

    assert failed_day(outcomes) == 40
    assert outcomes.cause.tolist() == [swelling]


def test_the_earliest_of_rules_and_answers_counts():
    life = daily(dropping(30))

    early = label(life, answers=answers((0, 50, 2), (0, 20, 3)))
    late = label(life, answers=answers((0, 50, 2)))

    assert (failed_day(early), early.cause[0]) == (20, 3)
    assert (failed_day(late), late.cause[0]) == (30, FADE)


def replaced(*, day, low=2700.0, days=120):
    number = np.arange(1, days + 1)
    new = number >= day
    capacity = np.where(new, 2990.0, np.where(number >= day - 20, low, 2700.0))
    return daily(capacity, cycles=np.where(new, number - day, 500 + number))


def test_a_replaced_pack_is_no_failure_by_itself_and_its_successor_starts_anew():
    outcomes = label(replaced(day=60))

    assert outcomes.pack.tolist() == [0, 1]
    assert np.isnan(outcomes.failed_at_s).all()
    assert outcomes.known_until_s.tolist() == [midnight(52), midnight(113)]


def test_a_pack_that_failed_before_it_was_replaced_is_a_failure():
    outcomes = label(replaced(day=60, low=2300.0))

    assert failed_day(outcomes, 0) == 40
    assert np.isnan(outcomes.failed_at_s[1])


def test_an_answer_belongs_to_the_pack_that_was_in_use():
    outcomes = label(replaced(day=60), answers=answers((0, 58, 1), (0, 90, 2)))

    assert ((outcomes.failed_at_s - START_S) / DAY).tolist() == [58, 90]
    assert outcomes.cause.tolist() == [1, 2]


def test_devices_are_labelled_as_if_alone():
    lives = [
        daily(dropping(30)),
        replaced(day=60, low=2300.0),
        shutting_down(count=8),
        daily(np.full(60, 2700.0)),
    ]
    whole = label(together(*lives), answers=answers((3, 44, 4)))

    for index, life in enumerate(lives):
        alone = label(life, answers=answers((0, 44, 4)) if index == 3 else None)
        rows = whole.device == index
        assert whole.pack[rows].tolist() == alone.pack.tolist()
        assert whole.cause[rows].tolist() == alone.cause.tolist()
        assert whole.known_until_s[rows].tolist() == alone.known_until_s.tolist()
        assert np.array_equal(whole.failed_at_s[rows], alone.failed_at_s, equal_nan=True)


def test_without_readings_there_are_no_packs():
    assert len(label(readings(np.zeros(0))).device) == 0
