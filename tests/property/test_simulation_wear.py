"""Invariants of wear and of keyed random numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulations.chemistries import KELVIN, LAWS, Stress
from simulations.counter_random import Channel, KeyedRandom
from simulations.degradation import CellTraits, Wear, advance_one_day

temperatures = st.floats(-20.0, 55.0)
charges = st.floats(0.05, 1.0)
depths = st.floats(0.01, 0.9)
laws = st.sampled_from(list(LAWS.values()))


def age(law, *, days, temperature_c, charge, depth, knee_soh=0.85):
    one = np.ones(1)
    traits = CellTraits(one, one, one, knee_soh * one, 2.5 * one, one)
    wear, seen = Wear.new(1), [(1.0, 1.0)]
    charges = np.full((4, 1), charge)
    stress = Stress(
        state_of_charge=charges,
        voltage_v=law.open_circuit_voltage(charges),
        inverse_kelvin=np.full((4, 1), 1.0 / (temperature_c + KELVIN)),
        depth_of_discharge=depth * one,
        full_cycles=depth * one,
    )
    rates = law.rates(stress)
    for _ in range(days):
        advance_one_day(
            wear,
            law=law,
            rates=rates,
            traits=traits,
            full_cycles=depth * one,
            capacity=law.capacity(wear),
        )
        seen.append((law.capacity(wear)[0], law.resistance(wear, knee_gain=1.5)[0]))
    return np.array(seen)


@given(law=laws, temperature_c=temperatures, charge=charges, depth=depths)
def test_capacity_only_falls_and_resistance_only_grows(law, temperature_c, charge, depth):
    seen = age(law, days=40, temperature_c=temperature_c, charge=charge, depth=depth)

    assert (np.diff(seen[:, 0]) <= 0).all()
    assert (np.diff(seen[:, 1]) >= -1e-15).all()
    assert (seen[:, 0] > 0).all()


@given(
    law=laws,
    temperature_c=temperatures,
    charge=st.floats(0.2, 1.0),
    depth=depths,
    more=st.floats(0.5, 15.0),
)
def test_heat_never_helps(law, temperature_c, charge, depth, more):
    cool = age(law, days=20, temperature_c=temperature_c, charge=charge, depth=depth)
    warm = age(law, days=20, temperature_c=temperature_c + more, charge=charge, depth=depth)

    assert (warm[:, 0] <= cool[:, 0] + 1e-12).all()
    assert (warm[:, 1] >= cool[:, 1] - 1e-12).all()


@given(
    seed=st.integers(0, 2**64 - 1),
    device=st.integers(0, 2**40),
    channel=st.sampled_from(list(Channel)),
    counter=st.integers(0, 2**31),
)
def test_number_depends_on_its_address_alone(seed, device, channel, counter):
    neighbours = np.array([device + 1, device, device + 2], np.int64)
    together = KeyedRandom(seed=seed, device_indices=neighbours).normal(channel, counter)
    alone = KeyedRandom(seed=seed, device_indices=neighbours[1:2]).normal(channel, counter)

    assert together[1] == alone[0]
    assert np.isfinite(together).all()
