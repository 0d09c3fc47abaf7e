"""LFP on graphite, A123 ANR26650M1, 2.2 Ah.

Wang et al. 2011, "Cycle-life model for graphite-LiFePO4 cells", J. Power Sources 196:3942-3948, its
life model for all rates and the table of B, with Ah of discharged charge, T in kelvin, C in 1 / h,
R = 8.314 J/mol/K:

    loss % = B exp((-31700 + 370.3 C) / (R T)) Ah^0.55
    B = 31630, 21681, 12934 and 15512 at C/2, 2C, 6C and 10C

B is interpolated between these rates and held beyond them. The law counts charge moved and nothing
else: what storage takes from such a cell is in it only as far as slow cycling took time, so that
devices that are hardly used come out too well. No law of its resistance was fitted: it grows with
the loss, by 0.95 a unit (cycled A123 cells show resistance 1.19 times the first where capacity is
at 80 %). The law was fitted to cells at 15 to 60 degrees Celsius.

The voltage is 3.43 V of the cathode's plateau (Safari and Delacourt 2011, J. Electrochem. Soc.
158:A562) less the anode's potential. It never reaches 3.8 V, from which on cells swell here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .law import Law, Rates, Stress, mean_of_samples
from .nmc_50ah_b1 import anode_potential

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CELL_CAPACITY_AH = 2.2
_GAS_CONSTANT = 8.314
_C_RATES = (0.5, 2.0, 6.0, 10.0)
_FACTORS = (31_630.0, 21_681.0, 12_934.0, 15_512.0)
_CATHODE_PLATEAU_V = 3.43


class Lfp(Law):
    """The law of Wang et al. 2011."""

    name = "LFP"
    calendar_exponent = 1.0
    cycle_exponent = 0.55
    growth_by_loss = 0.95

    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the plateau of the cathode less the potential of the anode, volts."""
        voltage: Floats = _CATHODE_PLATEAU_V - anode_potential(np.clip(state_of_charge, 0.0, 1.0))
        return voltage

    def rates(self, stress: Stress) -> Rates:
        """Return the factor of Ah^0.55, a fraction, mean of the day; there is none of storage."""
        c_rate = np.clip(stress.c_rate, _C_RATES[0], _C_RATES[-1])
        barrier = (-31_700.0 + 370.3 * c_rate) / _GAS_CONSTANT
        speed = np.exp(stress.inverse_kelvin * barrier[..., None, :])
        cycle = mean_of_samples(speed)
        cycle *= 0.01 * np.interp(c_rate, _C_RATES, _FACTORS)
        none = np.zeros_like(cycle)
        return Rates(none, cycle, none, none)

    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return the charge discharged by the cell of the law, Ah: 2.2 x EFC x q."""
        return CELL_CAPACITY_AH * full_cycles * capacity
