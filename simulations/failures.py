"""Five ways for a battery to fail, and what each shows before.

- capacity_fade: the true capacity falls below the device's own `end_of_life_capacity_mah`.
- resistance_growth: the true resistance passes the ratio at which the load browns the device
  out. Before, unexpected shutdowns grow, first in the cold and under load.
- swelling: gas forms faster in heat and at high voltage (Self et al. 2015, J. Electrochem. Soc.
  162:A796, for the directions; the rate is chosen). Before, heat leaves the cell worse, so that
  the highest temperature moves away from the mean.
- charger_fault: from a random onset on, charges take ever longer, until they are of no use.
- sudden_death: no precursor at all. It bounds what any model can recall.

Causes compete: a pack has the cause that comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from .chemistries import KELVIN, mean_of_samples
from .counter_random import Channel, KeyedRandom
from .manufacturing import PACK_STRIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

DAYS_A_YEAR = 365.25
CAPACITY_FADE, RESISTANCE_GROWTH, SWELLING, CHARGER_FAULT, SUDDEN_DEATH = range(5)
# Where two causes strike on the same day, the more abrupt one is the cause.
_MOST_ABRUPT_FIRST = (SUDDEN_DEATH, CHARGER_FAULT, SWELLING, RESISTANCE_GROWTH, CAPACITY_FADE)
NO_CAUSE = -1

_COLD_GAIN_PER_C = 0.008
_SHUTDOWN_WIDTH = 0.12
_SHUTDOWNS_AT_LIMIT_A_DAY = 0.40
_STRAY_SHUTDOWNS_A_DAY = 0.002
_MOST_SHUTDOWNS_A_DAY = 3.0


@dataclass(frozen=True, slots=True)
class FailureTraits:
    """When and where one pack a device would fail; float64, shape (n_devices,).

    Attributes:
        resistance_limit: ratio to new at which the load browns the device out.
        swelling_a_day: progress a day at 25 degrees Celsius and 4.1 V; 1 is the failure.
        charger_onset_day: days from the pack's start to the charger's fault.
        charger_rise_days: days from the onset to the failure.
        charger_rise: growth of the charge's duration over that time (1 = twice as long).
        sudden_day: days from the pack's start to its sudden death.
    """

    resistance_limit: Floats
    swelling_a_day: Floats
    charger_onset_day: Floats
    charger_rise_days: Floats
    charger_rise: Floats
    sudden_day: Floats

    def rows(self, positions: NDArray[np.intp]) -> FailureTraits:
        """Return the traits of some packs."""
        return FailureTraits(**{f.name: getattr(self, f.name)[positions] for f in fields(self)})

    def charge_stretch(self, days_in_service: Floats) -> Floats:
        """Return by what factor charges take longer for the charger's fault, 1 without one."""
        progress = (days_in_service - self.charger_onset_day) / self.charger_rise_days
        return 1.0 + self.charger_rise * np.clip(progress, 0.0, 1.2)


def draw_failure_traits(
    random: KeyedRandom,
    *,
    pack_number: NDArray[np.int64],
    lot_factor: Floats,
    recipe: FleetRecipe,
) -> FailureTraits:
    """Draw the limits and moments of each device's pack.

    Args:
        random: of the devices.
        pack_number: 0 for the first pack of a device.
        lot_factor: factor of the pack's lot on wear.
        recipe: rates and spreads.
    """
    first = pack_number * PACK_STRIDE
    low, high = recipe.resistance_limit
    swelling = np.exp(recipe.swelling_sigma * random.normal(Channel.FAILURE_TRAITS, first + 1))
    onset = random.exponential(Channel.FAILURE_TRAITS, first + 2)
    rise = np.exp(0.25 * random.normal(Channel.FAILURE_TRAITS, first + 3))
    sudden = random.exponential(Channel.FAILURE_TRAITS, first + 5)
    return FailureTraits(
        resistance_limit=low + (high - low) * random.uniform(Channel.FAILURE_TRAITS, first),
        swelling_a_day=recipe.swelling_a_year / DAYS_A_YEAR * swelling * lot_factor,
        charger_onset_day=onset * waiting_days(recipe.charger_faults_a_year),
        charger_rise_days=np.maximum(recipe.charger_rise_days * rise, 1.0),
        charger_rise=0.8 + 0.6 * random.uniform(Channel.FAILURE_TRAITS, first + 4),
        sudden_day=sudden * waiting_days(recipe.sudden_deaths_a_year),
    )


