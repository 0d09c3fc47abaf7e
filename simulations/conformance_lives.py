"""Made-up lives of packs for the conformance kit: short, and each with one thing to get right."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from models.telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable

START_S = 1_767_225_600
"""2026-01-01T00:00:00Z; packs were made 300 days before."""
MADE_AT = "2025-03-07T00:00:00+00:00"
COLUMNS = (
    "at_s",
    "full_charge_capacity_mah",
    "charge_cycle_count",
    "charge_duration_min",
    "battery_temp_max_c",
    "battery_temp_avg_c",
    "unexpected_shutdown_count",
    "usage_hours",
    "internal_resistance_mohm",
)
CAPACITY, CYCLES, DURATION, _, _, SHUTDOWNS, _, RESISTANCE = range(1, len(COLUMNS))
Row = list[float | None]


@dataclass(frozen=True, slots=True)
class Life:
    """One life.

    Attributes:
        name: what is to get right.
        rows: readings in recorded order, values in the order of `COLUMNS`.
        recorded_at_s: the device's time when they were recorded.
        moments_s: when to predict.
    """

    name: str
    rows: list[Row]
    recorded_at_s: int
    moments_s: tuple[int, ...]


def midnight(day: int) -> int:
    """Return the UTC midnight at which a day since the start begins, seconds since the epoch."""
    return START_S + day * SECONDS_PER_DAY


def all_lives() -> list[Life]:
    """Return every life, the same each time."""
    return [
        _whole("every channel, fading", 96, fade=5.0, moments=(96, 60)),
        _whole("every channel, healthy", 60, fade=0.2, moments=(60,)),
        _capacity_alone(),
        _another_pack(),
        _counter_resets(),
        _disorder(),
        _middle_of_a_day(),
        _whole("too little history", 12, fade=1.0, moments=(12,)),
        _whole("stale", 35, fade=1.0, moments=(44,)),
        _capacities_that_cannot_be(),
    ]


def _rows(
    days: int,
    *,
    fade: float,
    per_day: int = 4,
    seed: int = 0,
    change: Callable[[float, Row], Row | None] = lambda _day, row: row,
) -> list[Row]:
    random = Random(seed)
    rows: list[Row] = []
    for number in range(1, days * per_day + 1):
        day = number / per_day
        warmth = random.uniform(-3, 3)
        row: Row = [
            START_S + round(day * SECONDS_PER_DAY),
            round(2750 - fade * day + random.gauss(0, 4), 1),
            float(200 + int(0.8 * day)),
            round(95 + 0.15 * fade * day + random.uniform(-4, 4), 1),
            round(31 + warmth, 1),
            round(25 + warmth / 2, 1),
            float(int(day / 25)),
            round(random.uniform(0.5, 2.5), 2),
            round(60 + 0.02 * fade * day + random.gauss(0, 0.3), 2),
        ]
        changed = change(day, row)
        if changed is not None:
            rows.append(changed)
    return rows


def _whole(name: str, days: int, *, fade: float, moments: tuple[int, ...]) -> Life:
    rows = _rows(days, fade=fade, seed=days)
    return Life(name, rows, midnight(max(days, *moments)), tuple(map(midnight, moments)))


def _capacity_alone() -> Life:
    def change(_day: float, row: Row) -> Row:
        return row[:2] + [None] * (len(COLUMNS) - 2)

    rows = _rows(95, fade=2.0, per_day=1, seed=1, change=change)
    return Life("capacity alone, once a day", rows, midnight(95), (midnight(95),))


def _another_pack() -> Life:
    def change(day: float, row: Row) -> Row:
        if day <= 50:
            return [row[0], 2300 - 3 * day, *row[2:]]
        return [row[0], 2950 - 0.5 * day, day - 50, *row[3:]]

    rows = _rows(85, fade=0.0, per_day=2, seed=2, change=change)
    return Life("another pack after day 50", rows, midnight(85), (midnight(85),))


def _counter_resets() -> Life:
    def change(day: float, row: Row) -> Row:
        lost = 210.0 if day > 30 else 0.0
        row[CYCLES] = max((row[CYCLES] or 0.0) - lost, 0.0)
        row[SHUTDOWNS] = float(int(day)) % 20
        return row

    rows = _rows(60, fade=3.0, per_day=2, seed=3, change=change)
    return Life("counters that begin anew", rows, midnight(60), (midnight(60),))


def _disorder() -> Life:
    rows = _rows(50, fade=2.0, per_day=2, seed=4)
    rows[40][0] = (rows[40][0] or 0) + 400 * SECONDS_PER_DAY
    rows[41][0] = (rows[41][0] or 0) - 200 * SECONDS_PER_DAY
    rows[50:50] = [list(rows[49]), [rows[49][0], 2500.0, *rows[49][2:]]]
    rows[60], rows[61] = rows[61], rows[60]
    rows[70][CAPACITY] = -5.0
    rows[71][CAPACITY], rows[72][DURATION] = 90.0, 9000.0
    del rows[80:92]
    name = "clock jumps, repetitions, order, ranges and a gap"
    return Life(name, rows, midnight(50), (midnight(50),))


def _middle_of_a_day() -> Life:
    rows = _rows(45, fade=4.0, seed=5)
    noon = midnight(44) + SECONDS_PER_DAY // 2 + 1_234
    return Life("in the middle of a day", rows, midnight(45), (noon, midnight(44)))


def _capacities_that_cannot_be() -> Life:
    def change(day: float, row: Row) -> Row:
        if day > 30:
            row[CAPACITY] = -5.0
        row[RESISTANCE] = None
        return row

    rows = _rows(45, fade=1.0, seed=6, change=change)
    return Life("capacities that cannot be, for two weeks", rows, midnight(45), (midnight(45),))
