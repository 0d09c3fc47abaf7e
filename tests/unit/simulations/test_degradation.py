import json
from pathlib import Path

import numpy as np
import pytest

from simulations.chemistries import KELVIN, LAWS, Stress
from simulations.degradation import CellTraits, Wear, advance_one_day

GOLDEN = Path(__file__).parents[2] / "golden" / "chemistry_wear.json"
HOURS = np.array([0.0, 6.0, 12.0, 18.0])
# From 95 % at midnight to 35 % at noon and back.
CHARGE = np.array([0.95, 0.65, 0.35, 0.65])
DEPTH = 0.6
NMC111 = LAWS["NMC111"]


def cells(count=1, *, knee_soh=0.0, knee_rate=1.0):
    one = np.ones(count)
    return CellTraits(one, one, one, knee_soh * one, knee_rate * one, one)


def daily_swing(mean_c, half_range_c):
    """Warmest at three in the afternoon."""
    return mean_c + half_range_c * np.cos(2 * np.pi * (HOURS - 15.0) / 24.0)


def stress_of(charge, temperature_c, *, depth, full_cycles, law=NMC111):
    return Stress(
        state_of_charge=charge,
        voltage_v=law.open_circuit_voltage(charge),
        inverse_kelvin=1.0 / (temperature_c + KELVIN),
        depth_of_discharge=depth,
        full_cycles=full_cycles,
    )


def live_at(temperature_of_day, *, days, traits=None, law=NMC111):
    """Age cells that spend 60 % of their capacity a day; return q and r after each of `days`."""
    traits = cells() if traits is None else traits
    wear, seen = Wear.new(1), []
    depth = np.array([DEPTH])
    for day in range(max(days)):
        stress = stress_of(
            CHARGE[:, None],
            temperature_of_day(day)[:, None],
            depth=depth,
            full_cycles=depth,
            law=law,
        )
        advance_one_day(
            wear,
            law=law,
            rates=law.rates(stress),
            traits=traits,
            full_cycles=depth,
            capacity=law.capacity(wear),
        )
        if day + 1 in days:
            seen.append((law.capacity(wear)[0], law.resistance(wear, knee_gain=1.5)[0]))
    return np.array(seen)


@pytest.mark.parametrize("climate", ["temperate", "continental", "cold", "hot-arid", "tropical"])
@pytest.mark.parametrize("chemistry", ["NMC111", "NCA", "NMC-50Ah-B1"])
def test_wear_agrees_with_an_independent_implementation(chemistry, climate):
    golden = json.loads(GOLDEN.read_text())
    stress, expected = golden["climates"][climate], golden["wear"][chemistry][climate]

    def temperature(day):
        season = np.cos(2 * np.pi * (day - stress["warmest_day"]) / 365.25)
        mean = stress["mean_c"] + stress["seasonal_c"] * season
        return daily_swing(mean, stress["daily_c"])

    wear = live_at(temperature, days=golden["days"], law=LAWS[chemistry])

    np.testing.assert_allclose(wear[:, 0], expected["q"], atol=0.003)
    if "r" in expected:
        np.testing.assert_allclose(wear[:, 1], expected["r"], atol=0.003)


@pytest.mark.parametrize(
    ("chemistry", "q"),
    [("NMC111", (0.854, 0.782)), ("NCA", (0.943, 0.917)), ("NMC-50Ah-B1", (0.952, 0.925))],
)
def test_device_that_spends_a_fixed_energy_meets_the_reference_values(chemistry, q):
    """25 ± 8 °C, 60 % of the new capacity once a day, after one year and two.

    A device that spends the same energy every day swings wider as it ages: by 0.6 / q about the
    middle of its range, as far as the range goes. Energy conserved is the default of BLAST-Lite,
    from which the values are.
    """
    law, wear, seen = LAWS[chemistry], Wear.new(1), []
    temperature = daily_swing(25.0, 8.0)[:, None]
    for day in range(728):
        left = law.capacity(wear)
        charge = np.clip(0.65 + (CHARGE[:, None] - 0.65) / left, 0.0, 1.0)
        depth = charge.max(axis=0) - charge.min(axis=0)
        stress = stress_of(charge, temperature, depth=depth, full_cycles=depth, law=law)
        advance_one_day(
            wear,
            law=law,
            rates=law.rates(stress),
            traits=cells(),
            full_cycles=depth,
            capacity=left,
        )
        if day + 1 in (365, 728):
            seen.append((law.capacity(wear)[0], law.resistance(wear, knee_gain=0.0)[0]))

    assert (seen[0][0], seen[1][0]) == pytest.approx(q, abs=0.003)
    if chemistry == "NMC111":
        assert seen[1][1] == pytest.approx(1.442, abs=0.003)


