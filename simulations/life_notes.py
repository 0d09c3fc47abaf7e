"""What is noted of each day of a block of devices, for the sensors and for the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .habits import Habits
from .lives import SAMPLES_A_DAY, Days

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chemistries import Stress
    from .life_block import LifeBlock

    Floats = NDArray[np.float64]

_SINGLE = (
    "capacity_mah",
    "resistance",
    "resistance_limit",
    "resistance_mohm",
    "swelling",
    "charge_stretch",
    "depth",
)
_DOUBLE = ("full_cycles", "full_cycles_total")


class DayNotes:
    """Fills the arrays of `lives.Days`, first the stress of some days, then each of them."""

    def __init__(self, block: LifeBlock, *, num_days: int) -> None:
        """Make room for so many days of a block."""
        count = len(block.device_indices)
        shape = (num_days, count)
        arrays: dict[str, NDArray[Any]] = {name: np.empty(shape, np.float32) for name in _SINGLE}
        arrays |= {name: np.empty(shape) for name in _DOUBLE}
        arrays["temperature_c"] = np.empty((num_days, SAMPLES_A_DAY, count), np.float32)
        arrays["pack_number"] = np.empty(shape, np.int8)
        self._arrays = arrays
        self._habits: list[Habits] = []
        self._first, self._day = block.day, 0

    def of_stress(self, stress: Stress, temperature_c: Floats, habits: Habits | None) -> None:
        """Note what the next days do to the cells."""
        rows = slice(self._day, self._day + len(temperature_c))
        self._arrays["full_cycles"][rows] = stress.full_cycles
        self._arrays["depth"][rows] = stress.depth_of_discharge
        self._arrays["temperature_c"][rows] = temperature_c
        if habits is not None:
            self._habits.append(habits)

    def of_day(self, block: LifeBlock) -> None:
        """Note the state at the end of the block's day."""
        at, traits = self._arrays, block.failure_traits
        day = self._day
        at["capacity_mah"][day] = block.capacity_mah
        at["resistance"][day] = block.resistance
        at["resistance_limit"][day] = traits.resistance_limit
        shown = block.resistance * block.cells.resistance_factor
        shown *= block.new_resistance_mohm
        at["resistance_mohm"][day] = shown
        at["swelling"][day] = block.swelling
        at["charge_stretch"][day] = traits.charge_stretch(block.day + 1.0 - block.installed_day)
        at["full_cycles_total"][day] = block.wear.full_cycles
        at["pack_number"][day] = block.pack_number
        self._day += 1

    def days(self) -> Days:
        """Return what was noted."""
        habits = None
        if self._habits:
            habits = Habits(
                *(
                    np.concatenate([getattr(part, name) for part in self._habits])
                    for name in ("full_cycles_a_day", "soc_ceiling", "changed_on")
                )
            )
        return Days(first=self._first, habits=habits, **self._arrays)
