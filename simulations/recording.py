"""From measurements to the readings a device has kept: lost, doubled, ill-timed, reset.

As with sensing, a study may be recorded in parts of whole days, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.telemetry import COLUMN, MEASUREMENT_NAMES, MEASUREMENTS, SECONDS_PER_DAY

from .counter_random import Channel
from .lives import SAMPLES_A_DAY, Lives
from .sensing import last_day

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .counter_random import KeyedRandom
    from .recipe import FleetRecipe

_SLOT_S = SECONDS_PER_DAY // SAMPLES_A_DAY
_MOST_JITTER_S = 600
LONGEST_OUTAGE_DAYS = 40.0
_LONGEST_CLOCK_FAULT_DAYS = 10.0
_CLOCK_REPAIR_DAYS = 1.5
_FACTORY_CLOCK_S = 946_684_800  # 2000-01-01: a clock without power starts here
_FACTORY_SHARE = 0.10
_BACK_SHARE = 0.65
_MEDIAN_JUMP_S = 12 * 3600.0
_JUMP_SIGMA = 1.5
_LONGEST_JUMP_S = 400.0 * SECONDS_PER_DAY


class Recorded(NamedTuple):
    """Readings of a block of devices, by device and in the order of recording.

    Attributes:
        counts: int64, shape (n_devices,), readings of each device.
        at_s: int64, shape (n_readings,), by the device's own clock.
        values: float32, shape (n_readings, 8).
    """

    counts: NDArray[np.int64]
    at_s: NDArray[np.int64]
    values: NDArray[np.float32]


_COUNTERS = ("charge_cycle_count", "unexpected_shutdown_count")


@dataclass(slots=True)
class RecorderMemory:
    """What outlasts earlier days; shape (n_devices,), changed in place.

    Attributes:
        rebooted_on: day on which the counters were last lost, -1 = never.
        renewed_on: day on which the pack was last replaced.
        pack_number: of the pack that was last seen.
        at_reboot: what each of the two counters had counted then, shape (2, n_devices).
        outage_until: end of the last burst without readings, days from the start.
        clock_fault_on: day of the last jump of the clock, -1 = none.
    """

    rebooted_on: NDArray[np.int64]
    renewed_on: NDArray[np.int64]
    pack_number: NDArray[np.int8]
    at_reboot: NDArray[np.float32]
    outage_until: NDArray[np.float64]
    clock_fault_on: NDArray[np.int64]

    @staticmethod
    def new(num_devices: int) -> RecorderMemory:
        """Return the memory of devices that have not begun."""
        never = np.full(num_devices, -1, np.int64)
        return RecorderMemory(
            rebooted_on=never,
            renewed_on=never,
            pack_number=np.zeros(num_devices, np.int8),
            at_reboot=np.zeros((len(_COUNTERS), num_devices), np.float32),
            outage_until=np.full(num_devices, -1.0),
            clock_fault_on=never,
        )


def record(
    measured: NDArray[np.float32],
    lives: Lives,
    *,
    start_s: int,
    recipe: FleetRecipe,
    memory: RecorderMemory | None = None,
) -> Recorded:
    """Turn measurements into the readings that a device has stored.

    Args:
        measured: float32, shape (8, n_slots, n_devices), as `sensing.sense` returns it; changed.
        lives: the block of devices.
        start_s: seconds since the Unix epoch of the first midnight.
        recipe: how often what goes wrong.
        memory: of the days before those of `lives`; changed. Without one they are the first.
    """
    memory = RecorderMemory.new(measured.shape[2]) if memory is None else memory
    _restart_counters(measured, lives, recipe, memory)
    slots_a_reading = recipe.cadence_h * 3600 // _SLOT_S
    measured = _at_cadence(measured, slots_a_reading)
    num_readings = measured.shape[1]
    first = lives.days.first * SAMPLES_A_DAY // slots_a_reading
    reading = first + np.arange(num_readings, dtype=np.int64)[:, None]
    _lose_values(measured, reading, lives, recipe)
    jitter = (lives.random.uniform(Channel.JITTER, reading) * _MOST_JITTER_S).astype(np.int64)
    true_s = (reading + 1) * (_SLOT_S * slots_a_reading) - jitter
    clock_s = start_s + true_s + _clock_error_s(true_s, start_s, lives, recipe, memory)

    chance = lives.random.uniform(Channel.READING_LOST, reading)
    kept = chance >= recipe.lost_reading_share
    kept &= ~_in_outage(true_s, lives, recipe, memory)
    kept &= true_s >= lives.hardware.enters_day * SECONDS_PER_DAY
    kept &= true_s < lives.sends_until_day * SECONDS_PER_DAY
    twice = lives.random.uniform(Channel.DUPLICATE, reading) < recipe.duplicate_share
    copies = np.where(kept, np.where(twice, 2, 1), 0)

    times = copies.T.ravel()
    by_device = np.ascontiguousarray(measured.transpose(2, 1, 0))
    values = by_device.reshape(-1, len(MEASUREMENT_NAMES))
    return Recorded(
        counts=copies.sum(axis=0).astype(np.int64),
        at_s=np.repeat(clock_s.T.ravel(), times),
        values=np.repeat(values, times, axis=0),
    )


def _at_cadence(measured: NDArray[np.float32], slots: int) -> NDArray[np.float32]:
    """Sum up slots into readings: the last count, the highest, the mean, the total."""
    if slots == 1:
        return measured
    groups = measured.reshape(len(measured), -1, slots, measured.shape[2])
    merged = groups[:, :, -1].copy()
    for slot in range(slots - 1):
        _merge_slot(merged, groups[:, :, slot])
    merged[COLUMN["battery_temp_avg_c"]] /= slots
    return merged


def _merge_slot(merged: NDArray[np.float32], earlier: NDArray[np.float32]) -> None:
    peak = COLUMN["battery_temp_max_c"]
    merged[peak] = np.maximum(merged[peak], earlier[peak])
    for total in (COLUMN["battery_temp_avg_c"], COLUMN["usage_hours"]):
        merged[total] += earlier[total]
    charge = COLUMN["charge_duration_min"]
    merged[charge] = np.where(np.isnan(merged[charge]), earlier[charge], merged[charge])


def _restart_counters(
    measured: NDArray[np.float32], lives: Lives, recipe: FleetRecipe, memory: RecorderMemory
) -> None:
    """Let counters count from the last reboot that lost them.

    A new pack brings a new gauge, whose cycles start at 0 whatever the device has lost before.
    """
    days = lives.days
    chance = lives.random.uniform(Channel.REBOOT, days.numbers)
    reboots = chance < 1.0 / recipe.reboot_interval_days
    last_reboot = last_day(reboots, days, before=memory.rebooted_on)
    renewed = days.renewed_since(memory.pack_number)
    last_renewal = last_day(renewed, days, before=memory.renewed_on)
    counts_from = (np.where(last_reboot > last_renewal, last_reboot, -1), last_reboot)
    at_reboot = np.empty_like(memory.at_reboot)
    for place, (name, start_day) in enumerate(zip(_COUNTERS, counts_from, strict=True)):
        counter = measured[COLUMN[name]]
        slot = np.maximum(last_reboot - days.first, 0) * SAMPLES_A_DAY
        counted = np.take_along_axis(counter, slot, axis=0)
        counted = np.where(last_reboot < days.first, memory.at_reboot[place], counted)
        at_reboot[place] = counted[-1]
        lost = np.where(start_day < 0, np.float32(0.0), counted)
        counter -= np.repeat(lost, SAMPLES_A_DAY, axis=0)
    memory.rebooted_on, memory.renewed_on = last_reboot[-1], last_renewal[-1]
    memory.pack_number, memory.at_reboot = days.pack_number[-1], at_reboot


def _lose_values(
    measured: NDArray[np.float32], reading: NDArray[np.int64], lives: Lives, recipe: FleetRecipe
) -> None:
    """Blank single values; each hash serves four measurements with 16 bits each."""
    bound = np.uint64(round(recipe.missing_value_share * 65536))
    for first in range(0, len(MEASUREMENTS), 4):
        bits = lives.random.bits(Channel.VALUE_MISSING, 2 * reading + first // 4)
        for offset in range(4):
            lost = ((bits >> np.uint64(16 * offset)) & np.uint64(0xFFFF)) < bound
            measured[first + offset][lost] = np.nan


def _in_outage(
    true_s: NDArray[np.int64], lives: Lives, recipe: FleetRecipe, memory: RecorderMemory
) -> NDArray[np.bool_]:
    """Return which readings fall into a burst without any, shape (n_readings, n_devices)."""
    last_end = outage_ends(
        lives.random, lives.days.numbers, before=memory.outage_until, recipe=recipe
    )
    memory.outage_until = last_end[-1]
    return true_s < _of_day(last_end, true_s) * SECONDS_PER_DAY


def outage_ends(
    random: KeyedRandom,
    day: NDArray[np.int64],
    *,
    before: NDArray[np.float64],
    recipe: FleetRecipe,
) -> NDArray[np.float64]:
    """Return when the last burst that began until each day ends, days from the start.

    Args:
        random: of the devices.
        day: consecutive days, shape (n_days, 1).
        before: the end of the last burst before them, -1 = none, shape (n_devices,).
        recipe: how often, and how long.

    Returns:
        float64, shape (n_days, n_devices).
    """
    begins = random.uniform(Channel.OUTAGE, day) < 1.0 / recipe.outage_interval_days
    length = recipe.outage_mean_days * random.exponential(Channel.OUTAGE_LENGTH, day)
    ends = np.where(begins, day + np.minimum(length, LONGEST_OUTAGE_DAYS), -1.0)
    ends[0] = np.maximum(ends[0], before)
    return np.maximum.accumulate(ends, axis=0, out=ends)


def _clock_error_s(
    true_s: NDArray[np.int64],
    start_s: int,
    lives: Lives,
    recipe: FleetRecipe,
    memory: RecorderMemory,
) -> NDArray[np.int64]:
    """Return how far each device's clock is off, seconds, shape (n_readings, n_devices).

    A fault sets the clock back or forward, or to its factory setting; after some days it is put
    right again.
    """
    random, day = lives.random, lives.days.numbers
    begins = random.uniform(Channel.CLOCK_FAULT, day) < 1.0 / recipe.clock_fault_interval_days
    began = last_day(begins, lives.days, before=memory.clock_fault_on)
    memory.clock_fault_on = began[-1]
    lasts = np.minimum(
        _CLOCK_REPAIR_DAYS * random.exponential(Channel.CLOCK_REPAIR, np.maximum(began, 0)),
        _LONGEST_CLOCK_FAULT_DAYS,
    )
    kind = random.uniform(Channel.CLOCK_OFFSET, 2 * np.maximum(began, 0))
    z = random.normal(Channel.CLOCK_OFFSET, 2 * np.maximum(began, 0) + 1)
    jump = np.minimum(_MEDIAN_JUMP_S * np.exp(_JUMP_SIGMA * z), _LONGEST_JUMP_S)
    error = np.where(kind < _BACK_SHARE, -jump, jump)
    to_factory = _FACTORY_CLOCK_S - (start_s + SECONDS_PER_DAY * began)
    error = np.where(kind > 1.0 - _FACTORY_SHARE, to_factory, error)
    until = np.where(began >= 0, (began + lasts) * SECONDS_PER_DAY, -1.0)
    is_off = true_s < _of_day(until, true_s)
    return np.where(is_off, _of_day(error, true_s), 0.0).astype(np.int64)


def _of_day(values: NDArray[np.float64], true_s: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spread values of days, shape (n_days, n_devices), over the readings of each day."""
    return np.repeat(values, len(true_s) // len(values), axis=0)