def at_voltage(voltage_v, temperature_c, *, depth, full_cycles):
    one = np.ones((4, 1))
    return Stress(
        state_of_charge=0.5 * one,
        voltage_v=voltage_v * one,
        inverse_kelvin=one / (temperature_c + KELVIN),
        depth_of_discharge=np.array([depth]),
        full_cycles=np.array([full_cycles]),
    )


def test_constant_stress_gives_the_closed_form():
    rates = NMC111.rates(at_voltage(3.8, 35.0, depth=0.5, full_cycles=0.5))
    wear, moved_ah = Wear.new(1), 0.0
    for _ in range(200):
        q = NMC111.capacity(wear)
        moved_ah += 2 * 2.15 * 0.5 * q[0]
        advance_one_day(
            wear,
            law=NMC111,
            rates=rates,
            traits=cells(),
            full_cycles=np.array([0.5]),
            capacity=q,
        )
    alpha = (7.543 * 3.8 - 23.75) * 1e6 * np.exp(-6976 / 308.15)
    beta = 7.348e-3 * (3.8 - 3.667) ** 2 + 7.60e-4 + 4.081e-3 * 0.5
    a = (5.270 * 3.8 - 16.32) * 1e5 * np.exp(-5986 / 308.15)
    b = 2.153e-4 * (3.8 - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * 0.5
    capacity = 1 - alpha * 200**0.75 - beta * np.sqrt(moved_ah)

    assert NMC111.capacity(wear)[0] == pytest.approx(capacity)
    resistance = NMC111.resistance(wear, knee_gain=0.0)[0]
    assert resistance == pytest.approx(1 + a * 200**0.75 + b * moved_ah)


def test_rates_that_the_law_makes_negative_are_zero():
    rates = NMC111.rates(at_voltage(3.0, 25.0, depth=0.0, full_cycles=0.0))

    assert rates.calendar_fade[0] == 0.0
    assert rates.calendar_growth[0] == 0.0


def test_fade_speeds_up_past_the_knee():
    def hot(_day):
        return daily_swing(30.0, 5.0)

    days = [200, 300, 400, 450]

    smooth = live_at(hot, days=days)[:, 0]
    kneed = live_at(hot, days=days, traits=cells(knee_soh=0.87, knee_rate=2.5))[:, 0]

    assert np.diff(smooth)[1] > np.diff(smooth)[0]
    assert (kneed[-2] - kneed[-1]) / 50 > 5 * (smooth[-2] - smooth[-1]) / 50


def test_voltage_follows_the_table_and_stops_at_its_ends():
    charge = np.array([-0.2, 0.0, 0.1, 0.5, 0.95, 1.0, 1.3])

    voltage = NMC111.open_circuit_voltage(charge)

    expected = [3.331, 3.331, 3.491, 3.697, 4.118, 4.162, 4.162]
    np.testing.assert_allclose(voltage, expected, atol=5e-4)


def test_new_packs_forget_the_wear_of_the_old_ones():
    wear = Wear(*(np.full(3, 0.04) for _ in range(6)))

    wear.renew(np.array([1]))

    capacity = NMC111.capacity(wear)
    assert capacity.tolist() == [pytest.approx(0.6706, abs=1e-4), 1.0, capacity[0]]
    assert wear.full_cycles.tolist() == [0.04, 0.0, 0.04]
