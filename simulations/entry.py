"""The state in which packs enter the study: half of them new, half of them used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .climates import indoor_temperature, yearly_temperature
from .counter_random import Channel, KeyedRandom
from .daily_stress import stress_of_days
from .degradation import (
    KNEE_LOSS_A_CYCLE,
    KNEE_STEEPENING,
    CellTraits,
    Wear,
    aged_by,
)
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
_SPARE_AT_ENTRY = 0.02
_RESISTANCE_TO_GO = 0.15
_MOST_SWELLING = 0.9
_STEPS = 60


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
    its end of life, its resistance or its swelling limit, or its knee unless it may have passed it
    (`past_knee_share`), whichever comes first.

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
    least_capacity = np.maximum(traits.knee_soh, end_of_life + _SPARE_AT_ENTRY)
    low = np.zeros_like(least_capacity)
    high = np.full_like(least_capacity, _LONGEST_LIFE_DAYS)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        wear = stress.wear_at(middle, traits)
        sound = law.capacity(wear) > least_capacity
        sound &= (
            law.resistance(wear, knee_gain=0.0)
            < failure_traits.resistance_limit - _RESISTANCE_TO_GO
        )
        sound &= stress.swelling_a_day * middle < _MOST_SWELLING
        low = np.where(sound, middle, low)
        high = np.where(sound, high, middle)
    oldest = np.minimum(low * _YOUNGER_THAN_LIMIT, recipe.max_entry_age_days)
    past = None
    if recipe.past_knee_share > 0:
        may_pass = random.uniform(Channel.ENTRY_AGE, 3) < recipe.past_knee_share
        past = _past_knee(stress, traits, failure_traits, end_of_life, recipe)
        older = np.maximum(past.oldest * _YOUNGER_THAN_LIMIT, oldest)
        oldest = np.where(may_pass, older, oldest)
    is_used = random.uniform(Channel.ENTRY_AGE) < recipe.aged_share
    age = np.where(is_used, oldest * random.uniform(Channel.ENTRY_AGE, 1), 0.0)
    wear = stress.wear_at(age, traits)
    if past is not None:
        wear.knee_loss = past.loss_at(age)
    return Entry(age_days=age, wear=wear, swelling=stress.swelling_a_day * age)


class _PastKnee(NamedTuple):
    """How packs go on past their knee, until they are too worn to enter.

    Attributes:
        oldest: oldest age at which the pack is sound, shape (n_devices,).
        step_days: between the ages of `losses`.
        losses: loss past the knee at the ages 0, 1, 2 … steps, shape (n_steps + 1, n_devices).
    """

    oldest: Floats
    step_days: float
    losses: Floats

    def loss_at(self, age_days: Floats) -> Floats:
        """Return the loss past the knee at an age, between those that are known."""
        place = age_days / self.step_days
        before = np.minimum(place.astype(np.intp), len(self.losses) - 2)
        device = np.arange(len(place))
        low, high = self.losses[before, device], self.losses[before + 1, device]
        between: Floats = low + (place - before) * (high - low)
        return between


def _past_knee(
    stress: _MeanStress,
    traits: CellTraits,
    failure_traits: FailureTraits,
    end_of_life: Floats,
    recipe: FleetRecipe,
) -> _PastKnee:
    """Follow packs past their knee in steps; within one the loss e-folds exactly."""
    law, step = stress.law, recipe.max_entry_age_days / _STEPS
    a_day = stress.full_cycles * KNEE_LOSS_A_CYCLE * traits.knee_rate
    growth = np.expm1(np.minimum(KNEE_STEEPENING * a_day * step, 50.0)) / KNEE_STEEPENING
    losses = np.zeros((_STEPS + 1, len(a_day)))
    oldest = np.zeros(len(a_day))
    sound = np.ones(len(a_day), bool)
    for number in range(1, _STEPS + 1):
        middle = stress.wear_at(np.full(len(a_day), (number - 0.5) * step), traits)
        middle.knee_loss = losses[number - 1]
        depth = traits.knee_soh - law.capacity(middle)
        more = np.where(depth > 0.0, growth * (1.0 + KNEE_STEEPENING * depth), 0.0)
        losses[number] = np.minimum(losses[number - 1] + more, 1.0)
        wear = stress.wear_at(np.full(len(a_day), number * step), traits)
        wear.knee_loss = losses[number]
        sound &= law.capacity(wear) > end_of_life + _SPARE_AT_ENTRY
        resistance = law.resistance(wear, knee_gain=recipe.knee_resistance_gain)
        sound &= resistance < failure_traits.resistance_limit - _RESISTANCE_TO_GO
        sound &= stress.swelling_a_day * (number * step) < _MOST_SWELLING
        oldest[sound] = number * step
    return _PastKnee(oldest=oldest, step_days=step, losses=losses)


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
