"""NMC on graphite, a large pouch cell of about 50 Ah, "NMC-Gr B1".

Aged by Gasper et al. 2023 (J. Energy Storage 73:109042, 10.1016/j.est.2023.109042), law as in
BLAST-Lite 1.1.1 (NREL, BSD-3), with t in days, EFC in equivalent full cycles of the capacity when
new, T in kelvin, C in 1 / h, Ua in volts:

    q = 1 - k_cal (t / 1e4)^0.708 - k_cyc (EFC / 1e5)^0.467
    k_cal = 36.2 exp(-4.4 Ua_n^(1/3) / T_n^3)
    k_cyc = 0.844 (DOD^2 T_n^3 C^0.5)^0.458
    T_n = T / 308.15        Ua_n = Ua / 0.123

Ua is the anode's open-circuit potential against lithium, by its lithiation x (Safari and Delacourt
2011, J. Electrochem. Soc. 158:A562, 10.1149/1.3567007); x by the state of charge after Schimpe et
al. 2018 (J. Electrochem. Soc. 165:A181, 10.1149/2.1181714jes):

    x  = 0.0085 + SOC (0.78 - 0.0085)
    Ua = 0.6379 + 0.5416 exp(-305.5309 x) + 0.044 tanh(-(x - 0.1958) / 0.1088)
         - 0.1978 tanh((x - 1.0571) / 0.0854) - 0.6875 tanh((x + 0.0117) / 0.0529)
         - 0.0175 tanh((x - 0.5692) / 0.0875)

C falls with the capacity that is left, as C = 2 EFC q / 24 h; that factor is on the throughput. No
law of its resistance was fitted: it grows with the loss. Rates above 1.75C, and above 0.3C in
the cold, are outside what was measured; no knee is in the law.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .law import Law, Rates, Stress, mean_of_samples
from .nmc111 import layered_oxide_voltage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_CYCLE_POWER = 0.458
_FINE_STEPS = 4096


def anode_potential(state_of_charge: Floats) -> Floats:
    """Return Ua, the potential of the graphite anode against lithium, volts, any shape."""
    x = 8.5e-3 + state_of_charge * (0.78 - 8.5e-3)
    potential: Floats = (
        0.6379
        + 0.5416 * np.exp(-305.5309 * x)
        + 0.044 * np.tanh(-(x - 0.1958) / 0.1088)
        - 0.1978 * np.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * np.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * np.tanh((x - 0.5692) / 0.0875)
    )
    return potential


_FINE_ROOT = np.cbrt(anode_potential(np.linspace(0.0, 1.0, _FINE_STEPS + 1)) / 0.123)


class Nmc50AhB1(Law):
    """The law of Gasper et al. 2023."""

    name = "NMC-50Ah-B1"
    calendar_exponent = 0.708
    cycle_exponent = 0.467
    growth_by_loss = 2.0

    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the voltage of NMC111, which is near enough for swelling; the law needs none."""
        return layered_oxide_voltage(state_of_charge)

    def rates(self, stress: Stress) -> Rates:
        """Return k_cal / 1e4^0.708 and k_cyc / 1e5^0.467, means of the day."""
        step = np.clip(stress.state_of_charge, 0.0, 1.0)
        step *= _FINE_STEPS
        step += 0.5
        speed = _FINE_ROOT.take(step.astype(np.intp))
        inverse = 308.15 * stress.inverse_kelvin
        cubed = inverse * inverse * inverse
        speed *= cubed
        speed *= -4.4
        np.exp(speed, out=speed)
        calendar = mean_of_samples(speed)
        calendar *= 36.2 / 1e4**self.calendar_exponent
        heat = mean_of_samples(np.power(cubed, -_CYCLE_POWER))
        depth = stress.depth_of_discharge
        cycle = np.power(depth * depth * np.sqrt(stress.c_rate), _CYCLE_POWER)
        cycle *= heat
        cycle *= 0.844 / 1e5**self.cycle_exponent
        none = np.zeros_like(calendar)
        return Rates(calendar, cycle, none, none)

    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return full cycles of the capacity when new, times what q does to C.

        k_cyc is proportional to C^(0.5 x 0.458), so that k_cyc^(1 / p) carries q to the power
        0.229 / 0.467.
        """
        return full_cycles * np.power(capacity, 1.0 + 0.5 * _CYCLE_POWER / self.cycle_exponent)
