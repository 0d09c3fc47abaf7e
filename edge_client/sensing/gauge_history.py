"""What one look at a gauge cannot tell: temperatures, charges, hours and shutdowns of an interval.

Pure: each look makes a new history of the last. What is kept between two readings is a handful of
numbers, so that a restart goes on where the last run of the program ended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from .gauge_mapping import ChargeMark, temperature_c

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .gauge_mapping import GaugeFacts, GaugeMapping

LONGEST_GAP_S = 1_800.0
"""Between two looks; a charge that was not looked at for longer was not timed."""
LONGEST_MARK_S = 86_400.0
"""Age at which the mark of the counter of charge is moved: counters drift."""
LEAST_LOOKS_FOR_MAXIMUM = 6
MOST_PERCENT_AT_START = 40
LEAST_PERCENT_AT_END = 95
_IDLE = ("Discharging", "Not charging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the gauge.

    Attributes:
        facts: what it said.
        mapping: what of it a reading takes.
        boot: which run of the machine, as `/proc/sys/kernel/random/boot_id` names it.
        awake_s: seconds for which the machine has been awake in this run.
        elapsed_s: seconds since this run began, sleep included.
    """

    facts: GaugeFacts
    mapping: GaugeMapping
    boot: str
    awake_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeHistory:
    """What the looks since the last reading have shown.

    Attributes:
        boot: run of the machine at the last look, None before the first.
        has_ended: whether the program that looked has ended in order since.
        shutdowns: runs of the machine that ended while the program was looking, since the store
            was made.
        awake_s: seconds awake since the last reading, None where a part of them is not known.
        last_awake_s: `Look.awake_s` at the last look.
        last_elapsed_s: `Look.elapsed_s` at the last look.
        last_status: the gauge's status at the last look.
        num_temps: looks that had a temperature.
        temps_sum_c: their sum.
        temp_max_c: the highest.
        charge_since_s: `Look.elapsed_s` at which the charge that is going on began.
        charge_duration_min: duration of the last charge that was timed since the last reading.
        capacity_mah: full-charge capacity at the latest look that gave one.
        mark_counter_uah: counter of charge at the mark, None without a mark.
        mark_percent: state of charge at the mark.
        mark_elapsed_s: when it was set.
    """

    boot: str | None = None
    has_ended: bool = True
    shutdowns: int = 0
    awake_s: float | None = 0.0
    last_awake_s: float = 0.0
    last_elapsed_s: float = 0.0
    last_status: str | None = None
    num_temps: int = 0
    temps_sum_c: float = 0.0
    temp_max_c: float | None = None
    charge_since_s: float | None = None
    charge_duration_min: float | None = None
    capacity_mah: float | None = None
    mark_counter_uah: int | None = None
    mark_percent: int = 0
    mark_elapsed_s: float = 0.0

    def mark(self, boot: str) -> ChargeMark | None:
        """Return the mark of the counter of charge, None where it is of another run."""
        if self.mark_counter_uah is None or self.boot != boot:
            return None
        return ChargeMark(self.mark_counter_uah, self.mark_percent, boot)

    def as_json(self) -> dict[str, object]:
        """Return the history as JSON can carry it."""
        return asdict(self)


def history_of_json(kept: Mapping[str, object] | None) -> GaugeHistory:
    """Return a history that was kept; what this version does not know is left out."""
    names = {entry.name for entry in fields(GaugeHistory)}
    known = {name: value for name, value in (kept or {}).items() if name in names}
    return GaugeHistory(**known)  # type: ignore[arg-type]


