"""Invariants of wear and of keyed random numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulations.counter_random import Channel, KeyedRandom
from simulations.degradation import (
    CellTraits,
    Wear,
    advance_one_day,
    open_circuit_voltage,
    rates_of,
)

temperatures = st.floats(-20.0, 55.0)
charges = st.floats(0.05, 1.0)
depths = st.floats(0.01, 0.9)


def age(*, days, temperature_c, charge, depth, knee_soh=0.85):
    one = np.ones(1)
    traits = CellTraits(one, one, one, knee_soh * one, 2.5 * one, one)
    wear, seen = Wear.new(1), [(1.0, 1.0)]
    rates = rates_of(
        voltage_v=open_circuit_voltage(np.full((4, 1), charge)),
        temperature_c=np.full((4, 1), temperature_c),
        depth_of_discharge=depth * one,
    )
    for _ in range(days):
        advance_one_day(
            wear,
            rates=rates,
            traits=traits,
            full_cycles=depth * one,
            throughput_ah=4.3 * depth * wear.capacity(),
        )
        seen.append((wear.capacity()[0], wear.resistance(knee_gain=1.5)[0]))
    return np.array(seen)


@given(temperature_c=temperatures, charge=charges, depth=depths)
def test_capacity_only_falls_and_resistance_only_grows(temperature_c, charge, depth):
    seen = age(days=40, temperature_c=temperature_c, charge=charge, depth=depth)

    assert (np.diff(seen[:, 0]) <= 0).all()
    assert (np.diff(seen[:, 1]) >= 0).all()
    assert (seen[:, 0] > 0).all()


@given(temperature_c=temperatures, charge=charges, depth=depths, more=st.floats(0.5, 15.0))
def test_heat_never_helps(temperature_c, charge, depth, more):
    cool = age(days=20, temperature_c=temperature_c, charge=charge, depth=depth)
    warm = age(days=20, temperature_c=temperature_c + more, charge=charge, depth=depth)

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
