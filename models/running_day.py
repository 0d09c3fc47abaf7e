"""The day that runs, from its few readings, in single numbers.

The rules are those of `models.telemetry_audit` and `models.daily_grid`, for the plain case:
readings in the order of time, each later than what it is compared with. `models.feature_window`
takes anything else through those.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .daily_grid import DAY_VALUES
from .last_window import present_median
from .telemetry import MEASUREMENTS, SECONDS_PER_DAY
from .telemetry_audit import CLOCK_TOLERANCE_S, MAX_GROWTH_AT_RESET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Row = tuple[int, Sequence[float]]

_RANGES = tuple((measurement.low, measurement.high) for measurement in MEASUREMENTS)


def running_day_values(
    anchors: Iterable[Row], readings: Iterable[Row], *, manufactured_at_s: int
) -> list[float]:
    """Gather what the readings of one day say, in the order of `daily_grid.DAY_VALUES`.

    Args:
        anchors: readings before, with which the first ones are compared: seconds since the epoch,
            and the eight measurements, NaN = not measured.
        readings: of the day, in the order of time.
        manufactured_at_s: readings more than a day before are refused.
    """
    before = _Before()
    for at_s, values in anchors:
        before.note(at_s, _valid(values))
    day = _Day()
    earliest_s = manufactured_at_s - CLOCK_TOLERANCE_S
    for at_s, values in readings:
        if at_s >= earliest_s:
            valid = _valid(values)
            day.take(at_s, values, valid, before)
            before.note(at_s, valid)
    return day.values()


def _valid(values: Sequence[float]) -> list[float]:
    return [
        value if low <= value <= high else math.nan
        for value, (low, high) in zip(values, _RANGES, strict=True)
    ]


class _Before:
    """The reading before, and what the counters showed last."""

    def __init__(self) -> None:
        self.at_s: int | None = None
        self.cycles, self.cycles_at_s = math.nan, 0
        self.shutdowns = math.nan

    def note(self, at_s: int, valid: Sequence[float]) -> None:
        self.at_s = at_s
        cycles, shutdowns = valid[1], valid[5]
        if cycles == cycles:  # noqa: PLR0124 - NaN
            self.cycles, self.cycles_at_s = cycles, at_s
        if shutdowns == shutdowns:  # noqa: PLR0124 - NaN
            self.shutdowns = shutdowns


class _Day:
    """What has come together of a day."""

    def __init__(self) -> None:
        self.capacities: list[float] = []
        self.resistances: list[float] = []
        self.charges: list[float] = []
        self.temp_max: list[float] = []
        self.temp_avg: list[float] = []
        self.usage: list[tuple[float, float]] = []
        self.cycles: list[tuple[float, float]] = []
        self.shutdowns: list[float] = []
        self.num_refused = 0
        self.counter = math.nan

    def take(
        self, at_s: int, raw: Sequence[float], valid: Sequence[float], before: _Before
    ) -> None:
        capacity, counter, charge, temp_max, temp_avg, shutdowns, usage, resistance = valid
        for kept, value in (
            (self.capacities, capacity),
            (self.charges, charge),
            (self.temp_max, temp_max),
            (self.temp_avg, temp_avg),
            (self.resistances, resistance),
        ):
            if value == value:  # noqa: PLR0124 - NaN
                kept.append(value)
        self.num_refused += capacity != capacity and raw[0] == raw[0]  # noqa: PLR0124 - NaN
        if before.at_s is not None and usage == usage:  # noqa: PLR0124 - NaN
            covered = min((at_s - before.at_s) / SECONDS_PER_DAY, 1.0)
            self.usage.append((usage, covered))
        if counter == counter:  # noqa: PLR0124 - NaN
            self.counter = counter
            if before.cycles == before.cycles:
                days = (at_s - before.cycles_at_s) / SECONDS_PER_DAY
                self.cycles.append((_growth(before.cycles, counter), days))
        if shutdowns == shutdowns and before.shutdowns == before.shutdowns:  # noqa: PLR0124 - NaN
            self.shutdowns.append(_growth(before.shutdowns, shutdowns))

    def values(self) -> list[float]:
        found = {
            "num_capacities": float(len(self.capacities)),
            "num_capacities_refused": float(self.num_refused),
            "capacity_mah": present_median(self.capacities),
            "charge_duration_min": _mean(self.charges),
            "temp_max_c": max(self.temp_max, default=math.nan),
            "temp_avg_c": _mean(self.temp_avg),
            "resistance_mohm": present_median(self.resistances),
            "usage_hours": _sum([hours for hours, _ in self.usage]),
            "usage_covered_days": _sum([covered for _, covered in self.usage]),
            "cycles": _sum([grown for grown, _ in self.cycles]),
            "cycles_covered_days": _sum([days for _, days in self.cycles]),
            "shutdowns": _sum(self.shutdowns),
            "cycle_counter": self.counter,
        }
        return [found[name] for name in DAY_VALUES]


def _growth(before: float, now: float) -> float:
    if now >= before:
        return now - before
    return now if now <= MAX_GROWTH_AT_RESET else 0.0


def _sum(values: list[float]) -> float:
    return sum(values) if values else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