def looked(history: GaugeHistory, look: Look) -> GaugeHistory:
    """Return the history with one more look."""
    if history.boot is not None and history.boot != look.boot:
        history = _in_a_new_run(history, look)
    elif history.boot is not None and history.awake_s is not None:
        awake_s = history.awake_s + max(look.awake_s - history.last_awake_s, 0.0)
        history = replace(history, awake_s=awake_s)
    history = _with_charge(history, look)
    history = _with_mark(history, look)
    temp = temperature_c(look.facts)
    if temp is not None:
        highest = temp if history.temp_max_c is None else max(temp, history.temp_max_c)
        history = replace(
            history,
            num_temps=history.num_temps + 1,
            temps_sum_c=history.temps_sum_c + temp,
            temp_max_c=highest,
        )
    capacity = look.mapping.measurements.get("full_charge_capacity_mah", history.capacity_mah)
    return replace(
        history,
        boot=look.boot,
        has_ended=False,
        last_awake_s=look.awake_s,
        last_elapsed_s=look.elapsed_s,
        last_status=look.facts.status,
        capacity_mah=capacity,
    )


def measured_over(history: GaugeHistory) -> dict[str, float]:
    """Return what the interval since the last reading shows, by name of the measurement."""
    found: dict[str, float] = {"unexpected_shutdown_count": float(history.shutdowns)}
    if history.capacity_mah is not None:
        found["full_charge_capacity_mah"] = history.capacity_mah
    if history.num_temps:
        found["battery_temp_avg_c"] = history.temps_sum_c / history.num_temps
    if history.temp_max_c is not None and history.num_temps >= LEAST_LOOKS_FOR_MAXIMUM:
        found["battery_temp_max_c"] = history.temp_max_c
    if history.charge_duration_min is not None:
        found["charge_duration_min"] = history.charge_duration_min
    if history.awake_s is not None:
        found["usage_hours"] = history.awake_s / 3600
    return found


def after_reading(history: GaugeHistory) -> GaugeHistory:
    """Return the history of an interval that begins now."""
    return replace(
        history,
        awake_s=0.0,
        num_temps=0,
        temps_sum_c=0.0,
        temp_max_c=None,
        charge_duration_min=None,
        capacity_mah=None,
    )


def ended(history: GaugeHistory) -> GaugeHistory:
    """Return the history with the word that the program has ended in order."""
    return replace(history, has_ended=True)


def _in_a_new_run(history: GaugeHistory, look: Look) -> GaugeHistory:
    awake_s = None
    if history.has_ended and history.awake_s is not None:
        awake_s = history.awake_s + look.awake_s
    return replace(
        history,
        shutdowns=history.shutdowns + (not history.has_ended),
        awake_s=awake_s,
        last_status=None,
        charge_since_s=None,
        mark_counter_uah=None,
    )


def _with_charge(history: GaugeHistory, look: Look) -> GaugeHistory:
    gap_s = look.elapsed_s - history.last_elapsed_s
    status, percent = look.facts.status, look.facts.capacity
    if history.last_status is None or not 0 <= gap_s <= LONGEST_GAP_S:
        return replace(history, charge_since_s=None)
    if status == "Charging":
        is_start = history.last_status in _IDLE
        if is_start and percent is not None and percent <= MOST_PERCENT_AT_START:
            return replace(history, charge_since_s=look.elapsed_s - gap_s / 2)
        return history
    if history.charge_since_s is None:
        return history
    is_full = status == "Full" or (percent is not None and percent >= LEAST_PERCENT_AT_END)
    if not is_full:
        return replace(history, charge_since_s=None)
    minutes = (look.elapsed_s - gap_s / 2 - history.charge_since_s) / 60
    return replace(history, charge_since_s=None, charge_duration_min=minutes)


def _with_mark(history: GaugeHistory, look: Look) -> GaugeHistory:
    counter, percent = look.facts.charge_counter, look.facts.capacity
    if counter is None or percent is None:
        return history
    is_old = look.elapsed_s - history.mark_elapsed_s > LONGEST_MARK_S
    if history.mark_counter_uah is None or is_old or look.mapping.rule == "counter_swing":
        return replace(
            history,
            mark_counter_uah=counter,
            mark_percent=percent,
            mark_elapsed_s=look.elapsed_s,
        )
    return history
