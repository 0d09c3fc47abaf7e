"""What every law of wear has in common: stress of days in, rates out, wear in virtual time.

A law says how fast a cell loses capacity in storage and in use, each as a power law `y = k x^p` of
time or of charge moved. Stress that varies is followed in virtual time: the loss y goes on as
y <- k ((y / k)^(1 / p) + dx)^p. Stored as w = y^(1 / p) that step is exactly w <- w + k^(1 / p) dx,
without a division, and a rate of 0 needs no special case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..degradation import CellTraits, Wear

    Floats = NDArray[np.float64]

KELVIN = 273.15
LEAST_CAPACITY = 0.02


class Stress(NamedTuple):
    """What days do to cells; float64, of one day, or of many with the days on a first axis.

    Attributes:
        state_of_charge: fraction, shape (..., n_samples, n_devices), samples evenly spread.
        voltage_v: open-circuit voltage, same shape.
        inverse_kelvin: 1 / temperature of the cell, same shape.
        depth_of_discharge: of a charge, fraction, shape (..., n_devices).
        full_cycles: equivalent full cycles of the day, shape (..., n_devices).
    """

    state_of_charge: Floats
    voltage_v: Floats
    inverse_kelvin: Floats
    depth_of_discharge: Floats
    full_cycles: Floats

    @property
    def c_rate(self) -> Floats:
        """Charge moved in and out over the hours of the day, against capacity: 1 / h."""
        return self.full_cycles / 12.0


class Rates(NamedTuple):
    """Rates of wear under a day's stress; float64, shape (..., n_devices).

    Attributes:
        calendar_fade: k of the loss in storage.
        cycle_fade: k of the loss in use.
        calendar_growth: the same of resistance growth in storage, 0 where no law gives it.
        cycle_growth: the same of resistance growth in use.
    """

    calendar_fade: Floats
    cycle_fade: Floats
    calendar_growth: Floats
    cycle_growth: Floats

    def of_day(self, day: int) -> Rates:
        """Return one day of many."""
        return Rates(*(rate[day] for rate in self))


class Law(ABC):
    """How the cells of one chemistry wear, each device's cell by its own factors.

    Attributes:
        name: what device profiles call the chemistry.
        calendar_exponent: p of the loss in storage, over days.
        cycle_exponent: p of the loss in use, over `throughput`.
        growth_by_loss: growth of resistance for each unit of capacity lost before the knee, where
            no law gives it; chosen.
    """

    name: ClassVar[str]
    calendar_exponent: ClassVar[float]
    cycle_exponent: ClassVar[float]
    growth_by_loss: ClassVar[float] = 0.0

    @abstractmethod
    def open_circuit_voltage(self, state_of_charge: Floats) -> Floats:
        """Return the open-circuit voltage, volts, for fractions of any shape."""

    @abstractmethod
    def rates(self, stress: Stress) -> Rates:
        """Return the rates of wear under the stress of days."""

    @abstractmethod
    def throughput(self, full_cycles: Floats, capacity: Floats) -> Floats:
        """Return how far a day's use goes on the axis of the loss in use.

        Args:
            full_cycles: equivalent full cycles of the day, of the capacity that is left.
            capacity: q, against the capacity when new.
        """

    def calendar_power(self, rate: Floats) -> Floats:
        """Return what a day in storage adds to w: k^(1 / p) times one day."""
        return _power(rate, 1.0 / self.calendar_exponent)

    def calendar_loss(self, power: Floats) -> Floats:
        """Return the loss in storage, y = w^p."""
        return _power(power, self.calendar_exponent)

    def cycle_power(self, rate: Floats) -> Floats:
        """Return what one unit of throughput adds to w: k^(1 / p)."""
        return _power(rate, 1.0 / self.cycle_exponent)

    def cycle_loss(self, power: Floats) -> Floats:
        """Return the loss in use, y = w^p."""
        return _power(power, self.cycle_exponent)

    def _loss(self, wear: Wear) -> Floats:
        loss = self.calendar_loss(wear.calendar_fade_power)
        loss += self.cycle_loss(wear.cycle_fade_power)
        return loss

    def capacity(self, wear: Wear) -> Floats:
        """Return q, capacity against the capacity when new, at least 0.02."""
        loss = self._loss(wear)
        loss += wear.knee_loss
        np.subtract(1.0, loss, out=loss)
        return np.maximum(loss, LEAST_CAPACITY, out=loss)

    def resistance(self, wear: Wear, *, knee_gain: float) -> Floats:
        """Return r, resistance against the resistance when new.

        Args:
            wear: of the packs.
            knee_gain: growth of r for each unit lost past the knee.
        """
        growth = self.calendar_growth(wear)
        growth += wear.cycle_growth
        growth += knee_gain * wear.knee_loss
        growth += 1.0
        return growth

    def calendar_growth(self, wear: Wear) -> Floats:
        """Return the growth of resistance in storage, where a law gives it."""
        return np.zeros_like(wear.calendar_growth_power)

    def growth_at(self, wear: Wear, traits: CellTraits) -> Floats:
        """Return the growth of resistance that comes with the loss so far, before the knee."""
        return self.growth_by_loss * traits.growth_factor * self._loss(wear)

    def wear_on(
        self,
        wear: Wear,
        *,
        rates: Rates,
        traits: CellTraits,
        full_cycles: Floats,
        capacity: Floats,
    ) -> None:
        """Add the wear of one day before the knee, in place.

        Args:
            wear: the state, changed.
            rates: under the day's stress.
            traits: of the packs.
            full_cycles: equivalent full cycles of the day.
            capacity: q before the day.
        """
        before = self.growth_at(wear, traits)
        wear.calendar_fade_power += self.calendar_power(rates.calendar_fade * traits.fade_factor)
        used = self.cycle_power(rates.cycle_fade * traits.fade_factor)
        used *= self.throughput(full_cycles, capacity)
        wear.cycle_fade_power += used
        wear.cycle_growth += self.growth_at(wear, traits) - before


def mean_of_samples(values: Floats) -> Floats:
    """Return the mean over the samples of each day, the second axis from the end.

    Samples are added in a fixed order, so that the size of a block changes no bit.
    """
    mean = sum_of_samples(values)
    mean /= values.shape[-2]
    return mean


def sum_of_samples(values: Floats) -> Floats:
    """Return the sum over the samples of each day, in a fixed order."""
    total: Floats = values[..., 0, :].copy()
    for sample in range(1, values.shape[-2]):
        total += values[..., sample, :]
    return total


def _power(base: Floats, exponent: float) -> Floats:
    power: Floats = np.power(base, exponent)
    return power
