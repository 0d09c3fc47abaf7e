"""Wear of lithium-ion cells, vectorised over devices, one step a day.

Law of wear: Schmalstieg, Käbitz, Ecker and Sauer 2014, "A holistic aging model for
Li(NiMnCo)O2 based 18650 lithium-ion batteries", J. Power Sources 257:325-334 (NMC111/graphite,
Sanyo UR18650E, 2.15 Ah), with t in days, Q in Ah of throughput both ways, V in volts, T in kelvin:

    q = 1 - alpha t^0.75 - beta sqrt(Q)        r = 1 + a t^0.75 + b Q
    alpha = (7.543 V - 23.75) 1e6 exp(-6976 / T)
    beta  = 7.348e-3 (Vrms - 3.667)^2 + 7.60e-4 + 4.081e-3 DOD
    a     = (5.270 V - 16.32) 1e5 exp(-5986 / T)
    b     = 2.153e-4 (Vrms - 3.725)^2 - 1.521e-5 + 2.798e-4 DOD

Rates are clipped at 0. Stress that varies is followed in virtual time: a loss y = k x^p under
rate k goes on as y <- k ((y / k)^(1 / p) + dx)^p. Stored as w = y^(1 / p) that step is exactly
w <- w + k^(1 / p) dx, without a division, and a rate of 0 needs no special case.

Past the knee the cell loses more, and ever faster (lithium plating and pore clogging; Attia et
al. 2022, J. Electrochem. Soc. 169:060517, list the ways). Below the state of health `knee_soh` the
additional loss of a day is EFC 2e-4 s (1 + 25 depth), where depth = knee_soh - q; s and knee_soh
come from a fit to cycled cells.

The law was measured near 35 degrees Celsius and 1C. It knows no dependence of cycle wear on
temperature or rate, and no lithium plating in the cold.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CELL_CAPACITY_AH = 2.15
KELVIN = 273.15

# Open-circuit voltage by state of charge: Ecker et al. 2014 (J. Power Sources 248:839) at 0 and
# 10 %, Schmalstieg et al. 2014, figure 1 elsewhere, as digitised in BLAST-Lite 1.1.1 (NREL, BSD-3);
# resampled to 24 points, at most 1.9 mV from its 58.
_STATE_OF_CHARGE = np.array(
    [0.0, 0.01, 0.03, 0.05, 0.075, *np.round(np.arange(0.10, 1.001, 0.05), 2)]
)
_OPEN_CIRCUIT_V = np.array(
    [
        *(3.331, 3.348, 3.385, 3.420, 3.457, 3.491, 3.544, 3.581, 3.608, 3.627, 3.641, 3.655),
        *(3.673, 3.697, 3.732, 3.775, 3.821, 3.869, 3.915, 3.965, 4.019, 4.073, 4.118, 4.162),
    ]
)
_FINE_STEPS = 4096
_FINE_VOLTAGE_V = np.interp(
    np.linspace(0.0, 1.0, _FINE_STEPS + 1), _STATE_OF_CHARGE, _OPEN_CIRCUIT_V
)


class Rates(NamedTuple):
    """Rates of wear under one day's stress; float64, shape (n_devices,).

    Attributes:
        calendar_fade: alpha, per day^0.75.
        cycle_fade: beta, per sqrt(Ah).
        calendar_growth: a, per day^0.75.
        cycle_growth: b, per Ah.
    """

    calendar_fade: Floats
    cycle_fade: Floats
    calendar_growth: Floats
    cycle_growth: Floats


@dataclass(frozen=True, slots=True)
class CellTraits:
    """How one pack differs from the cell of the law; float64, shape (n_devices,).

    Attributes:
        capacity_factor: capacity when new against the design.
        fade_factor: factor on both rates of capacity loss.
        growth_factor: factor on both rates of resistance growth.
        knee_soh: state of health at the knee, fraction; 0 switches the knee off.
        knee_rate: s, factor on the loss past the knee.
        resistance_factor: resistance when new against the model's.
    """

    capacity_factor: Floats
    fade_factor: Floats
    growth_factor: Floats
    knee_soh: Floats
    knee_rate: Floats
    resistance_factor: Floats


@dataclass(slots=True)
class Wear:
    """State of wear of one pack a device; float64, shape (n_devices,), changed in place.

    Attributes:
        calendar_fade_power: calendar loss to the power 4/3.
        cycle_fade_square: cycle loss squared.
        calendar_growth_power: calendar resistance growth to the power 4/3.
        cycle_growth: resistance growth by cycling.
        knee_loss: loss past the knee.
        full_cycles: equivalent full cycles since new.
    """

    calendar_fade_power: Floats
    cycle_fade_square: Floats
    calendar_growth_power: Floats
    cycle_growth: Floats
    knee_loss: Floats
    full_cycles: Floats

    @staticmethod
    def new(num_devices: int) -> Wear:
        """Return the state of packs that were never used."""
        return Wear(*(np.zeros(num_devices) for _ in fields(Wear)))

    def capacity(self) -> Floats:
        """Return q, capacity against the capacity when new, at least 0.02."""
        loss = three_quarters_power(self.calendar_fade_power)
        loss += np.sqrt(self.cycle_fade_square)
        loss += self.knee_loss
        return np.maximum(1.0 - loss, 0.02)

    def resistance(self, *, knee_gain: float) -> Floats:
        """Return r, resistance against the resistance when new.

        Args:
            knee_gain: growth of r for each unit lost past the knee.
        """
        growth = three_quarters_power(self.calendar_growth_power)
        growth += self.cycle_growth
        growth += knee_gain * self.knee_loss
        growth += 1.0
        return growth

    def renew(self, positions: NDArray[np.intp]) -> None:
        """Put new packs into the devices at `positions`."""
        for field in fields(Wear):
            getattr(self, field.name)[positions] = 0.0


def three_quarters_power(x: Floats) -> Floats:
    """Return x^0.75 by two square roots, which round exactly on every machine."""
    root = np.sqrt(x)
    power: Floats = root * np.sqrt(root)
    return power


def four_thirds_power(x: Floats) -> Floats:
    """Return x^(4/3)."""
    power: Floats = x * np.cbrt(x)
    return power


def open_circuit_voltage(state_of_charge: Floats) -> Floats:
    """Return the open-circuit voltage of NMC111/graphite, volts, to 0.3 mV of the curve.

    Args:
        state_of_charge: fraction, any shape; taken as 0 below 0 and as 1 above 1.
    """
    step = (np.clip(state_of_charge, 0.0, 1.0) * _FINE_STEPS + 0.5).astype(np.intp)
    voltage: Floats = _FINE_VOLTAGE_V[step]
    return voltage


def rates_of(*, voltage_v: Floats, temperature_c: Floats, depth_of_discharge: Floats) -> Rates:
    """Return the rates of wear of the law under one day's stress.

    Args:
        voltage_v: shape (n_samples, n_devices), samples evenly spread over the day.
        temperature_c: cell temperature, same shape and samples.
        depth_of_discharge: fraction, shape (n_devices,).
    """
    samples = len(voltage_v)
    inverse_kelvin = 1.0 / (temperature_c + KELVIN)
    fade = (7.543 * voltage_v - 23.75) * np.exp(-6976.0 * inverse_kelvin)
    growth = (5.270 * voltage_v - 16.32) * np.exp(-5986.0 * inverse_kelvin)
    vrms = np.sqrt(sum_of_samples(voltage_v * voltage_v) / samples)
    cycle_fade = 7.348e-3 * (vrms - 3.667) ** 2 + 7.60e-4 + 4.081e-3 * depth_of_discharge
    cycle_growth = 2.153e-4 * (vrms - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * depth_of_discharge
    return Rates(
        calendar_fade=np.maximum(sum_of_samples(fade) * (1e6 / samples), 0.0),
        cycle_fade=cycle_fade,
        calendar_growth=np.maximum(sum_of_samples(growth) * (1e5 / samples), 0.0),
        cycle_growth=np.maximum(cycle_growth, 0.0),
    )


def sum_of_samples(values: Floats) -> Floats:
    """Sum over the first axis in a fixed order, so that the block's size changes no bit."""
    total: Floats = values[0].copy()
    for row in values[1:]:
        total += row
    return total


