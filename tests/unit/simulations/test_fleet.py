"""The fleet as a whole: its public face, its repeatability, its files."""

import json
from dataclasses import replace

import numpy as np
import pytest

import simulations
from models.fleet_dataset import open_fleet
from models.telemetry import CAUSES, SECONDS_PER_DAY
from simulations import FleetRecipe, simulate_fleet
from simulations.fleet import simulate_blocks, simulate_devices
from simulations.fleet_writing import write_simulated_fleet

RECIPE = FleetRecipe()


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=60, num_days=150, seed=5)


def same(left, right):
    return np.array_equal(
        np.ascontiguousarray(left).view(np.uint8), np.ascontiguousarray(right).view(np.uint8)
    )


def test_public_names_are_these():
    assert {"simulate_fleet", "FleetRecipe", "SimulatedFleet"} <= set(simulations.__all__)
    for name in simulations.__all__:
        assert getattr(simulations, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'simulate_ships'"):
        simulations.simulate_ships  # noqa: B018 - asking is the test


@pytest.mark.parametrize("indices", [[7], [59, 0, 31], [12, 13, 14, 15, 16]])
def test_device_alone_is_bit_for_bit_the_device_in_its_fleet(fleet, indices):
    alone = simulate_devices(np.array(indices), num_days=150, seed=5)

    for row, index in enumerate(indices):
        here = fleet.telemetry.devices(index, index + 1)
        there = alone.telemetry.devices(row, row + 1)
        assert here.device_ids == there.device_ids
        assert same(here.at_s, there.at_s)
        assert same(here.values, there.values)
        assert fleet.profiles[index] == alone.profiles[row]
        assert same(fleet.truth.capacity_mah[index], alone.truth.capacity_mah[row])
        assert same(fleet.outcomes.failed_at_s[index], alone.outcomes.failed_at_s[row])


@pytest.mark.slow
def test_size_of_blocks_changes_nothing(fleet):
    blocks = list(simulate_blocks(num_devices=60, num_days=150, seed=5, devices_a_block=17))

    assert len(blocks) == 4
    assert same(np.concatenate([b.telemetry.values for b in blocks]), fleet.telemetry.values)
    assert same(np.concatenate([b.telemetry.at_s for b in blocks]), fleet.telemetry.at_s)


def test_another_seed_is_another_fleet_with_other_names(fleet):
    other = simulate_fleet(num_devices=60, num_days=150, seed=6)

    assert not set(other.telemetry.device_ids) & set(fleet.telemetry.device_ids)
    assert not np.array_equal(other.truth.capacity_mah, fleet.truth.capacity_mah, equal_nan=True)


def test_profiles_and_outcomes_fit_the_telemetry(fleet):
    ids = fleet.telemetry.device_ids

    assert tuple(fleet.profiles.device_id.tolist()) == ids == fleet.outcomes.device_ids
    assert list(ids) == sorted(ids)
    assert (fleet.profiles.manufactured_at_s < RECIPE.start_at.timestamp()).all()
    share = fleet.profiles.end_of_life_capacity_mah / fleet.profiles.design_capacity_mah
    assert share.min() >= 0.699
    assert share.max() <= 0.851
    failed = np.isfinite(fleet.outcomes.failed_at_s)
    assert all(
        (cause in CAUSES) == known
        for cause, known in zip(fleet.outcomes.primary_cause, failed, strict=True)
    )


def test_silent_devices_send_nothing_after_their_failure():
    deadly = replace(RECIPE, sudden_deaths_a_year=3.0, clock_fault_interval_days=1e6)
    fleet = simulate_fleet(num_devices=80, num_days=120, seed=1, recipe=deadly)
    silent = np.flatnonzero(fleet.truth.is_silent & np.isfinite(fleet.outcomes.failed_at_s))

    assert len(silent) > 20
    for device in silent:
        at_s = fleet.telemetry.devices(device, device + 1).at_s
        first_pack_only = fleet.truth.pack_number[device].max() == 0
        if first_pack_only and len(at_s):
            assert at_s.max() < fleet.outcomes.failed_at_s[device] + 1


@pytest.mark.parametrize(("devices", "days"), [(0, 10), (-1, 10), (5, 0)])
def test_empty_fleets_are_refused(devices, days):
    with pytest.raises(ValueError, match="must be between 1"):
        simulate_fleet(num_devices=devices, num_days=days, seed=0)


def test_written_fleet_is_the_simulated_one(tmp_path, fleet):
    done = []

    written = write_simulated_fleet(
        tmp_path / "fleet",
        num_devices=60,
        num_days=150,
        seed=5,
        recipe=RECIPE,
        on_devices_done=done.append,
    )

    read = open_fleet(tmp_path / "fleet")
    telemetry = read.telemetry()
    assert sum(done) == 60
    assert written.readings == len(telemetry) == len(fleet.telemetry)
    assert np.array_equal(telemetry.at_s, fleet.telemetry.at_s)
    assert np.array_equal(telemetry.values, fleet.telemetry.values, equal_nan=True)
    assert np.array_equal(read.outcomes().failed_at_s, fleet.outcomes.failed_at_s, equal_nan=True)
    made_of = json.loads((tmp_path / "fleet" / "simulation.json").read_text())
    assert FleetRecipe.of(made_of["recipe"]) == RECIPE
    assert made_of["seed"] == 5


@pytest.mark.slow
def test_truth_of_joined_blocks_keeps_packs_with_their_devices():
    worn = replace(RECIPE, fade_scale=2.0)
    whole = simulate_fleet(num_devices=280, num_days=120, seed=2, recipe=worn).truth

    assert whole.packs.device.max() == 279
    assert (np.diff(whole.packs.device) >= 0).all()
    assert whole.first_packs.device.tolist() == list(range(280))
    later = whole.packs.pack_number > 0
    assert later.any()
    day = ((whole.packs.installed_at_s - whole.day_start_s[0]) // SECONDS_PER_DAY)[later]
    devices = whole.packs.device[later]
    number = whole.pack_number[devices, day]
    assert ((number == whole.packs.pack_number[later]) | (number == -1)).all()
