"""What the sensors and the gauge of a device make of its true state.

Arrays are shaped (n_slots, n_devices): a slot is a quarter of a day, read at its end. The gauge
is biased (1.5-3 % by device model), noisy (1 %), shows integer percent of the design, and its bias
jumps when it learns the capacity anew. A study may be sensed in parts of whole days, one after the
other: what a device remembers from one part to the next is a `SensorMemory`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.telemetry import COLUMN, MEASUREMENT_NAMES

from .counter_random import Channel
from .failures import heat_trapped_c, shutdowns_a_day
from .lives import SAMPLES_A_DAY, Lives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .lives import Days
    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

_LASTING_BIAS = 0.7
_COLD_CAPACITY_LOSS_PER_C = 0.001
_COLD_BELOW_C = 15.0
_RESISTANCE_COLD_GAIN_PER_C = 0.004
_CHARGE_TAIL_MIN = 22.0
_TAIL_BELOW_CEILING = 0.3
SKIPPED_CHARGE_SHARE = 0.05
_SLOW_CHARGER_SHARE = 0.03
_HOURS_A_SLOT = 24.0 / SAMPLES_A_DAY
_MOST_SHUTDOWNS_A_SLOT = 5


@dataclass(slots=True)
class SensorMemory:
    """What gauges and counters remember of earlier days; shape (n_devices,), changed in place.

    Attributes:
        learnt_on: day on which the gauge last learnt its capacity, -1 = never.
        pack_number: of the pack that was last seen.
        shutdowns: since the device was new.
    """

    learnt_on: NDArray[np.int64]
    pack_number: NDArray[np.int8]
    shutdowns: Floats

    @staticmethod
    def new(num_devices: int) -> SensorMemory:
        """Return the memory of devices that have not begun."""
        return SensorMemory(
            np.full(num_devices, -1, np.int64),
            np.zeros(num_devices, np.int8),
            np.zeros(num_devices),
        )


def sense(
    lives: Lives, *, recipe: FleetRecipe, memory: SensorMemory | None = None
) -> NDArray[np.float32]:
    """Return what every device would measure in every slot, before anything is lost.

    Args:
        lives: a block of devices.
        recipe: noise and bias.
        memory: of the days before those of `lives`; changed. Without one they are the first.

    Returns:
        float32, shape (8 measurements in the order of `MEASUREMENTS`, n_slots, n_devices); NaN
        where nothing was measured. Counters count from the pack's or the device's beginning.
    """
    days, count = lives.days, len(lives.design_mah)
    memory = SensorMemory.new(count) if memory is None else memory
    num_slots = len(days) * SAMPLES_A_DAY
    slots = days.first * SAMPLES_A_DAY + np.arange(num_slots, dtype=np.int64)[:, None]
    temperature = days.temperature_c.reshape(num_slots, count).astype(np.float64)
    load = _per_slot(lives.users.load(days.full_cycles))
    measured = np.full((len(MEASUREMENT_NAMES), num_slots, count), np.nan, np.float32)
    average, highest = _temperatures(lives, slots, temperature, load)
    channels = {
        "full_charge_capacity_mah": _capacity(lives, slots, temperature, recipe, memory),
        "charge_cycle_count": _cycle_count(lives),
        "charge_duration_min": _charge_duration(lives),
        "battery_temp_max_c": highest,
        "battery_temp_avg_c": average,
        "unexpected_shutdown_count": _shutdown_count(lives, slots, temperature, load, memory),
        "usage_hours": _usage_hours(lives, slots),
        "internal_resistance_mohm": _resistance(lives, slots, temperature, recipe),
    }
    for name, values in channels.items():
        measured[COLUMN[name]] = np.where(lives.hardware.lacks(name), np.nan, values)
    memory.pack_number = days.pack_number[-1]
    return measured


def _per_slot(values: NDArray[np.float64]) -> Floats:
    """Flatten (n_days, 4, n_devices) to (n_slots, n_devices)."""
    return values.reshape(-1, values.shape[-1])


def _repeated(values: NDArray[np.float32]) -> Floats:
    """Repeat each day's value in its four slots."""
    return np.repeat(values.astype(np.float64), SAMPLES_A_DAY, axis=0)


