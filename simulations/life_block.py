"""A block of devices that live day by day, vectorised over the devices.

What days do to the cells is worked out for several days at once (`daily_stress`); wear, failures
and new packs go day by day. Nothing that happens to a device depends on the other devices of its
block, nor on how many days are asked for at once.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import numpy as np

from models.telemetry import SECONDS_PER_DAY

from .censoring import (
    FAILED,
    REPLACED_AFTER_NOTICE,
    REPLACED_BY_OWNER,
    RETIRED,
    STUDY_ENDED,
    owner_hazards,
    retirement_days,
)
from .chemistries import law_of
from .climates import indoor_temperature, outdoor_temperature
from .counter_random import Channel, KeyedRandom
from .daily_stress import stress_of_days
from .degradation import advance_one_day
from .entry import enter
from .failures import (
    NO_CAUSE,
    first_cause,
    swelling_stress,
)
from .habits import Habits, habits_of
from .life_notes import DayNotes
from .manufacturing import draw_hardware, replace_rows
from .pack_draws import DrawnPacks, draw_packs
from .truth import FleetTruth, Packs, join_packs
from .users import draw_users

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chemistries import Rates
    from .lives import Days
    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

_SATURDAY = 5
# A device whose failed pack holds less than this share of its design cannot start any more.
_COLLAPSED = 0.3
# Stress of so many device-days at once stays in a core's cache and outweighs the calls.
_DEVICE_DAYS_AT_ONCE = 2048


class LifeBlock:
    """The state of a block of devices while it lives, as arrays of shape (n_devices,)."""

    def __init__(
        self,
        *,
        device_indices: NDArray[np.int64],
        num_days: int,
        seed: int,
        recipe: FleetRecipe,
        notice_days: Floats | None = None,
    ) -> None:
        """Draw the devices and their first packs.

        Args:
            device_indices: numbers of the devices, shape (n_devices,).
            num_days: length of the study.
            seed: the fleet's.
            recipe: what the fleet is made of.
            notice_days: float64, shape (n_devices,): days from the start at which the owner
                replaces the first pack because of a notice; NaN = never.
        """
        count = len(device_indices)
        start = recipe.start_at.astimezone(UTC)
        self.recipe = recipe
        self.num_days = num_days
        self.device_indices = device_indices
        self.random = KeyedRandom(seed=seed, device_indices=device_indices)
        self.start_s = int(start.timestamp())
        self.day = 0
        self._first_weekday = start.weekday()
        self._outdoor_c = outdoor_temperature(
            num_days=num_days,
            seed=seed,
            first_day_of_year=start.timetuple().tm_yday - 1,
            warming_c=recipe.warming_c,
        )
        self._indoor_c = indoor_temperature(warming_c=recipe.warming_c)
        self.hardware = draw_hardware(self.random, recipe=recipe)
        self.law = law_of(self.hardware.chemistries)
        self.users = draw_users(self.random, recipe=recipe)
        self._changed_on = np.full(count, -1, np.int64)
        self.design_mah = self.hardware.of_model("design_capacity_mah")
        self.new_resistance_mohm = self.hardware.of_model("new_resistance_mohm")
        self.end_of_life_mah = self.design_mah * self.hardware.of_model("end_of_life_share")
        self._owner_hazards = owner_hazards(recipe)
        self._draw_first_packs()
        self._begin(notice_days)

    def _draw_first_packs(self) -> None:
        self.pack_number = np.zeros(len(self.device_indices), np.int64)
        self._later_packs: list[DrawnPacks] = []
        self.cells, self.failure_traits, self.owners, self.bad_lot = draw_packs(
            self.random, number=0, recipe=self.recipe
        )
        entry = enter(
            self.random,
            law=self.law,
            users=self.users,
            traits=self.cells,
            failure_traits=self.failure_traits,
            end_of_life=self.end_of_life_mah / (self.design_mah * self.cells.capacity_factor),
            recipe=self.recipe,
        )
        enters_new = self.hardware.enters_day > 0
        self.age_at_start_days = np.where(enters_new, 0.0, entry.age_days)
        self.wear = entry.wear
        self.swelling = entry.swelling

    def _begin(self, notice_days: Floats | None) -> None:
        count = len(self.device_indices)
        self.installed_day = self.hardware.enters_day.copy()
        self.owner_hazard = np.zeros(count)
        self.has_failed = np.zeros(count, bool)
        self.has_gone = self.hardware.enters_day > 0
        self._in_use = ~self.has_gone
        self.is_silent = np.zeros(count, bool)
        self.renew_day = np.full(count, np.inf)
        self.sends_until_day = np.full(count, np.inf)
        self.retire_day = self.hardware.enters_day + retirement_days(
            self.random, recipe=self.recipe
        )
        self._has_notices = notice_days is not None
        self.notice_day = np.full(count, np.inf)
        if notice_days is not None:
            self.notice_day = np.where(np.isnan(notice_days), np.inf, np.ceil(notice_days))
        self._ended: list[Packs] = []
        self.new_mah = np.empty(count)
        self._spare_mah = np.empty(count)
        self._strikes_after_days = np.empty(count)
        self._of_packs(np.arange(count))
        self.health = self.law.capacity(self.wear)
        self.capacity_mah = self.new_mah * self.health
        self.resistance = self.law.resistance(self.wear, knee_gain=self.recipe.knee_resistance_gain)

    def _of_packs(self, positions: NDArray[np.intp]) -> None:
        """Work out what holds as long as the same packs are in."""
        traits = self.failure_traits
        new_mah = self.design_mah[positions] * self.cells.capacity_factor[positions]
        self.new_mah[positions] = new_mah
        self._spare_mah[positions] = np.maximum(new_mah - self.end_of_life_mah[positions], 1.0)
        faulty_on = traits.charger_onset_day[positions] + traits.charger_rise_days[positions]
        self._strikes_after_days[positions] = np.minimum(faulty_on, traits.sudden_day[positions])

    def live(self, num_days: int) -> Days:
        """Go on for some days within the study; return what sensors need to know of them."""
        until = min(self.day + num_days, self.num_days)
        notes = DayNotes(self, num_days=until - self.day)
        self._live_until(until, notes)
        return notes.days()

    def live_unseen(self, num_days: int) -> None:
        """Go on for some days within the study and note nothing of them."""
        self._live_until(min(self.day + num_days, self.num_days), None)

    def _live_until(self, until: int, notes: DayNotes | None) -> None:
        at_once = max(1, _DEVICE_DAYS_AT_ONCE // len(self.device_indices))
        while self.day < until:
            self._live_some(min(at_once, until - self.day), notes)

    def _live_some(self, count: int, notes: DayNotes | None) -> None:
        days = self.day + np.arange(count, dtype=np.int64)
        habits = self._habits_on(days)
        cycles = self.users.cycles_of_days(
            self.random,
            days=days,
            weekend=(self._first_weekday + days) % 7 >= _SATURDAY,
            shape=self.recipe.efc_shape,
            usual=None if habits is None else habits.full_cycles_a_day,
        )
        stress, temperature_c = stress_of_days(
            self.users,
            self.law,
            full_cycles=cycles,
            outdoor_c=self._outdoor_c[days[0] : days[0] + count],
            indoor_c=self._indoor_c,
            ceiling=None if habits is None else habits.soc_ceiling,
        )
        rates = self.law.rates(stress)
        swelling = swelling_stress(voltage_v=stress.voltage_v, inverse_kelvin=stress.inverse_kelvin)
        if notes is not None:
            notes.of_stress(stress, temperature_c, habits)
        for number in range(count):
            self._live_one(rates.of_day(number), cycles[number], swelling[number])
            if notes is not None:
                notes.of_day(self)
            self.day += 1

    def _habits_on(self, days: NDArray[np.int64]) -> Habits | None:
        if self.recipe.user_changes_a_year == 0:
            return None
        habits = habits_of(
            self.random, self.users, days=days, changed_on=self._changed_on, recipe=self.recipe
        )
        self._changed_on = habits.changed_on[-1]
        return habits

    def _live_one(self, rates: Rates, full_cycles: Floats, swelling_stress: Floats) -> None:
        self._enter_devices()
        self._renew_packs()
        advance_one_day(
            self.wear,
            law=self.law,
            rates=rates,
            traits=self.cells,
            full_cycles=full_cycles,
            capacity=self.health,
        )
        self.swelling += self.failure_traits.swelling_a_day * swelling_stress
        self.health = self.law.capacity(self.wear)
        np.multiply(self.new_mah, self.health, out=self.capacity_mah)
        self.resistance = self.law.resistance(self.wear, knee_gain=self.recipe.knee_resistance_gain)
        self._retire()
        self._fail()
        self._owners_decide()

    def _enter_devices(self) -> None:
        """Let the devices begin whose first day it is, with the pack that was drawn for them."""
        if self.day == 0 or self.recipe.new_model_share == 0:
            return
        entering = np.flatnonzero(self.hardware.enters_day == self.day)
        self.has_gone[entering] = False
        self._in_use[entering] = True
        self._put_in(entering)

    def _put_in(self, positions: NDArray[np.intp]) -> None:
        """Start the life of packs that were never used."""
        self.wear.renew(positions)
        self.health[positions] = 1.0
        self.swelling[positions] = 0.0
        self.owner_hazard[positions] = 0.0
        self.installed_day[positions] = self.day

    def _retire(self) -> None:
        failed = np.flatnonzero(self.has_failed & ~self.has_gone)
        if len(failed):
            left = self.capacity_mah[failed] < _COLLAPSED * self.design_mah[failed]
            self.retire_day[failed[left]] = self.day
        leaves = self.retire_day < self.day + 1
        leaves &= ~self.has_gone
        leaving = np.flatnonzero(leaves)
        if len(leaving) == 0:
            return
        in_use = leaving[~self.has_failed[leaving]]
        self._end_packs(in_use, ended_day=self.retire_day[in_use], ending=RETIRED)
        self.sends_until_day[leaving] = self.retire_day[leaving]
        self.has_gone[leaving] = True
        self._in_use[leaving] = False

    def _fail(self) -> None:
        in_service = self.day + 1.0 - self.installed_day
        struck = self.capacity_mah < self.end_of_life_mah
        struck |= self.resistance > self.failure_traits.resistance_limit
        struck |= self.swelling >= 1.0
        struck |= in_service > self._strikes_after_days
        struck &= self._in_use
        failing = np.flatnonzero(struck)
        if len(failing) == 0:
            return
        cause = first_cause(
            capacity=self.capacity_mah[failing],
            capacity_limit=self.end_of_life_mah[failing],
            resistance=self.resistance[failing],
            swelling=self.swelling[failing],
            days_in_service=in_service[failing],
            traits=self.failure_traits.rows(failing),
        )
        random = self.random.of_devices(failing)
        moment = self.day + random.uniform(Channel.FAILURE_MOMENT, self.day)
        self._end_packs(failing, ended_day=moment, ending=FAILED, cause=cause)
        self.has_failed[failing] = True
        self._in_use[failing] = False
        self.renew_day[failing] = moment + self.owners.replacement_delay_days[failing]
        silent_share = np.array(self.recipe.silent_shares)[cause]
        silent = self.owners.silence[failing] < silent_share
        self.is_silent[failing[silent]] = True
        self.has_gone[failing[silent]] = True
        self.sends_until_day[failing[silent]] = moment[silent]

    def _owners_decide(self) -> None:
        margin = self.capacity_mah - self.end_of_life_mah
        margin /= self._spare_mah
        self.owner_hazard += self._owner_hazards.of(margin)
        deciding = self.owner_hazard >= self.owners.patience
        deciding &= self._in_use
        self.renew_day[deciding] = self.day + 1.0

    def _renew_packs(self) -> None:
        due = self.renew_day <= self.day
        if self._has_notices:
            due |= (self.notice_day <= self.day) & (self.pack_number == 0)
        due &= ~self.has_gone
        renewed = np.flatnonzero(due)
        if len(renewed) == 0:
            return
        in_use = renewed[self._in_use[renewed]]
        noticed = (self.notice_day[in_use] <= self.day) & (self.pack_number[in_use] == 0)
        for ending, which in ((REPLACED_AFTER_NOTICE, noticed), (REPLACED_BY_OWNER, ~noticed)):
            self._end_packs(in_use[which], ended_day=float(self.day), ending=ending)
        self.pack_number[renewed] += 1
        for number in set(self.pack_number[renewed].tolist()):
            self._draw_packs(renewed[self.pack_number[renewed] == number], number)
        self._put_in(renewed)
        self.has_failed[renewed] = False
        self._in_use[renewed] = True
        self.renew_day[renewed] = np.inf
        self._of_packs(renewed)

    def _draw_packs(self, positions: NDArray[np.intp], number: int) -> None:
        """Give devices their packs of a number, which are drawn for all devices at once."""
        while len(self._later_packs) < number:
            later = draw_packs(self.random, number=len(self._later_packs) + 1, recipe=self.recipe)
            self._later_packs.append(later)
        drawn = self._later_packs[number - 1]
        replace_rows(self.cells, positions, drawn.cells)
        replace_rows(self.failure_traits, positions, drawn.failure_traits)
        replace_rows(self.owners, positions, drawn.owners)
        self.bad_lot[positions] = drawn.is_bad_lot[positions]

    def _end_packs(
        self,
        positions: NDArray[np.intp],
        *,
        ended_day: Floats | float,
        ending: str,
        cause: NDArray[np.int64] | int = NO_CAUSE,
    ) -> None:
        count = len(positions)
        if count == 0:
            return
        self._ended.append(
            Packs(
                device=positions.astype(np.int64),
                pack_number=self.pack_number[positions],
                installed_at_s=self.start_s
                + (SECONDS_PER_DAY * self.installed_day[positions]).astype(np.int64),
                ended_at_s=np.full(count, self.start_s + SECONDS_PER_DAY * ended_day),
                ending=np.full(count, ending, dtype=object),
                cause=np.full(count, cause, np.int64),
                capacity_when_new_mah=self.new_mah[positions],
                is_bad_lot=self.bad_lot[positions],
            )
        )

    def truth(self, days: Days | None) -> FleetTruth:
        """Return the hidden state of the days that were noted, and every pack's life so far.

        Packs in use end with the study; those of devices that have not begun are listed as such.
        """
        not_begun = self.hardware.enters_day >= max(self.day, 1)
        in_use = np.flatnonzero(self._in_use | not_begun)
        ended = len(self._ended)
        self._end_packs(
            in_use,
            ended_day=np.maximum(float(self.day), self.installed_day[in_use]),
            ending=STUDY_ENDED,
        )
        packs = join_packs(self._ended)
        del self._ended[ended:]
        has_retired = (self.sends_until_day == self.retire_day) & ~self.is_silent
        retired = np.where(has_retired, self.retire_day, np.nan)
        return FleetTruth.of_days(
            days,
            device_index=self.device_indices,
            start_s=self.start_s,
            num_days=self.day,
            enters_day=self.hardware.enters_day,
            sends_until_day=self.sends_until_day,
            is_silent=self.is_silent,
            retired_at_s=self.start_s + SECONDS_PER_DAY * retired,
            packs=packs.rows(np.lexsort((packs.pack_number, packs.device))),
        )