def waiting_days(events_a_year: float) -> float:
    """Return the mean waiting time of a constant rate, in days; infinite for a rate of 0."""
    return DAYS_A_YEAR / events_a_year if events_a_year > 0 else np.inf


def swelling_stress(*, voltage_v: Floats, inverse_kelvin: Floats) -> Floats:
    """Return the speed of gassing against 25 degrees Celsius and 4.1 V, mean of the day.

    It has the activation energy of the calendar fade of NMC111 (58 kJ/mol) and starts at 3.8 V.

    Args:
        voltage_v: shape (..., n_samples, n_devices).
        inverse_kelvin: 1 / temperature, same shape.
    """
    heat = 1.0 / (25.0 + KELVIN) - inverse_kelvin
    heat *= 6976.0
    np.exp(heat, out=heat)
    overvoltage = voltage_v - 3.8
    np.maximum(overvoltage, 0.0, out=overvoltage)
    overvoltage /= 0.3
    overvoltage *= overvoltage
    heat *= overvoltage
    return mean_of_samples(heat)


def first_cause(
    *,
    capacity: Floats,
    capacity_limit: Floats,
    resistance: Floats,
    swelling: Floats,
    days_in_service: Floats,
    traits: FailureTraits,
) -> NDArray[np.int64]:
    """Return what each pack fails of at the end of a day, `NO_CAUSE` where it lives.

    Args:
        capacity: true capacity, mAh, shape (n_devices,).
        capacity_limit: `end_of_life_capacity_mah`.
        resistance: ratio to new.
        swelling: progress, 1 = failed.
        days_in_service: age of the pack in service, at the day's end.
        traits: limits and moments.
    """
    cause = np.full(len(capacity), NO_CAUSE, np.int64)
    struck = {
        CAPACITY_FADE: capacity < capacity_limit,
        RESISTANCE_GROWTH: resistance > traits.resistance_limit,
        SWELLING: swelling >= 1.0,
        CHARGER_FAULT: days_in_service > traits.charger_onset_day + traits.charger_rise_days,
        SUDDEN_DEATH: days_in_service > traits.sudden_day,
    }
    for which in reversed(_MOST_ABRUPT_FIRST):
        cause[struck[which]] = which
    return cause


def shutdowns_a_day(
    *, resistance: Floats, limit: Floats, temperature_c: Floats, load: Floats
) -> Floats:
    """Return the expected unexpected shutdowns a day.

    The resistance that the load sees grows by 0.8 % for each degree below 25, and shutdowns
    e-fold with every 0.12 of it; at the limit, 25 degrees Celsius and mean load there are 0.40 a
    day (about 8 in the 21 days that the label's rule looks at). All chosen.

    Args:
        resistance: ratio to new, any shape.
        limit: the pack's `resistance_limit`.
        temperature_c: of the cell.
        load: use against the mean of a day.
    """
    seen = resistance * (1.0 + _COLD_GAIN_PER_C * np.maximum(25.0 - temperature_c, 0.0))
    expected = _SHUTDOWNS_AT_LIMIT_A_DAY * np.exp(np.minimum((seen - limit) / _SHUTDOWN_WIDTH, 5.0))
    return np.minimum(expected * load, _MOST_SHUTDOWNS_A_DAY) + _STRAY_SHUTDOWNS_A_DAY


def heat_trapped_c(swelling: Floats) -> Floats:
    """Return by how much swelling lifts the highest temperature over the mean, degrees Celsius."""
    return 6.0 * np.clip((swelling - 0.5) / 0.5, 0.0, 1.2)