def advance_one_day(
    wear: Wear,
    *,
    rates: Rates,
    traits: CellTraits,
    full_cycles: Floats,
    throughput_ah: Floats,
) -> None:
    """Age the packs by one day, in place.

    Args:
        wear: the state, changed.
        rates: of the law, under the day's stress.
        traits: of the packs.
        full_cycles: equivalent full cycles of the day, shape (n_devices,).
        throughput_ah: charge moved in and out in the day, scaled to the 2.15 Ah cell. A device
            that spends a share of its capacity moves 2 x 2.15 x EFC x q; one that spends a fixed
            energy moves 2 x 2.15 x EFC.
    """
    depth = traits.knee_soh - wear.capacity()
    past_knee = (depth > 0.0).astype(np.float64)
    wear.knee_loss += past_knee * full_cycles * 2e-4 * traits.knee_rate * (1.0 + 25.0 * depth)
    wear.calendar_fade_power += four_thirds_power(rates.calendar_fade * traits.fade_factor)
    wear.cycle_fade_square += (rates.cycle_fade * traits.fade_factor) ** 2 * throughput_ah
    wear.calendar_growth_power += four_thirds_power(rates.calendar_growth * traits.growth_factor)
    wear.cycle_growth += rates.cycle_growth * traits.growth_factor * throughput_ah
    wear.full_cycles += full_cycles


def aged_by(
    *,
    days: Floats,
    fade_power_a_day: Floats,
    growth_power_a_day: Floats,
    mean_rates: Rates,
    traits: CellTraits,
    full_cycles_a_day: Floats,
    throughput_ah_a_day: Floats,
) -> Wear:
    """Return the wear after a constant average stress, before the knee.

    Args:
        days: age, shape (n_devices,).
        fade_power_a_day: mean of (alpha x factor)^(4/3) over the year.
        growth_power_a_day: mean of (a x factor)^(4/3) over the year.
        mean_rates: rates of which the cycle parts are used.
        traits: of the packs.
        full_cycles_a_day: mean equivalent full cycles a day.
        throughput_ah_a_day: mean charge moved a day, Ah of the 2.15 Ah cell.
    """
    return Wear(
        calendar_fade_power=fade_power_a_day * days,
        cycle_fade_square=(mean_rates.cycle_fade * traits.fade_factor) ** 2
        * throughput_ah_a_day
        * days,
        calendar_growth_power=growth_power_a_day * days,
        cycle_growth=mean_rates.cycle_growth * traits.growth_factor * throughput_ah_a_day * days,
        knee_loss=np.zeros_like(days),
        full_cycles=full_cycles_a_day * days,
    )
