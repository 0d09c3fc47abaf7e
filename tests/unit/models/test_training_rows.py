"""Which rows teach, and what of."""

import numpy as np
import pytest

from models.featurize import featurize
from models.hazard_bins import exposure
from models.telemetry import CAUSES, Outcomes
from models.training_rows import (
    PackOutcomes,
    TrainingRows,
    cause_index,
    first_packs,
    training_rows,
)
from tests.support.fleets import DAY, START_S, profiles, readings, times, together
from tests.support.naive_exposure import naive_exposure


def test_a_failure_after_the_last_edge_is_survival_of_every_bin():
    share, event_bin = exposure(np.array([1500.0]), np.array([True]))

    assert event_bin.tolist() == [-1]
    assert (share == 1).all()


def table_of(*days):
    lives = [
        readings(times(number), device_id=f"d{i}", capacity=2900.0) for i, number in enumerate(days)
    ]
    return featurize(together(*lives), profiles(len(days)))


def outcomes_of(*rows):
    device, pack, until, failed, cause = zip(*rows, strict=True)
    return PackOutcomes(
        np.array(device),
        np.array(pack),
        START_S + np.array(until, np.int64) * DAY,
        START_S + np.array(failed, float) * DAY,
        np.array(cause, np.int8),
    )


def test_rows_end_before_the_failure_and_before_what_is_known():
    table = table_of(100, 100, 100)
    outcomes = outcomes_of((0, 0, 90, 60, 1), (1, 0, 80, np.nan, -1))
    rows = training_rows(table, outcomes, least_rows=1)

    assert np.bincount(rows.device).tolist() == [60 - 28 - 1, 80 - 28 - 1]
    failing = rows.take(rows.device == 0)
    days_left = 60 - np.arange(29, 60)
    expected = [naive_exposure(days, True) for days in days_left]
    assert failing.event_bin.tolist() == [event for _, event in expected]
    assert failing.exposure == pytest.approx(np.array([share for share, _ in expected]), abs=1e-6)
    assert (failing.cause == 1).all()
    censored = rows.take(rows.device == 1)
    assert (censored.event_bin == -1).all()
    assert (censored.cause == -1).all()
    assert censored.exposure[-1] == pytest.approx(naive_exposure(1, False)[0])


def test_only_rows_that_are_ok_teach():
    table = table_of(100)
    rows = training_rows(table, outcomes_of((0, 0, 95, np.nan, -1)), least_rows=1)

    assert len(rows) == (table.is_ok() & (table.as_of_s < START_S + 95 * DAY)).sum()
    assert len(rows) < 95


def test_the_latest_rows_of_a_device_are_kept_and_devices_with_few_teach_nothing():
    table = table_of(300, 150)
    outcomes = outcomes_of((0, 0, 290, np.nan, -1), (1, 0, 140, np.nan, -1))
    rows = training_rows(table, outcomes, max_rows=200, least_rows=180)

    assert np.bincount(rows.device).tolist() == [200]
    whole = training_rows(table, outcomes, max_rows=None, least_rows=1)
    own = np.flatnonzero(whole.device == 0)[-200:]
    assert np.array_equal(rows.exposure, whole.exposure[own])


def test_days_count_back_from_the_newest_row_so_that_gaps_do_not_reach_further():
    silent = times(400)[(times(400) < START_S + 200 * DAY) | (times(400) > START_S + 300 * DAY)]
    table = featurize(readings(silent, capacity=2900.0), profiles())
    outcomes = outcomes_of((0, 0, 399, np.nan, -1))
    whole = training_rows(table, outcomes, max_rows=None, least_rows=1)
    rows = training_rows(table, outcomes, max_rows=250, least_rows=1)

    used = np.flatnonzero(table.is_ok() & (table.as_of_s < START_S + 399 * DAY))
    newest_s = int(table.as_of_s[used[-1]])
    recent = table.as_of_s[used] > newest_s - 250 * DAY
    assert len(whole) == len(used)
    assert len(rows) == recent.sum() < 250
    assert np.array_equal(rows.exposure, whole.exposure[recent])
    assert len(training_rows(table, outcomes, max_rows=250, least_rows=len(rows))) == len(rows)
    assert len(training_rows(table, outcomes, max_rows=250, least_rows=len(rows) + 1)) == 0


def test_rows_of_a_later_pack_learn_of_that_pack_alone():
    day = np.arange(1, 161)
    new = day > 80
    life = readings(
        times(160, per_day=1),
        capacity=np.where(new, 2980.0, 2500.0),
        cycles=np.where(new, day - 81, 500 + day),
    )
    table = featurize(life, profiles())
    outcomes = outcomes_of((0, 0, 79, 70, 2), (0, 1, 150, np.nan, -1))
    rows = training_rows(table, outcomes, least_rows=1)

    failing = rows.event_bin >= 0
    assert failing.tolist() == [True] * failing.sum() + [False] * (~failing).sum()
    assert (rows.cause[failing] == 2).all()
    # Day 1 is the first reading, so rows of the first pack are 29 … 69 days old.
    assert failing.sum() == 41
    assert (~failing).sum() == 150 - (80 + 28)


def test_packs_that_are_not_listed_teach_nothing():
    none = PackOutcomes(*(np.zeros(0, kind) for kind in (int, int, np.int64, float, np.int8)))

    assert len(training_rows(table_of(60), none, least_rows=1)) == 0


def test_tables_are_stacked_without_mixing_devices():
    first = training_rows(table_of(60, 60), outcomes_of((1, 0, 50, np.nan, -1)), least_rows=1)
    both = TrainingRows.concatenate([first, first])

    assert set(first.device.tolist()) == {1}
    assert set(both.device.tolist()) == {1, 3}
    assert len(both) == 2 * len(first)


def test_outcomes_of_a_fleet_are_those_of_the_first_packs():
    outcomes = Outcomes(
        ("a", "b"),
        np.array([10, 20]),
        np.array([np.nan, 15.0]),
        np.array([None, "swelling"], dtype=object),
    )
    packs = first_packs(outcomes)

    assert packs.pack.tolist() == [0, 0]
    assert packs.cause.tolist() == [-1, CAUSES.index("swelling")]
    assert [cause_index(c) for c in (None, "unheard of", *CAUSES)] == [-1, -1, 0, 1, 2, 3, 4]
