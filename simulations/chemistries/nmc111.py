"""NMC111 on graphite, Sanyo UR18650E, 2.15 Ah.

Schmalstieg, Käbitz, Ecker and Sauer 2014, "A holistic aging model for Li(NiMnCo)O2 based 18650
lithium-ion batteries", J. Power Sources 257:325-334, with t in days, Q in Ah of throughput both
ways, V in volts, T in kelvin:

    q = 1 - alpha t^0.75 - beta sqrt(Q)        r = 1 + a t^0.75 + b Q
    alpha = (7.543 V - 23.75) 1e6 exp(-6976 / T)
    beta  = 7.348e-3 (Vrms - 3.667)^2 + 7.60e-4 + 4.081e-3 DOD
    a     = (5.270 V - 16.32) 1e5 exp(-5986 / T)
    b     = 2.153e-4 (Vrms - 3.725)^2 - 1.521e-5 + 2.798e-4 DOD

Rates are clipped at 0. The law was measured near 35 degrees Celsius and 1C. It knows no dependence
of cycle wear on temperature or rate, and no lithium plating in the cold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .law import Law, Rates, Stress, sum_of_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..degradation import CellTraits, Wear

    Floats = NDArray[np.float64]

CELL_CAPACITY_AH = 2.15

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


class Nmc111(Law):
    """The law of Schmalstieg et al. 2014."""

    name = "NMC111"
    calendar_exponent = 0.75
    cycle_exponent = 0.5

    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the open-circuit voltage, volts, to 0.3 mV of the curve.

        Args:
            state_of_charge: fraction, any shape; taken as 0 below 0 and as 1 above 1.
        """
        return layered_oxide_voltage(state_of_charge)

    def rates(self, stress: Stress) -> Rates:
        """Return alpha, beta, a and b under the stress of days."""
        voltage, samples = stress.voltage_v, stress.voltage_v.shape[-2]
        vrms = sum_of_samples(voltage * voltage)
        vrms /= samples
        np.sqrt(vrms, out=vrms)
        depth = stress.depth_of_discharge
        cycle_fade = 7.348e-3 * (vrms - 3.667) ** 2 + 7.60e-4 + 4.081e-3 * depth
        cycle_growth = 2.153e-4 * (vrms - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * depth
        return Rates(
            calendar_fade=_arrhenius(stress, 7.543, 23.75, 6976.0, 1e6),
            cycle_fade=cycle_fade,
            calendar_growth=_arrhenius(stress, 5.270, 16.32, 5986.0, 1e5),
            cycle_growth=np.maximum(cycle_growth, 0.0, out=cycle_growth),
        )

    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return the charge moved both ways by the cell of the law, Ah: 2 x 2.15 x EFC x q."""
        return 2.0 * CELL_CAPACITY_AH * full_cycles * capacity

    def calendar_power(self, rate: Floats) -> Floats:
        """Return k^(4/3)."""
        return four_thirds_power(rate)

    def calendar_loss(self, power: Floats) -> Floats:
        """Return w^0.75."""
        return three_quarters_power(power)

    def cycle_power(self, rate: Floats) -> Floats:
        """Return k squared."""
        return np.square(rate)

    def cycle_loss(self, power: Floats) -> Floats:
        """Return the square root of w."""
        return np.sqrt(power)

    def calendar_growth(self, wear: Wear) -> Floats:
        """Return a t^0.75."""
        return three_quarters_power(wear.calendar_growth_power)

    def growth_at(self, wear: Wear, traits: CellTraits) -> Floats:  # noqa: ARG002 - of all laws
        """Return nothing: resistance has a law of its own."""
        return np.zeros_like(wear.cycle_growth)

    def wear_on(
        self,
        wear: Wear,
        *,
        rates: Rates,
        traits: CellTraits,
        full_cycles: Floats,
        capacity: Floats,
    ) -> None:
        """Add the wear of one day before the knee, in place; resistance has a law of its own."""
        throughput_ah = self.throughput(full_cycles, capacity)
        wear.calendar_fade_power += four_thirds_power(rates.calendar_fade * traits.fade_factor)
        used = rates.cycle_fade * traits.fade_factor
        np.square(used, out=used)
        used *= throughput_ah
        wear.cycle_fade_power += used
        wear.calendar_growth_power += four_thirds_power(
            rates.calendar_growth * traits.growth_factor
        )
        growth = rates.cycle_growth * traits.growth_factor
        growth *= throughput_ah
        wear.cycle_growth += growth


def layered_oxide_voltage(state_of_charge: Floats) -> Floats:
    """Return the open-circuit voltage of NMC111 on graphite, volts, any shape."""
    step = np.clip(state_of_charge, 0.0, 1.0)
    step *= _FINE_STEPS
    step += 0.5
    voltage: Floats = _FINE_VOLTAGE_V.take(step.astype(np.intp))
    return voltage


def three_quarters_power(x: Floats) -> Floats:
    """Return x^0.75 by two square roots, which round exactly on every machine."""
    root: Floats = np.sqrt(x)
    root *= np.sqrt(root)
    return root


def four_thirds_power(x: Floats) -> Floats:
    """Return x^(4/3)."""
    power: Floats = np.cbrt(x)
    power *= x
    return power


def _arrhenius(stress: Stress, slope: float, offset: float, kelvin: float, scale: float) -> Floats:
    """Return the day's mean of (slope V - offset) scale exp(-kelvin / T), at least 0."""
    speed = stress.inverse_kelvin * -kelvin
    np.exp(speed, out=speed)
    pull = slope * stress.voltage_v
    pull -= offset
    pull *= speed
    rate = sum_of_samples(pull)
    rate *= scale / stress.voltage_v.shape[-2]
    return np.maximum(rate, 0.0, out=rate)
