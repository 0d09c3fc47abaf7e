"""The state in which packs enter the study: half of them new, half of them used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .climates import indoor_temperature, yearly_temperature
from .counter_random import Channel, KeyedRandom
from .daily_stress import stress_of_days
from .degradation import CellTraits, Wear, aged_by
from .failures import FailureTraits, swelling_stress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chemistries import Law, Rates
    from .recipe import FleetRecipe
    from .users import Users

    Floats = NDArray[np.float64]

_BISECTIONS = 30
_LONGEST_LIFE_DAYS = 8000.0
_MEAN_CAPACITY = 0.93
_YOUNGER_THAN_LIMIT = 0.98


@dataclass(frozen=True, slots=True)
class Entry:
    """Packs as they enter; arrays of shape (n_devices,).

    Attributes:
        age_days: days in service before the study.
        wear: of the law.
        swelling: progress, 1 = failed.
    """

    age_days: Floats
    wear: Wear
    swelling: Floats


@dataclass(frozen=True, slots=True)
class _MeanStress:
    """What a user does to a pack in a mean year; only the cycle parts of `rates` are used."""

    law: Law
    rates: Rates
    fade_power_a_day: Floats
    growth_power_a_day: Floats
    swelling_a_day: Floats
    full_cycles: Floats
    throughput: Floats

    def wear_at(self, days: Floats, traits: CellTraits) -> Wear:
        return aged_by(
            days=days,
            law=self.law,
            fade_power_a_day=self.fade_power_a_day,
            growth_power_a_day=self.growth_power_a_day,
            mean_rates=self.rates,
            traits=traits,
            full_cycles_a_day=self.full_cycles,
            throughput_a_day=self.throughput,
        )


def enter(
    random: KeyedRandom,
    *,
    law: Law,
    users: Users,
    traits: CellTraits,
    failure_traits: FailureTraits,
    end_of_life: Floats,
    recipe: FleetRecipe,
) -> Entry:
    """Age the packs of the devices that enter used, under the mean of their user's year.

    The age is uniform up to `max_entry_age_days`, or up to the moment at which the pack would reach
    its knee, its end of life, its resistance or its swelling limit, whichever comes first.

    Args:
        random: of the devices.
        law: of their chemistries.
        users: of the devices.
        traits: of the first packs.
        failure_traits: of the first packs.
        end_of_life: capacity at the end of life against the pack's capacity when new.
        recipe: shares and limits.
    """
    stress = _mean_stress(law, users, traits, failure_traits, recipe)
    least_capacity = np.maximum(traits.knee_soh, end_of_life + 0.02)
    low = np.zeros_like(least_capacity)
    high = np.full_like(least_capacity, _LONGEST_LIFE_DAYS)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        wear = stress.wear_at(middle, traits)
        sound = law.capacity(wear) > least_capacity
        sound &= law.resistance(wear, knee_gain=0.0) < failure_traits.resistance_limit - 0.15
        sound &= stress.swelling_a_day * middle < 0.9
        low = np.where(sound, middle, low)
        high = np.where(sound, high, middle)
    oldest = np.minimum(low * _YOUNGER_THAN_LIMIT, recipe.max_entry_age_days)
    is_used = random.uniform(Channel.ENTRY_AGE) < recipe.aged_share
    age = np.where(is_used, oldest * random.uniform(Channel.ENTRY_AGE, 1), 0.0)
    return Entry(
        age_days=age,
        wear=stress.wear_at(age, traits),
        swelling=stress.swelling_a_day * age,
    )


def _mean_stress(
    law: Law,
    users: Users,
    traits: CellTraits,
    failure_traits: FailureTraits,
    recipe: FleetRecipe,
) -> _MeanStress:
    cycles = users.full_cycles_a_day * (5.0 + 2.0 * users.weekend_factor) / 7.0
    fade, growth, swelling = np.zeros_like(cycles), np.zeros_like(cycles), np.zeros_like(cycles)
    indoor = indoor_temperature(warming_c=recipe.warming_c)
    quarters = [
        stress_of_days(users, law, full_cycles=cycles, outdoor_c=outdoor, indoor_c=indoor)[0]
        for outdoor in yearly_temperature(warming_c=recipe.warming_c)
    ]
    for stress in quarters:
        rates = law.rates(stress)
        fade += 0.25 * law.calendar_power(rates.calendar_fade * traits.fade_factor)
        growth += 0.25 * law.calendar_power(rates.calendar_growth * traits.growth_factor)
        swelling += 0.25 * swelling_stress(
            voltage_v=stress.voltage_v, inverse_kelvin=stress.inverse_kelvin
        )
    return _MeanStress(
        law=law,
        rates=law.rates(quarters[0]),
        fade_power_a_day=fade,
        growth_power_a_day=growth,
        swelling_a_day=swelling * failure_traits.swelling_a_day,
        full_cycles=cycles,
        throughput=law.throughput(cycles, np.full_like(cycles, _MEAN_CAPACITY)),
    )
