"""The lives of a block of devices: what happened to them day by day, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .counter_random import KeyedRandom
    from .habits import Habits
    from .manufacturing import Hardware
    from .truth import FleetTruth
    from .users import Users

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

SAMPLES_A_DAY = 4


@dataclass(frozen=True, slots=True)
class Days:
    """What happened on consecutive days, as the sensors will see it; shape (n_days, n_devices).

    Attributes:
        first: number of the first of these days, from the start of the study.
        capacity_mah: true capacity at the day's end.
        resistance: ratio to new.
        resistance_limit: of the pack installed.
        resistance_mohm: as an exact gauge would show it.
        swelling: progress, 1 = failed.
        charge_stretch: factor of the charger's fault on the charge's duration.
        full_cycles: equivalent full cycles of the day.
        full_cycles_total: of the pack, at the day's end.
        depth: depth of discharge.
        temperature_c: of the cell, float32, shape (n_days, 4, n_devices).
        pack_number: int8.
        habits: of the users on these days; None where users do not change.
    """

    first: int
    capacity_mah: Singles
    resistance: Singles
    resistance_limit: Singles
    resistance_mohm: Singles
    swelling: Singles
    charge_stretch: Singles
    full_cycles: Floats
    full_cycles_total: Floats
    depth: Singles
    temperature_c: Singles
    pack_number: NDArray[np.int8]
    habits: Habits | None

    def __len__(self) -> int:
        """Return the number of days."""
        return len(self.capacity_mah)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each day, from the start of the study, shape (n_days, 1)."""
        return self.first + np.arange(len(self), dtype=np.int64)[:, None]

    def renewed_since(self, pack_number: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Return on which days another pack is in than on the day before.

        Args:
            pack_number: on the day before the first, shape (n_devices,).
        """
        renewed = np.empty(self.pack_number.shape, bool)
        renewed[0] = self.pack_number[0] != pack_number
        renewed[1:] = self.pack_number[1:] != self.pack_number[:-1]
        return renewed


@dataclass(frozen=True, slots=True)
class Lives:
    """A block of devices, lived through.

    Attributes:
        random: the devices' random numbers.
        hardware: their products.
        users: their users.
        age_at_start_days: of the first packs.
        design_mah: float64, shape (n_devices,).
        end_of_life_mah: float64, shape (n_devices,).
        sends_until_day: float64, shape (n_devices,), days from the start; infinite = to the end.
        days: day by day.
        truth: the hidden state on these days, and the packs that ended by then.
    """

    random: KeyedRandom
    hardware: Hardware
    users: Users
    age_at_start_days: Floats
    design_mah: Floats
    end_of_life_mah: Floats
    sends_until_day: Floats
    days: Days
    truth: FleetTruth
