"""Features know nothing of what comes later, of the company they are in, or of lost beginnings."""

import numpy as np
import pytest

from models.feature_spec import FEATURE_NAMES
from models.featurize import PackReferences, featurize, featurize_now
from models.telemetry import Telemetry
from tests.support.fleets import (
    DAY,
    START_S,
    profiles,
    random_life,
    readings,
    simulated_fleet,
    times,
    together,
)
from tests.support.naive_features import naive_features

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": True}
UNTIDY = (1, 4, 7, 12, 20, 33)


def lives():
    return [random_life(seed, device_id=f"d{index}") for index, seed in enumerate(UNTIDY)]


def same_rows(table, rows, other, other_rows, **tolerance):
    return (
        np.allclose(table.features[rows], other.features[other_rows], **(TOLERANCE | tolerance))
        and (table.status[rows] == other.status[other_rows]).all()
        and (table.pack[rows] == other.pack[other_rows]).all()
    )


@pytest.mark.parametrize("seed", UNTIDY)
def test_features_of_a_moment_are_the_same_without_all_that_comes_later(seed):
    life = random_life(seed)
    whole = featurize(life, profiles())

    for row in range(20, len(whole.status), 17):
        as_of_s = int(whole.as_of_s[row])
        cut = featurize_now(life.rows(life.at_s <= as_of_s), profiles(), now_s=as_of_s)
        assert same_rows(whole, [row], cut, [0])


@pytest.mark.slow
def test_a_simulated_fleet_knows_nothing_of_its_future():
    fleet = simulated_fleet()
    whole = featurize(fleet.telemetry, fleet.profiles)
    tidy = chronological(fleet.telemetry)

    compared = 0
    for day in (45, 120, 200, 250):
        as_of_s = int(fleet.truth.day_start_s[0]) + day * DAY
        cut = featurize(fleet.telemetry.rows(fleet.telemetry.at_s <= as_of_s + DAY), fleet.profiles)
        rows = np.flatnonzero((whole.as_of_s == as_of_s) & tidy[whole.device])
        found = np.flatnonzero((cut.as_of_s == as_of_s) & np.isin(cut.device, whole.device[rows]))
        assert cut.device[found].tolist() == whole.device[rows].tolist()
        assert same_rows(whole, rows, cut, found)
        compared += len(rows)
    assert compared > 120


@pytest.mark.slow
def test_clocks_that_jump_are_the_only_way_in_which_the_future_shows_and_a_rare_one():
    fleet = simulated_fleet()
    whole = featurize(fleet.telemetry, fleet.profiles)
    differing = compared = 0
    for day in range(30, 260, 30):
        as_of_s = int(fleet.truth.day_start_s[0]) + day * DAY
        cut = featurize_now(fleet.telemetry, fleet.profiles, now_s=as_of_s)
        rows = np.flatnonzero(whole.as_of_s == as_of_s)
        found = np.searchsorted(cut.device, whole.device[rows])
        close = np.isclose(whole.features[rows], cut.features[found], **TOLERANCE).all(axis=1)
        differing, compared = differing + (~close).sum(), compared + len(rows)

    assert compared > 300
    assert differing / compared < 0.01


def chronological(telemetry: Telemetry):
    falls = np.diff(telemetry.at_s) < 0
    device = telemetry.device_of_row()
    falls &= device[1:] == device[:-1]
    tidy = np.ones(len(telemetry.device_ids), bool)
    tidy[device[1:][falls]] = False
    return tidy


def test_a_fleet_is_computed_as_each_device_alone():
    whole = featurize(together(*lives()), profiles(len(UNTIDY)))

    for index, life in enumerate(lives()):
        alone = featurize(life, profiles())
        rows = np.flatnonzero(whole.device == index)
        assert whole.as_of_s[rows].tolist() == alone.as_of_s.tolist()
        assert same_rows(whole, rows, alone, slice(None), rtol=1e-6, atol=1e-6)


def test_readings_that_arrive_a_little_late_change_nothing():
    life = readings(times(90), capacity=3000 - np.arange(360.0), usage=1.0, cycles=np.arange(360))
    order = np.arange(360)
    for first in range(10, 350, 20):
        order[first], order[first + 1] = first + 1, first
    shuffled = Telemetry(life.device_ids, life.offsets, life.at_s[order], life.values[order])
    tidy, untidy = featurize(life, profiles()), featurize(shuffled, profiles())

    assert np.array_equal(tidy.features, untidy.features, equal_nan=True)
    assert untidy.audit.noted["out_of_order"] == 17


