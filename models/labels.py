"""Failure, by rule, from a device's own readings: the one place where labels are made.

A pack has failed at the earliest of

* capacity: the daily median capacity, filtered by a median over seven measured days, lies below
  `end_of_life_capacity_mah` on five measured days in a row; the first of them;
* shutdowns: six or more unexpected shutdowns in 21 days, with the resistance of that week at
  least 1.8 times the pack's first ones where it is measured; the day of the sixth;
* the owner's answer that it failed. What an owner does with a notice is no such answer.

Nothing is a failure before the readings that confirm it exist: the five days and the three
measured days after them that the filter needs. A new pack, after a notice or without one, ends
what is known of the old one and is no failure by itself, so an alarm cannot confirm itself. A
device that falls silent is known only up to its last confirmed day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .daily_grid import DailyGrid, daily_grid
from .rolling import sorted_median, window_median, window_sum
from .telemetry import CAUSES, DeviceProfiles, Telemetry
from .telemetry_audit import audit
from .training_rows import PackOutcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .featurize import PackReferences

FILTER_REACH = 3
DAYS_BELOW = 5
SHUTDOWNS = 6
SHUTDOWN_WINDOW_DAYS = 21
RESISTANCE_RATIO = 1.8
REFERENCE_DAYS = 10


@dataclass(frozen=True, slots=True)
class OwnerAnswers:
    """What owners said when they were asked whether the battery had failed; yes alone counts.

    Attributes:
        device: int, shape (n,): index of the device.
        failed_at_s: int64, shape (n,): when, by the owner's word.
        cause: int8, shape (n,): index into `CAUSES`, −1 = the owner cannot tell.
    """

    device: NDArray[np.intp]
    failed_at_s: NDArray[np.int64]
    cause: NDArray[np.int8]


def label_packs(
    telemetry: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int | None = None,
    answers: OwnerAnswers | None = None,
    references: PackReferences | None = None,
) -> PackOutcomes:
    """Say what became of every pack, as far as the readings up to now confirm it.

    Args:
        telemetry: readings in recorded order, devices in the order of `profiles`.
        profiles: one a device.
        now_s: readings more than a day later are refused as lying in the future.
        answers: of owners.
        references: kept from earlier for the first pack (one device only).

    Returns:
        One row a pack that has a reading; packs are numbered as in `featurize`.
    """
    audited = audit(telemetry, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    grid = daily_grid(audited, profiles.design_capacity_mah)
    begins = np.flatnonzero(grid.pack_start == np.arange(len(grid)))
    pack_of_row = np.cumsum(grid.pack_start == np.arange(len(grid))) - 1
    device = grid.device[begins]
    number = np.arange(len(begins)) - np.searchsorted(device, device)
    end_of_life = profiles.end_of_life_capacity_mah[grid.device]
    by_capacity, known_until = _capacity_rule(grid, end_of_life, pack_of_row, len(begins))
    by_shutdowns, with_resistance = _shutdown_rule(grid, pack_of_row, len(begins), references)
    by_owner, owners_cause = _owners_word(grid, begins, answers)
    known_until = np.maximum(known_until, grid.as_of_s[begins].astype(float))

    candidates = np.stack([by_capacity, by_shutdowns, by_owner])
    failed_at = np.fmin.reduce(candidates, axis=0)
    rule = np.where(
        np.isfinite(failed_at), np.nanargmin(np.nan_to_num(candidates, nan=np.inf), axis=0), -1
    )
    cause = np.select(
        [rule == 0, (rule == 1) & with_resistance, rule == 2],
        [CAUSES.index("capacity_fade"), CAUSES.index("resistance_growth"), owners_cause],
        default=-1,
    )
    return PackOutcomes(
        device=device,
        pack=number,
        known_until_s=known_until.astype(np.int64),
        failed_at_s=failed_at,
        cause=cause.astype(np.int8),
    )


def _capacity_rule(
    grid: DailyGrid, end_of_life: NDArray[np.float64], pack: NDArray[np.intp], num_packs: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each pack's failure by capacity (NaN = none) and the last day that is decided."""
    measured = np.flatnonzero(np.isfinite(grid.capacity_mah))
    of_pack = pack[measured]
    order = np.arange(len(measured))
    first = np.searchsorted(of_pack, of_pack, side="left")
    last = np.searchsorted(of_pack, of_pack, side="right") - 1
    capacity = grid.capacity_mah[measured]
    around = [
        np.where(
            (order + shift >= first) & (order + shift <= last),
            capacity[np.clip(order + shift, 0, len(order) - 1)] if len(order) else capacity,
            np.nan,
        )
        for shift in range(-FILTER_REACH, FILTER_REACH + 1)
    ]
    below = sorted_median(np.stack(around, axis=1)) < end_of_life[measured]
    decided = order + DAYS_BELOW - 1 + FILTER_REACH <= last
    run = np.concatenate([[0], np.cumsum(below)])
    all_below = run[np.minimum(order + DAYS_BELOW, len(order))] - run[order] == DAYS_BELOW
    day = grid.as_of_s[measured].astype(np.float64)
    failed_at = np.full(num_packs, np.inf)
    np.minimum.at(failed_at, of_pack[decided & all_below], day[decided & all_below])
    known_until = np.full(num_packs, -np.inf)
    np.maximum.at(known_until, of_pack[decided], day[decided])
    return np.where(np.isfinite(failed_at), failed_at, np.nan), known_until


def _shutdown_rule(
    grid: DailyGrid,
    pack: NDArray[np.intp],
    num_packs: int,
    kept_references: PackReferences | None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each pack's failure by shutdowns (NaN = none), and whether resistance confirms it."""
    start = grid.pack_start
    many = window_sum(grid.shutdowns, start, SHUTDOWN_WINDOW_DAYS) >= SHUTDOWNS
    recent = window_median(grid.resistance_mohm, start, 7)
    early = window_median(grid.resistance_mohm, start, REFERENCE_DAYS)
    reference_row = np.minimum(start + REFERENCE_DAYS - 1, np.arange(len(grid)))
    reference = early[reference_row]
    if kept_references is not None and np.isfinite(kept_references.resistance_mohm):
        is_first_pack = start == grid.device_start
        reference = np.where(is_first_pack, kept_references.resistance_mohm, reference)
    ratio = recent / reference
    failed = np.flatnonzero(many & ~(ratio < RESISTANCE_RATIO))
    first = np.full(num_packs, len(grid))
    np.minimum.at(first, pack[failed], failed)
    has = first < len(grid)
    row = np.minimum(first, max(len(grid) - 1, 0))
    failed_at = np.where(has, grid.as_of_s[row], np.nan) if len(grid) else np.zeros(0)
    with_resistance = has & np.isfinite(ratio[row]) if len(grid) else has
    return failed_at, with_resistance


def _owners_word(
    grid: DailyGrid, begins: NDArray[np.intp], answers: OwnerAnswers | None
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    failed_at = np.full(len(begins), np.nan)
    cause = np.full(len(begins), -1, np.int8)
    if answers is None:
        return failed_at, cause
    device, starts = grid.device[begins], grid.as_of_s[begins]
    for number in np.argsort(answers.failed_at_s, kind="stable")[::-1]:
        own = np.flatnonzero(
            (device == answers.device[number]) & (starts <= answers.failed_at_s[number])
        )
        if len(own):
            failed_at[own[-1]] = answers.failed_at_s[number]
            cause[own[-1]] = answers.cause[number]
    return failed_at, cause
