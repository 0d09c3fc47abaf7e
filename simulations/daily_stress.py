"""What days do to the cells of a block of devices, before any wear is known.

Stress depends on users, climates and random numbers alone, so many days are worked out at once;
only the wear itself goes day by day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .chemistries import KELVIN, Stress
from .users import Users, cell_temperature, depth_of, state_of_charge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chemistries import Law

    Floats = NDArray[np.float64]


def stress_of_days(
    users: Users,
    law: Law,
    *,
    full_cycles: Floats,
    outdoor_c: Floats,
    indoor_c: Floats,
    ceiling: Floats | None = None,
) -> tuple[Stress, Floats]:
    """Return the stress of days, and the temperature of the cells.

    Args:
        users: of the block.
        law: of the cells, for their voltage.
        full_cycles: of the days, shape (..., n_devices).
        outdoor_c: of the days, shape (..., 4, n_climates).
        indoor_c: shape (n_climates,).
        ceiling: state of charge at which charging stops, shape of `full_cycles`, where it is not
            the users' own.

    Returns:
        The stress, and degrees Celsius, float64, shape (..., 4, n_devices).
    """
    ceiling = users.soc_ceiling if ceiling is None else ceiling
    depth = depth_of(full_cycles, ceiling)
    charge = state_of_charge(users, depth, ceiling=ceiling)
    temperature_c = cell_temperature(
        users, outdoor_c=outdoor_c, indoor_c=indoor_c, full_cycles=full_cycles
    )
    inverse_kelvin = temperature_c + KELVIN
    stress = Stress(
        state_of_charge=charge,
        voltage_v=law.open_circuit_voltage(charge),
        inverse_kelvin=np.divide(1.0, inverse_kelvin, out=inverse_kelvin),
        depth_of_discharge=depth,
        full_cycles=full_cycles,
    )
    return stress, temperature_c