def _capacity(
    lives: Lives,
    slots: NDArray[np.int64],
    temperature: Floats,
    recipe: FleetRecipe,
    memory: SensorMemory,
) -> Floats:
    cold = np.maximum(_COLD_BELOW_C - temperature, 0.0)
    gauge = _repeated(lives.days.capacity_mah)
    gauge *= _repeated((1.0 + _gauge_bias(lives, recipe, memory)).astype(np.float32))
    gauge *= 1.0 - _COLD_CAPACITY_LOSS_PER_C * cold
    gauge *= 1.0 + recipe.gauge_noise * lives.random.normal(Channel.CAPACITY_NOISE, slots)
    if recipe.gauge_step > 0:
        step = recipe.gauge_step * lives.design_mah
        gauge = np.round(gauge / step) * step
    return np.maximum(gauge, 1.0)


def _gauge_bias(lives: Lives, recipe: FleetRecipe, memory: SensorMemory) -> Floats:
    """Return the relative bias of the gauge, shape (n_days, n_devices).

    It is constant until the gauge learns anew, which it also does with a new pack; each time seven
    tenths of it last.
    """
    random, day = lives.random, lives.days.numbers
    learns = random.uniform(Channel.GAUGE_RELEARN, day) < 1.0 / recipe.relearn_interval_days
    learns |= lives.days.renewed_since(memory.pack_number)
    learnt_on = last_day(learns, lives.days, before=memory.learnt_on)
    memory.learnt_on = learnt_on[-1]
    lasting = random.normal(Channel.GAUGE_BIAS)
    jumping = random.normal(Channel.GAUGE_BIAS, learnt_on + 2)
    spread = recipe.gauge_bias_scale * lives.hardware.of_model("gauge_bias_sd")
    bias: Floats = _LASTING_BIAS * lasting + np.sqrt(1.0 - _LASTING_BIAS**2) * jumping
    return spread * bias


def _cycle_count(lives: Lives) -> Floats:
    done = np.empty_like(lives.users.activity)
    done[0] = lives.users.activity[0]
    for slot in range(1, SAMPLES_A_DAY):
        done[slot] = done[slot - 1] + lives.users.activity[slot]
    left = lives.days.full_cycles[:, None, :] * (1.0 - done)
    return np.floor(_per_slot(lives.days.full_cycles_total[:, None, :] - left) + 1e-9)


def _charge_duration(lives: Lives) -> Floats:
    """Return minutes of the charge that ends in a slot, NaN where none does.

    Constant current fills the depth of the day; the constant-voltage tail grows with resistance and
    is short for those who stop early. One charge in 33 runs on a weak charger.
    """
    days, random = lives.days, lives.random
    day = days.numbers
    filled = days.depth * days.capacity_mah / lives.design_mah
    ceiling = lives.users.soc_ceiling if days.habits is None else days.habits.soc_ceiling
    full = ceiling >= 1.0
    tail = _CHARGE_TAIL_MIN * np.where(full, 1.0, _TAIL_BELOW_CEILING)
    minutes = 60.0 * filled / lives.hardware.of_model("charge_c_rate") + tail * days.resistance
    minutes *= days.charge_stretch * (1.0 + 0.1 * np.clip(days.swelling, 0.0, 1.2))
    minutes *= np.exp(0.06 * random.normal(Channel.CHARGE_NOISE, day))
    chance = random.uniform(Channel.CHARGE_SKIPPED, day)
    minutes = np.where(chance > 1.0 - _SLOW_CHARGER_SHARE, 1.6 * minutes, minutes)
    minutes = np.where(chance < SKIPPED_CHARGE_SHARE, np.nan, np.round(minutes))
    quarter = np.arange(SAMPLES_A_DAY)[:, None]
    return _per_slot(np.where(quarter == lives.users.charge_slot, minutes[:, None, :], np.nan))