def test_readings_that_are_stored_twice_change_nothing():
    life = random_life(4)
    twice = np.repeat(np.arange(len(life)), np.where(np.arange(len(life)) % 7 == 0, 2, 1))
    doubled = Telemetry(
        life.device_ids, np.array([0, len(twice)]), life.at_s[twice], life.values[twice]
    )

    assert np.array_equal(
        featurize(life, profiles()).features,
        featurize(doubled, profiles()).features,
        equal_nan=True,
    )


@pytest.mark.parametrize("hours", [0, 5, 17])
def test_a_moment_between_midnights_adds_the_day_that_runs(hours):
    life = random_life(7)
    now_s = START_S + 100 * DAY + hours * 3600
    now = featurize_now(life, profiles(), now_s=now_s)

    known = life.rows(life.at_s <= now_s)
    expected, _ = naive_features(known, profiles()[0], -(-now_s // DAY) * DAY)
    age = expected.pop("days_since_manufacture")
    found = dict(zip(FEATURE_NAMES, now.features[0].astype(float), strict=True))
    assert found.pop("days_since_manufacture") == pytest.approx(age - (24 - hours) % 24 / 24)
    assert found == pytest.approx(expected, rel=2e-4, abs=2e-4, nan_ok=True)


def references_of(table, row):
    return PackReferences(
        capacity_mah=float(table.capacity_reference_mah[row]),
        charge_duration_min=float(table.charge_reference_min[row]),
        resistance_mohm=float(table.resistance_reference_mohm[row]),
        since_s=int(table.pack_since_s[row]),
    )


def aging_life(days=400):
    at_s = times(days)
    day = (at_s - START_S) / DAY
    return readings(
        at_s,
        capacity=3000 - 1.1 * day,
        cycles=np.floor(day),
        charge=60 + 0.05 * day,
        temp_max=30.0,
        temp_avg=25.0,
        shutdowns=0.0,
        usage=1.0,
        resistance=80 + 0.1 * day,
    )


def test_kept_references_give_the_features_of_the_whole_history_when_the_ring_has_lost_it():
    life = aging_life()
    now_s = START_S + 400 * DAY
    whole = featurize_now(life, profiles(), now_s=now_s)
    ring = life.rows(life.at_s > now_s - 180 * DAY)
    kept = featurize_now(ring, profiles(), now_s=now_s, references=references_of(whole, 0))
    forgetful = featurize_now(ring, profiles(), now_s=now_s)

    assert same_rows(whole, slice(None), kept, slice(None))
    assert kept.capacity_reference_mah == whole.capacity_reference_mah
    assert kept.pack_since_s == whole.pack_since_s
    assert not np.allclose(forgetful.features, whole.features, **TOLERANCE)


def test_kept_references_are_not_those_of_a_pack_that_was_put_in_later():
    life = aging_life(200)
    new = life.at_s > START_S + 150 * DAY
    life.values[:, 0] -= np.where(new, 0, 300)
    life.values[new, 0] = 2950.0
    life.values[new, 1] = np.arange(new.sum()) // 4
    old = PackReferences(3000.0, 60.0, 80.0, START_S - 500 * DAY)
    now = featurize_now(life, profiles(), now_s=START_S + 200 * DAY, references=old)

    assert now.pack.tolist() == [1]
    assert now.capacity_reference_mah.tolist() == [2950]
    assert now.pack_since_s.tolist() == [START_S + 150 * DAY]


def test_a_reference_that_was_never_known_is_taken_from_what_is_read():
    life = aging_life(60)
    unknown = PackReferences(2990.0, float("nan"), float("nan"), START_S - DAY)
    now = featurize_now(life, profiles(), now_s=START_S + 60 * DAY, references=unknown)
    fresh = featurize_now(life, profiles(), now_s=START_S + 60 * DAY)

    assert now.capacity_reference_mah.tolist() == [2990]
    assert now.charge_reference_min.tolist() == fresh.charge_reference_min.tolist()
    assert now.resistance_reference_mohm.tolist() == fresh.resistance_reference_mohm.tolist()
