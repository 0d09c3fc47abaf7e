"""Laws of wear: closed forms, what a mixed block is, and which measurement is which chemistry's."""

from dataclasses import replace

import numpy as np
import pytest

from simulations import FleetRecipe
from simulations.chemistries import KELVIN, LAWS, Stress, law_of
from simulations.chemistries.nmc_50ah_b1 import anode_potential
from simulations.degradation import CellTraits, Wear, advance_one_day
from simulations.fleet import simulate_devices
from simulations.manufacturing import DEVICE_MODELS

MIXED = FleetRecipe(device_model_mix=(1, 1, 0, 0, 0, 0, 2, 2, 2))


def traits(count, **changed):
    one = np.ones(count)
    plain = CellTraits(one, one, one, 0.0 * one, one, one)
    return replace(plain, **{name: value * one for name, value in changed.items()})


def stress(law, *, charge, celsius, depth, count=1):
    charges = np.full((4, count), charge)
    return Stress(
        state_of_charge=charges,
        voltage_v=law.open_circuit_voltage(charges),
        inverse_kelvin=np.full((4, count), 1.0 / (celsius + KELVIN)),
        depth_of_discharge=np.full(count, depth),
        full_cycles=np.full(count, depth),
    )


def after(law, days, *, charge=0.6, celsius=25.0, depth=0.5, **changed):
    wear = Wear.new(1)
    rates = law.rates(stress(law, charge=charge, celsius=celsius, depth=depth))
    for _ in range(days):
        advance_one_day(
            wear,
            law=law,
            rates=rates,
            traits=traits(1, **changed),
            full_cycles=np.array([depth]),
            capacity=law.capacity(wear),
        )
    return law.capacity(wear)[0], law.resistance(wear, knee_gain=1.5)[0], wear.full_cycles[0]


def test_lfp_loses_what_its_equation_says():
    """Loss % = 31630 exp(-(31700 - 370.3 / 2) / (8.314 T)) Ah^0.55, discharged, up to C/2."""
    q, _, _ = after(LAWS["LFP"], 400)

    ah = 400 * 2.2 * 0.5
    loss = 0.01 * 31_630 * np.exp(-(31_700 - 185.15) / (8.314 * 298.15)) * ah**0.55
    assert 1 - q == pytest.approx(loss, rel=0.02)  # the device moves a share of what is left
    assert 1 - q < loss


def test_nca_loses_what_its_equation_says():
    q, _, _ = after(LAWS["NCA"], 300, depth=0.4)

    calendar = 75.4 * np.exp(-3340 / 298.15) * np.exp(353 * 0.6 / 298.15) * 300**0.512
    cycles = 2 * (1.86e-6 + 1.77e-4 * 0.4) * (300 * 0.4) ** 0.699
    assert 1 - q == pytest.approx(calendar + cycles, rel=0.005)


def test_large_nmc_cell_loses_what_its_equation_says():
    q, _, _ = after(LAWS["NMC-50Ah-B1"], 300, depth=0.4)

    heat = 298.15 / 308.15
    anode = (anode_potential(np.array(0.6)) / 0.123) ** (1 / 3)
    calendar = 36.2 * np.exp(-4.4 * anode / heat**3) * (300 / 1e4) ** 0.708
    rate = 0.844 * (0.4**2 * heat**3 * np.sqrt(0.4 / 12)) ** 0.458
    assert 1 - q == pytest.approx(calendar + rate * (120 / 1e5) ** 0.467, rel=0.01)


def test_anode_potential_is_that_of_graphite():
    """A plateau near 0.12 V at half charge (0.123 V in the law), steep below a tenth."""
    potential = anode_potential(np.array([0.0, 0.1, 0.5, 0.9]))

    assert potential[2] == pytest.approx(0.123, abs=0.01)
    assert (np.diff(potential) < 0).all()
    assert potential[0] > 0.4


def test_two_years_differ_by_chemistry_as_published():
    """Several times between NMC111 of 2014 and the rest, at 25 degrees and 0.6 cycles a day."""
    loss = {name: 1 - after(law, 728, depth=0.6)[0] for name, law in LAWS.items()}

    assert loss["NMC111"] == max(loss.values())
    assert 2 < loss["NMC111"] / loss["NCA"] < 5
    assert 2 < loss["NMC111"] / loss["LFP"] < 6


@pytest.mark.parametrize("name", ["NCA", "NMC-50Ah-B1", "LFP"])
def test_resistance_without_a_law_grows_with_the_loss(name):
    q, r, cycles = after(LAWS[name], 200, growth_factor=1.3)

    assert r - 1 == pytest.approx(1.3 * LAWS[name].growth_by_loss * (1 - q))
    assert cycles == pytest.approx(100)


@pytest.mark.parametrize("name", list(LAWS))
def test_factors_of_a_pack_scale_its_loss(name):
    plain, _, _ = after(LAWS[name], 100)
    quick, _, _ = after(LAWS[name], 100, fade_factor=1.5)

    assert (1 - quick) / (1 - plain) == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize("name", list(LAWS))
def test_knee_speeds_up_any_chemistry(name):
    smooth, _, _ = after(LAWS[name], 300)
    kneed, _, _ = after(LAWS[name], 300, knee_soh=smooth + 0.005, knee_rate=3.0)

    assert kneed < smooth - 0.002


def test_law_of_one_chemistry_is_that_law():
    assert law_of(["NCA"] * 5) is LAWS["NCA"]


def test_mixed_block_asks_each_devices_own_law():
    names = ["LFP", "NMC111", "NCA", "LFP", "NMC-50Ah-B1"]
    mixed = law_of(names)

    rates = mixed.rates(stress(mixed, charge=0.7, celsius=30.0, depth=0.5, count=5))

    for place, name in enumerate(names):
        alone = LAWS[name].rates(stress(LAWS[name], charge=0.7, celsius=30.0, depth=0.5))
        for whole, own in zip(rates, alone, strict=True):
            assert whole[place] == own[0]


def test_device_of_a_mixed_fleet_is_the_same_alone():
    fleet = simulate_devices(np.arange(40), num_days=90, seed=8, recipe=MIXED)
    names = fleet.profiles.chemistry

    assert set(names) == set(LAWS)
    for name in LAWS:
        place = int(np.flatnonzero(names == name)[0])
        alone = simulate_devices(np.array([place]), num_days=90, seed=8, recipe=MIXED)
        whole = fleet.telemetry.devices(place, place + 1)
        assert np.array_equal(alone.telemetry.values, whole.values, equal_nan=True)
        assert np.array_equal(
            alone.truth.capacity_mah[0], fleet.truth.capacity_mah[place], equal_nan=True
        )


def test_profile_names_the_chemistry_of_the_device_model():
    fleet = simulate_devices(np.arange(60), num_days=5, seed=3, recipe=MIXED)
    chemistry = {model.name: model.chemistry for model in DEVICE_MODELS}

    for model, name in zip(fleet.profiles.device_model, fleet.profiles.chemistry, strict=True):
        assert chemistry[model] == name


def test_lfp_never_swells():
    recipe = FleetRecipe(device_model_mix=(0, 0, 0, 0, 0, 0, 1), swelling_a_year=5.0)
    fleet = simulate_devices(np.arange(20), num_days=100, seed=1, recipe=recipe)

    assert np.nanmax(fleet.truth.swelling) == 0.0