def _temperatures(
    lives: Lives, slots: NDArray[np.int64], temperature: Floats, load: Floats
) -> tuple[Floats, Floats]:
    random = lives.random
    offset = 0.4 * random.normal(Channel.TEMPERATURE_OFFSET)
    average = temperature + offset + 0.2 * random.normal(Channel.TEMPERATURE_NOISE, slots)
    trapped = heat_trapped_c(_repeated(lives.days.swelling)) * (0.4 + 0.6 * load)
    above = 0.6 + 0.5 * lives.users.self_heating_c * load + trapped
    above += 0.5 * np.abs(random.normal(Channel.PEAK_NOISE, slots))
    return np.round(average, 1), np.round(average + above, 1)


def _shutdown_count(
    lives: Lives,
    slots: NDArray[np.int64],
    temperature: Floats,
    load: Floats,
    memory: SensorMemory,
) -> Floats:
    """Return the shutdowns since the device was new, which are Poisson in each slot."""
    mean_load = np.maximum(lives.users.full_cycles_a_day, 0.05)
    if lives.days.habits is not None:
        usual = np.maximum(lives.days.habits.full_cycles_a_day, 0.05)
        mean_load = np.repeat(usual, SAMPLES_A_DAY, axis=0)
    expected = shutdowns_a_day(
        resistance=_repeated(lives.days.resistance),
        limit=_repeated(lives.days.resistance_limit),
        temperature_c=temperature,
        load=np.minimum(load / mean_load, 3.0),
    )
    expected /= SAMPLES_A_DAY
    chance = lives.random.uniform(Channel.SHUTDOWNS, slots)
    term = np.exp(-expected)
    reached = term.copy()
    shutdowns = (chance > reached).astype(np.float64)
    for number in range(1, _MOST_SHUTDOWNS_A_SLOT):
        term *= expected / number
        reached += term
        shutdowns += chance > reached
    shutdowns[slots < SAMPLES_A_DAY * lives.hardware.enters_day] = 0.0
    counted: Floats = np.cumsum(shutdowns, axis=0)
    counted += memory.shutdowns
    memory.shutdowns = counted[-1]
    return counted


def last_day(
    happens: NDArray[np.bool_], days: Days, *, before: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the last day until each day on which something happened, shape (n_days, n_devices).

    Args:
        happens: on which days, same shape.
        days: their numbers.
        before: the last day before them, -1 = none, shape (n_devices,).
    """
    last = np.where(happens, days.numbers, -1)
    last[0] = np.maximum(last[0], before)
    return np.maximum.accumulate(last, axis=0, out=last)


def _usage_hours(lives: Lives, slots: NDArray[np.int64]) -> Floats:
    hours = _per_slot(lives.days.full_cycles[:, None, :] * lives.users.activity)
    hours *= lives.hardware.of_model("hours_a_cycle")
    hours *= np.exp(0.1 * lives.random.normal(Channel.USAGE_NOISE, slots))
    return np.minimum(hours, _HOURS_A_SLOT).round(2)


def _resistance(
    lives: Lives, slots: NDArray[np.int64], temperature: Floats, recipe: FleetRecipe
) -> Floats:
    shown = _repeated(lives.days.resistance_mohm)
    shown *= 1.0 + 0.1 * np.clip(_repeated(lives.days.swelling), 0.0, 1.2)
    shown *= np.maximum(1.0 + _RESISTANCE_COLD_GAIN_PER_C * (25.0 - temperature), 0.7)
    shown *= 1.0 + recipe.resistance_noise * lives.random.normal(Channel.RESISTANCE_NOISE, slots)
    return np.maximum(shown, 0.1).round(1)
