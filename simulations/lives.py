"""The lives of a block of devices: the loop over days, vectorised over devices."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from models.telemetry import SECONDS_PER_DAY

from .censoring import (
    FAILED,
    REPLACED_AFTER_NOTICE,
    REPLACED_BY_OWNER,
    RETIRED,
    STUDY_ENDED,
    draw_owners,
    owner_hazard,
    retirement_days,
)
from .climates import indoor_temperature, outdoor_temperature
from .counter_random import Channel, KeyedRandom
from .degradation import (
    CELL_CAPACITY_AH,
    advance_one_day,
    open_circuit_voltage,
    rates_of,
)
from .entry import enter
from .failures import (
    NO_CAUSE,
    draw_failure_traits,
    first_cause,
    swelling_stress,
)
from .manufacturing import Hardware, draw_cells, draw_hardware, replace_rows
from .truth import FleetTruth, Packs
from .users import Users, cell_temperature, depth_of, draw_users, state_of_charge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

SAMPLES_A_DAY = 4
_SATURDAY = 5
# A device whose failed pack holds less than this share of its design cannot start any more.
_COLLAPSED = 0.3


@dataclass(frozen=True, slots=True)
class Days:
    """What happened on each day, as the sensors will see it; shape (n_days, n_devices).

    Attributes:
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
    """

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

    @staticmethod
    def empty(num_days: int, num_devices: int) -> Days:
        """Return arrays to be filled day by day."""
        shape = (num_days, num_devices)
        double = {"full_cycles", "full_cycles_total"}
        arrays: dict[str, NDArray[Any]] = {
            f.name: np.empty(shape, np.float64 if f.name in double else np.float32)
            for f in fields(Days)
        }
        arrays["temperature_c"] = np.empty((num_days, SAMPLES_A_DAY, num_devices), np.float32)
        arrays["pack_number"] = np.empty(shape, np.int8)
        return Days(**arrays)


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
        truth: the hidden state.
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


def live(
    *,
    device_indices: NDArray[np.int64],
    num_days: int,
    seed: int,
    recipe: FleetRecipe,
    notice_replacement_days: Floats | None = None,
) -> Lives:
    """Let a block of devices live for `num_days`.

    Args:
        device_indices: numbers of the devices, shape (n_devices,).
        num_days: length of the study.
        seed: the fleet's.
        recipe: what the fleet is made of.
        notice_replacement_days: float64, shape (n_devices,): days from the start at which the owner
            replaces the first pack because of a notice; NaN = never.
    """
    block = _Block(
        device_indices=device_indices,
        num_days=num_days,
        seed=seed,
        recipe=recipe,
        notice_days=notice_replacement_days,
    )
    for day in range(num_days):
        block.live_one_day(day)
    return block.finish()


class _Block:
    """The state of a block of devices while it lives, as arrays of shape (n_devices,)."""

    def __init__(
        self,
        *,
        device_indices: NDArray[np.int64],
        num_days: int,
        seed: int,
        recipe: FleetRecipe,
        notice_days: Floats | None,
    ) -> None:
        count = len(device_indices)
        start = recipe.start_at.astimezone(UTC)
        self.recipe = recipe
        self.num_days = num_days
        self.device_indices = device_indices
        self.random = KeyedRandom(seed=seed, device_indices=device_indices)
        self.first_weekday = start.weekday()
        self.start_s = int(start.timestamp())
        self.hardware = draw_hardware(self.random, recipe=recipe)
        self.users = draw_users(self.random, recipe=recipe)
        self.design_mah = self.hardware.of_model("design_capacity_mah")
        self.end_of_life_mah = self.design_mah * self.hardware.of_model("end_of_life_share")
        self.outdoor_c = outdoor_temperature(
            num_days=num_days,
            seed=seed,
            first_day_of_year=start.timetuple().tm_yday - 1,
            warming_c=recipe.warming_c,
        )
        self.indoor_c = indoor_temperature(warming_c=recipe.warming_c)

        self.pack_number = np.zeros(count, np.int64)
        self.cells, self.bad_lot = draw_cells(
            self.random, pack_number=self.pack_number, recipe=recipe
        )
        self.failure_traits = draw_failure_traits(
            self.random,
            pack_number=self.pack_number,
            lot_factor=self._lot_factor(self.bad_lot),
            recipe=recipe,
        )
        self.owners = draw_owners(self.random, pack_number=self.pack_number, recipe=recipe)
        entry = enter(
            self.random,
            users=self.users,
            traits=self.cells,
            failure_traits=self.failure_traits,
            end_of_life=self.end_of_life_mah / (self.design_mah * self.cells.capacity_factor),
            recipe=recipe,
        )
        self.age_at_start_days = entry.age_days
        self.wear = entry.wear
        self.swelling = entry.swelling
        self.installed_day = np.zeros(count)
        self.owner_hazard = np.zeros(count)
        self.has_failed = np.zeros(count, bool)
        self.has_gone = np.zeros(count, bool)
        self.is_silent = np.zeros(count, bool)
        self.renew_day = np.full(count, np.inf)
        self.sends_until_day = np.full(count, np.inf)
        self.retire_day = retirement_days(self.random, recipe=recipe)
        self.notice_day = np.full(count, np.inf)
        if notice_days is not None:
            self.notice_day = np.where(np.isnan(notice_days), np.inf, np.ceil(notice_days))
        self.days = Days.empty(num_days, count)
        self.capacity_mah = self._capacity_mah()
        self.ended: list[Packs] = []

    def live_one_day(self, day: int) -> None:
        self._renew_packs(day)
        weekend = (self.first_weekday + day) % 7 >= _SATURDAY
        cycles = self.users.cycles_of_day(
            self.random, day=day, weekend=weekend, shape=self.recipe.efc_shape
        )
        depth = depth_of(cycles, self.users.soc_ceiling)
        voltage = open_circuit_voltage(state_of_charge(self.users, depth))
        temperature = cell_temperature(
            self.users,
            outdoor_c=self.outdoor_c[day],
            indoor_c=self.indoor_c,
            full_cycles=cycles,
        )
        rates = rates_of(voltage_v=voltage, temperature_c=temperature, depth_of_discharge=depth)
        advance_one_day(
            self.wear,
            rates=rates,
            traits=self.cells,
            full_cycles=cycles,
            throughput_ah=2.0 * CELL_CAPACITY_AH * cycles * self.wear.capacity(),
        )
        self.swelling += self.failure_traits.swelling_a_day * swelling_stress(
            voltage_v=voltage, temperature_c=temperature
        )
        self.capacity_mah = self._capacity_mah()
        resistance = self.wear.resistance(knee_gain=self.recipe.knee_resistance_gain)
        self._retire(day)
        self._fail(day, resistance)
        self._owners_decide(day)
        self._note(day, cycles, depth, temperature, resistance)

    def _capacity_mah(self) -> Floats:
        return self.design_mah * self.cells.capacity_factor * self.wear.capacity()

    def _lot_factor(self, bad_lot: NDArray[np.bool_]) -> Floats:
        return np.where(bad_lot, self.recipe.bad_lot_factor, 1.0)

    def _retire(self, day: int) -> None:
        collapsed = self.has_failed & (self.capacity_mah < _COLLAPSED * self.design_mah)
        self.retire_day[collapsed & ~self.has_gone] = day
        leaving = np.flatnonzero((self.retire_day < day + 1) & ~self.has_gone)
        if len(leaving) == 0:
            return
        in_use = leaving[~self.has_failed[leaving]]
        self._end_packs(in_use, ended_day=self.retire_day[in_use], ending=RETIRED)
        self.sends_until_day[leaving] = self.retire_day[leaving]
        self.has_gone[leaving] = True

    def _fail(self, day: int, resistance: Floats) -> None:
        cause = first_cause(
            capacity=self.capacity_mah,
            capacity_limit=self.end_of_life_mah,
            resistance=resistance,
            swelling=self.swelling,
            days_in_service=day + 1.0 - self.installed_day,
            traits=self.failure_traits,
        )
        failing = np.flatnonzero((cause != NO_CAUSE) & ~self.has_failed & ~self.has_gone)
        if len(failing) == 0:
            return
        moment = day + self.random.uniform(Channel.FAILURE_MOMENT, day)[failing]
        self._end_packs(failing, ended_day=moment, ending=FAILED, cause=cause[failing])
        self.has_failed[failing] = True
        self.renew_day[failing] = moment + self.owners.replacement_delay_days[failing]
        silent_share = np.array(self.recipe.silent_shares)[cause[failing]]
        silent = self.owners.silence[failing] < silent_share
        self.is_silent[failing[silent]] = True
        self.has_gone[failing[silent]] = True
        self.sends_until_day[failing[silent]] = moment[silent]

    def _owners_decide(self, day: int) -> None:
        new_mah = self.design_mah * self.cells.capacity_factor
        spare = new_mah - self.end_of_life_mah
        margin = (self.capacity_mah - self.end_of_life_mah) / np.maximum(spare, 1.0)
        self.owner_hazard += owner_hazard(margin=margin, recipe=self.recipe)
        deciding = (self.owner_hazard >= self.owners.patience) & ~self.has_failed & ~self.has_gone
        self.renew_day[deciding] = day + 1.0

    def _renew_packs(self, day: int) -> None:
        noticed = (self.notice_day <= day) & (self.pack_number == 0)
        renewed = np.flatnonzero(((self.renew_day <= day) | noticed) & ~self.has_gone)
        if len(renewed) == 0:
            return
        in_use = renewed[~self.has_failed[renewed]]
        for ending, which in (
            (REPLACED_AFTER_NOTICE, noticed[in_use]),
            (REPLACED_BY_OWNER, ~noticed[in_use]),
        ):
            self._end_packs(in_use[which], ended_day=float(day), ending=ending)
        self.pack_number[renewed] += 1
        random, number = self.random.of_devices(renewed), self.pack_number[renewed]
        cells, bad_lot = draw_cells(random, pack_number=number, recipe=self.recipe)
        replace_rows(self.cells, renewed, cells)
        self.bad_lot[renewed] = bad_lot
        limits = draw_failure_traits(
            random, pack_number=number, lot_factor=self._lot_factor(bad_lot), recipe=self.recipe
        )
        replace_rows(self.failure_traits, renewed, limits)
        owners = draw_owners(random, pack_number=number, recipe=self.recipe)
        replace_rows(self.owners, renewed, owners)
        self.wear.renew(renewed)
        self.swelling[renewed] = 0.0
        self.installed_day[renewed] = day
        self.owner_hazard[renewed] = 0.0
        self.has_failed[renewed] = False
        self.renew_day[renewed] = np.inf

    def _end_packs(
        self,
        positions: NDArray[np.intp],
        *,
        ended_day: Floats | float,
        ending: str,
        cause: NDArray[np.int64] | int = NO_CAUSE,
    ) -> None:
        count = len(positions)
        self.ended.append(
            Packs(
                device=positions.astype(np.int64),
                pack_number=self.pack_number[positions],
                installed_at_s=self.start_s
                + (SECONDS_PER_DAY * self.installed_day[positions]).astype(np.int64),
                ended_at_s=np.broadcast_to(self.start_s + SECONDS_PER_DAY * ended_day, count),
                ending=np.full(count, ending, dtype=object),
                cause=np.broadcast_to(np.int64(cause), count),
                capacity_when_new_mah=(self.design_mah * self.cells.capacity_factor)[positions],
                is_bad_lot=self.bad_lot[positions],
            )
        )

    def _note(
        self, day: int, cycles: Floats, depth: Floats, temperature: Floats, resistance: Floats
    ) -> None:
        days = self.days
        days.capacity_mah[day] = self.capacity_mah
        days.resistance[day] = resistance
        days.resistance_limit[day] = self.failure_traits.resistance_limit
        days.resistance_mohm[day] = (
            resistance
            * self.cells.resistance_factor
            * self.hardware.of_model("new_resistance_mohm")
        )
        days.swelling[day] = self.swelling
        days.charge_stretch[day] = self.failure_traits.charge_stretch(
            day + 1.0 - self.installed_day
        )
        days.full_cycles[day] = cycles
        days.full_cycles_total[day] = self.wear.full_cycles
        days.depth[day] = depth
        days.temperature_c[day] = temperature
        days.pack_number[day] = self.pack_number

    def finish(self) -> Lives:
        in_use = np.flatnonzero(~self.has_failed & ~self.has_gone)
        self._end_packs(in_use, ended_day=float(self.num_days), ending=STUDY_ENDED)
        return Lives(
            random=self.random,
            hardware=self.hardware,
            users=self.users,
            age_at_start_days=self.age_at_start_days,
            design_mah=self.design_mah,
            end_of_life_mah=self.end_of_life_mah,
            sends_until_day=self.sends_until_day,
            days=self.days,
            truth=self._truth(),
        )

    def _truth(self) -> FleetTruth:
        columns = {
            f.name: np.concatenate([getattr(part, f.name) for part in self.ended])
            for f in fields(Packs)
        }
        order = np.lexsort((columns["pack_number"], columns["device"]))
        day_end = np.arange(1.0, self.num_days + 1)[:, None]
        absent = (day_end > self.sends_until_day).T
        has_retired = (self.sends_until_day == self.retire_day) & ~self.is_silent
        retired = np.where(has_retired, self.retire_day, np.nan)
        return FleetTruth(
            device_index=self.device_indices,
            day_start_s=self.start_s + SECONDS_PER_DAY * np.arange(self.num_days, dtype=np.int64),
            capacity_mah=np.where(absent, np.float32(np.nan), self.days.capacity_mah.T),
            resistance_ratio=np.where(absent, np.float32(np.nan), self.days.resistance.T),
            swelling=np.where(absent, np.float32(np.nan), self.days.swelling.T),
            pack_number=np.where(absent, np.int8(-1), self.days.pack_number.T),
            is_silent=self.is_silent,
            retired_at_s=self.start_s + SECONDS_PER_DAY * retired,
            packs=Packs(**columns).rows(order),
        )
