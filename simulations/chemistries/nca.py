"""NCA on graphite, Panasonic NCR18650B, 3.2 Ah.

Calendar ageing of Keil et al. 2016 (J. Electrochem. Soc. 163:A1872, 10.1149/2.0411609jes), cycle
ageing of Preger et al. 2020 (J. Electrochem. Soc. 167:120532, 10.1149/1945-7111/abae37), fitted
together by Gasper in BLAST-Lite 1.1.1 (NREL, BSD-3), with t in days, EFC in equivalent full cycles
of the capacity when new, T in kelvin, C in 1 / h:

    q = 1 - k_cal t^0.512 - k_cyc EFC^0.699
    k_cal = 75.4 exp(-3340 / T) exp(353 SOC / T)
    k_cyc = (1.86e-6 + 4.74e-11 C + 1.77e-4 DOD) (exp(3.34e-11 / T) + exp(-2.81e-9 / T))

The last factor is 2 to eleven digits. No law of its resistance was fitted: it grows with the loss,
as fast as that of NMC111 does in the mean of its climates. No knee is in the law, and cycling was
measured between 15 and 35 degrees Celsius.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .law import Law, Rates, Stress, mean_of_samples
from .nmc111 import layered_oxide_voltage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Nca(Law):
    """The law of Keil, Preger and Gasper."""

    name = "NCA"
    calendar_exponent = 0.512
    cycle_exponent = 0.699
    growth_by_loss = 2.0

    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the voltage of NMC111, which is near enough for swelling; the law needs none."""
        return layered_oxide_voltage(state_of_charge)

    def rates(self, stress: Stress) -> Rates:
        """Return k_cal, the mean of the day, and k_cyc."""
        speed = 353.0 * stress.state_of_charge
        speed -= 3340.0
        speed *= stress.inverse_kelvin
        np.exp(speed, out=speed)
        speed *= 75.4
        calendar = mean_of_samples(speed)
        cycle = 1.86e-6 + 4.74e-11 * stress.c_rate + 1.77e-4 * stress.depth_of_discharge
        none = np.zeros_like(calendar)
        return Rates(calendar, 2.0 * cycle, none, none)

    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return full cycles of the capacity when new."""
        return full_cycles * capacity
