"""Lives alone: the same fleet as the one that is measured, in blocks of any size, on any cores."""

from dataclasses import fields

import numpy as np
import pytest

from simulations import FleetRecipe, simulate_fleet
from simulations.physics import live_fleet
from simulations.prevalence import summarise
from simulations.truth import FleetTruth

WORN = FleetRecipe(fade_scale=2.0, owner_replaced_worn_a_year=1.0)


def packs_of(**settings):
    blocks = live_fleet(num_devices=70, num_days=180, seed=12, recipe=WORN, **settings)
    return FleetTruth.joined(list(blocks))


@pytest.fixture(scope="module")
def alone():
    return packs_of()


def same(left, right):
    return all(
        np.array_equal(getattr(left.packs, f.name), getattr(right.packs, f.name))
        for f in fields(left.packs)
    )


def test_lives_alone_end_as_those_that_are_measured(alone):
    measured = simulate_fleet(num_devices=70, num_days=180, seed=12, recipe=WORN).truth

    assert alone.packs.pack_number.max() >= 2
    assert same(alone, measured)
    assert np.array_equal(alone.is_silent, measured.is_silent)
    assert np.array_equal(alone.retired_at_s, measured.retired_at_s, equal_nan=True)
    assert np.array_equal(alone.day_start_s, measured.day_start_s)
    assert summarise(alone) == summarise(measured)


def test_daily_states_are_left_out(alone):
    assert alone.capacity_mah.shape == (70, 0)


@pytest.mark.parametrize("devices_a_block", [9, 33])
def test_size_of_blocks_changes_nothing(alone, devices_a_block):
    assert same(packs_of(devices_a_block=devices_a_block), alone)


@pytest.mark.slow
def test_number_of_processes_changes_nothing(alone):
    assert same(packs_of(devices_a_block=9, processes=2), alone)


def test_no_process_is_refused():
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        list(live_fleet(num_devices=1, num_days=1, seed=0, processes=0))
