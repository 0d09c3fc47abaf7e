"""Several chemistries in one block of devices: each device's cell by the law of its own."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..degradation import CellTraits, Wear
from .law import Law, Rates, Stress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_Arrays = TypeVar("_Arrays", CellTraits, Wear)


class MixedLaw(Law):
    """Asks each device's law; what it answers does not depend on the other devices."""

    name = "mixed"

    def __init__(self, laws: Sequence[Law], law_of_device: NDArray[np.intp]) -> None:
        """Group the devices.

        Args:
            laws: of the chemistries.
            law_of_device: position in `laws`, shape (n_devices,).
        """
        self._groups = [
            (law, np.flatnonzero(law_of_device == number))
            for number, law in enumerate(laws)
            if (law_of_device == number).any()
        ]

    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the open-circuit voltage of each device's cell."""
        return self._asked(lambda law, charge: law.open_circuit_voltage(charge), state_of_charge)

    def rates(self, stress: Stress) -> Rates:
        """Return the rates of wear of each device's law."""
        rates = Rates(*(np.empty_like(stress.full_cycles) for _ in Rates._fields))
        for law, devices in self._groups:
            of_law = law.rates(Stress(*(_taken(part, devices) for part in stress)))
            for whole, part in zip(rates, of_law, strict=True):
                whole[..., devices] = part
        return rates

    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return the throughput of a day as each law counts it."""
        return self._asked(lambda law, cycles, q: law.throughput(cycles, q), full_cycles, capacity)

    def calendar_power(self, rate: Floats) -> Floats:
        """Return what a day in storage adds to w."""
        return self._asked(lambda law, k: law.calendar_power(k), rate)

    def cycle_power(self, rate: Floats) -> Floats:
        """Return what one unit of throughput adds to w."""
        return self._asked(lambda law, k: law.cycle_power(k), rate)

    def capacity(self, wear: Wear) -> Floats:
        """Return q of each device's cell."""
        return self._of_wear(lambda law, part: law.capacity(part), wear)

    def resistance(self, wear: Wear, *, knee_gain: float) -> Floats:
        """Return r of each device's cell."""
        return self._of_wear(lambda law, part: law.resistance(part, knee_gain=knee_gain), wear)

    def growth_at(self, wear: Wear, traits: CellTraits) -> Floats:
        """Return the growth of resistance that comes with the loss so far."""
        grown = np.empty_like(wear.cycle_growth)
        for law, devices in self._groups:
            grown[devices] = law.growth_at(_rows(wear, devices), _rows(traits, devices))
        return grown

    def wear_on(
        self,
        wear: Wear,
        *,
        rates: Rates,
        traits: CellTraits,
        full_cycles: Floats,
        capacity: Floats,
    ) -> None:
        """Add the wear of one day before the knee, in place."""
        for law, devices in self._groups:
            part = _rows(wear, devices)
            law.wear_on(
                part,
                rates=Rates(*(rate[devices] for rate in rates)),
                traits=_rows(traits, devices),
                full_cycles=full_cycles[devices],
                capacity=capacity[devices],
            )
            for field in fields(part):
                getattr(wear, field.name)[devices] = getattr(part, field.name)

    def _asked(self, ask: Callable[..., Floats], *arrays: Floats) -> Floats:
        answer = np.empty_like(arrays[0])
        for law, devices in self._groups:
            answer[..., devices] = ask(law, *(_taken(array, devices) for array in arrays))
        return answer

    def _of_wear(self, ask: Callable[[Law, Wear], Floats], wear: Wear) -> Floats:
        answer = np.empty_like(wear.knee_loss)
        for law, devices in self._groups:
            answer[devices] = ask(law, _rows(wear, devices))
        return answer


def _taken(array: Floats, devices: NDArray[np.intp]) -> Floats:
    """Return some devices of an array, in one piece of memory, as a device alone would be."""
    return array.take(devices, axis=-1) if np.ndim(array) else array


def _rows(arrays: _Arrays, devices: NDArray[np.intp]) -> _Arrays:
    rows = {field.name: getattr(arrays, field.name)[devices] for field in fields(arrays)}
    return type(arrays)(**rows)
