"""Validation of raw readings (A4): what is refused is counted by reason, never silently dropped.

Rules, in this order:

* a value outside its channel's valid range, or not finite, is blanked;
* a reading before the device was made is refused;
* a reading more than a day in the future is refused, with all later ones of its device, when a
  week or more without any reading lies before it: a clock fault. Where readings run on from the
  past without such a gap the data set keeps a time of its own (laboratory cycles are stamped one a
  day), and they are noted;
* a clock jump: a reading more than a day away from the median time of the five readings recorded
  around it is refused; longer runs under a wrong clock cannot be told from late readings and are
  sorted in where they claim to belong (noted as out of order);
* of several readings of one device with the same time the first recorded one stays;
* a counter that falls has been reset: what it shows afterwards counts as growth since the reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .telemetry import MEASUREMENT_NAMES, MEASUREMENTS, SECONDS_PER_DAY, Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CLOCK_TOLERANCE_S = SECONDS_PER_DAY
FUTURE_GAP_S = 7 * SECONDS_PER_DAY
GAP_CADENCES = 2.5
MAX_GROWTH_AT_RESET = 50.0

_CUMULATIVE = [c for c, measurement in enumerate(MEASUREMENTS) if measurement.cumulative]
_LOW = np.array([measurement.low for measurement in MEASUREMENTS], np.float32)
_HIGH = np.array([measurement.high for measurement in MEASUREMENTS], np.float32)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        num_readings: readings that came in.
        completeness: share of the accepted readings in which each measurement is present and
            valid, by measurement name, 0 to 1.
        refused: readings or values that were refused, by reason; zero counts are left out.
        noted: findings that were handled without refusing anything, by reason.
    """

    num_readings: int
    completeness: Mapping[str, float]
    refused: Mapping[str, int]
    noted: Mapping[str, int]


class AuditedTelemetry(NamedTuple):
    """Readings that passed, sorted by device and time, with counters turned into growth.

    Attributes:
        telemetry: the accepted readings; refused values are NaN.
        growth: float32, shape (n_readings, 8): growth of the cumulative measurements since the
            device's previous valid value of them, resets undone; NaN for all others and where
            there is no previous value.
        capacity_refused: bool, shape (n_readings,): a capacity was there, but out of range.
        num_readings: readings that came in.
        refused: as in `AuditReport`.
        noted: as in `AuditReport`, without gaps.
    """

    telemetry: Telemetry
    growth: NDArray[np.float32]
    capacity_refused: NDArray[np.bool_]
    num_readings: int
    refused: Mapping[str, int]
    noted: Mapping[str, int]

    @property
    def report(self) -> AuditReport:
        """What was found, gaps and completeness counted."""
        present = np.isfinite(self.telemetry.values)
        share = present.mean(axis=0) if len(present) else np.zeros(len(MEASUREMENTS))
        completeness = dict(zip(MEASUREMENT_NAMES, share.tolist(), strict=True))
        noted = dict(self.noted)
        _note_gaps(self.telemetry, noted)
        return AuditReport(self.num_readings, completeness, self.refused, noted)


def audit(
    telemetry: Telemetry,
    *,
    manufactured_at_s: NDArray[np.int64] | None = None,
    now_s: int | None = None,
) -> AuditedTelemetry:
    """Apply the rules of this module.

    Args:
        telemetry: readings in the order in which each device recorded them.
        manufactured_at_s: shape (n_devices,), seconds since the epoch; None skips that rule.
        now_s: the present, for the rule on the future; None skips that rule.

    Returns:
        The accepted readings and the counts.
    """
    refused: dict[str, int] = {}
    noted: dict[str, int] = {}
    num_readings = len(telemetry)
    telemetry, capacity_refused = _blank_invalid_values(telemetry, refused)
    keep = _timely(telemetry, manufactured_at_s, now_s, refused, noted)
    telemetry, capacity_refused = _kept(telemetry, capacity_refused, keep)
    if not _runs_forward(telemetry):
        keep = ~_clock_jumps(telemetry)
        _count(refused, "clock_jump", ~keep)
        telemetry, capacity_refused = _kept(telemetry, capacity_refused, keep)
        telemetry, capacity_refused = _in_order(telemetry, capacity_refused, refused, noted)
    growth = _counter_growth(telemetry, noted)
    return AuditedTelemetry(telemetry, growth, capacity_refused, num_readings, refused, noted)


def _kept(
    telemetry: Telemetry, capacity_refused: NDArray[np.bool_], keep: NDArray[np.bool_]
) -> tuple[Telemetry, NDArray[np.bool_]]:
    if keep.all():
        return telemetry, capacity_refused
    return telemetry.rows(keep), capacity_refused[keep]


def _runs_forward(telemetry: Telemetry) -> bool:
    """Tell whether every reading is later than the one that its device recorded before."""
    forward = telemetry.at_s[1:] > telemetry.at_s[:-1]
    if forward.all():
        return True
    starts = telemetry.offsets[1:-1]
    forward[starts[(starts > 0) & (starts < len(telemetry))] - 1] = True
    return bool(forward.all())


def _in_order(
    telemetry: Telemetry,
    capacity_refused: NDArray[np.bool_],
    refused: dict[str, int],
    noted: dict[str, int],
) -> tuple[Telemetry, NDArray[np.bool_]]:
    device = telemetry.device_of_row()
    same_device = device[1:] == device[:-1]
    falls = same_device & (np.diff(telemetry.at_s) < 0)
    _count(noted, "out_of_order", falls)
    order = _time_order(telemetry, device, device[1:][falls])
    at_s = telemetry.at_s[order]
    repeated = np.concatenate([[False], same_device & (np.diff(at_s) == 0)])[: len(order)]
    _count(refused, "duplicate", repeated)
    kept = np.concatenate([[0], np.cumsum(~repeated)])
    order = order[~repeated]
    ordered = Telemetry(
        telemetry.device_ids,
        kept[telemetry.offsets].astype(np.int64),
        telemetry.at_s[order],
        telemetry.values[order],
    )
    return ordered, capacity_refused[order]


def _count(counts: dict[str, int], reason: str, where: NDArray[np.bool_]) -> None:
    number = int(np.count_nonzero(where))
    if number:
        counts[reason] = counts.get(reason, 0) + number


def _time_order(
    telemetry: Telemetry, device: NDArray[np.intp], disordered: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the rows by device and time; only the devices in `disordered` need sorting."""
    order = np.arange(len(telemetry))
    needs_sorting = np.zeros(len(telemetry.device_ids), bool)
    needs_sorting[disordered] = True
    rows = np.flatnonzero(needs_sorting[device])
    order[rows] = rows[np.lexsort((telemetry.at_s[rows], device[rows]))]
    return order


def _blank_invalid_values(
    telemetry: Telemetry, refused: dict[str, int]
) -> tuple[Telemetry, NDArray[np.bool_]]:
    values = telemetry.values
    bad = ((values < _LOW) | (values > _HIGH)).astype(bool)
    for column in np.flatnonzero(bad.any(axis=0)):
        _count(refused, f"out_of_range:{MEASUREMENTS[column].name}", bad[:, column])
    if bad.any():
        values = np.where(bad, np.float32(np.nan), values)
    blanked = Telemetry(telemetry.device_ids, telemetry.offsets, telemetry.at_s, values)
    return blanked, bad[:, 0]


def _timely(
    telemetry: Telemetry,
    manufactured_at_s: NDArray[np.int64] | None,
    now_s: int | None,
    refused: dict[str, int],
    noted: dict[str, int],
) -> NDArray[np.bool_]:
    keep = np.ones(len(telemetry), bool)
    if manufactured_at_s is not None:
        made = manufactured_at_s[telemetry.device_of_row()]
        early = telemetry.at_s < made - CLOCK_TOLERANCE_S
        _count(refused, "before_manufacture", early)
        keep &= ~early
    if now_s is not None:
        late = telemetry.at_s > now_s + CLOCK_TOLERANCE_S
        if late.any():
            cut_off = late & _after_a_gap(telemetry, late)
            _count(refused, "in_the_future", cut_off)
            _count(noted, "beyond_now", late & ~cut_off)
            keep &= ~cut_off
    return keep


def _after_a_gap(telemetry: Telemetry, late: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the readings at or after the first late one that a long silence cuts off."""
    device = telemetry.device_of_row()
    order = np.lexsort((telemetry.at_s, device))
    rows = np.arange(len(order))
    silence = np.diff(telemetry.at_s[order], prepend=0)
    has_earlier = np.diff(device[order], prepend=-1) == 0
    cuts = late[order] & has_earlier & (silence >= FUTURE_GAP_S)
    latest_cut = np.maximum.accumulate(np.where(cuts, rows, -1))
    after = np.empty(len(order), bool)
    after[order] = latest_cut >= telemetry.offsets[:-1][device[order]]
    return after


def _clock_jumps(telemetry: Telemetry) -> NDArray[np.bool_]:
    rows = np.arange(len(telemetry))
    first = np.repeat(telemetry.offsets[:-1], np.diff(telemetry.offsets))
    last = np.repeat(telemetry.offsets[1:] - 1, np.diff(telemetry.offsets))
    around = [telemetry.at_s[np.clip(rows + shift, first, last)] for shift in range(-2, 3)]
    median = np.sort(np.stack(around), axis=0)[2]
    jumped: NDArray[np.bool_] = np.abs(telemetry.at_s - median) > CLOCK_TOLERANCE_S
    return jumped


def _counter_growth(telemetry: Telemetry, noted: dict[str, int]) -> NDArray[np.float32]:
    growth = np.full_like(telemetry.values, np.nan)
    device = telemetry.device_of_row()
    for column in _CUMULATIVE:
        rows = np.flatnonzero(np.isfinite(telemetry.values[:, column]))
        counter = telemetry.values[rows, column].astype(np.float64)
        step = counter[1:] - counter[:-1]
        own = device[rows]
        step[own[1:] != own[:-1]] = np.nan
        reset = step < 0
        if reset.any():
            _count(noted, f"counter_reset:{MEASUREMENTS[column].name}", reset)
            since_reset = np.where(counter[1:] <= MAX_GROWTH_AT_RESET, counter[1:], 0.0)
            step = np.where(reset, since_reset, step)
        growth[rows[1:], column] = step
    return growth


def _note_gaps(telemetry: Telemetry, noted: dict[str, int]) -> None:
    """Count intervals that are long beside the median interval of the same device."""
    interval = telemetry.at_s[1:] - telemetry.at_s[:-1]
    device = telemetry.device_of_row()
    same_device = device[1:] == device[:-1]
    interval, device = interval[same_device], device[1:][same_device]
    ordered = interval[np.lexsort((interval, device))]
    count = np.bincount(device, minlength=len(telemetry.device_ids))
    first = np.cumsum(count) - count
    some = np.flatnonzero(count)
    cadence = np.zeros(len(count))
    low, high = first[some] + (count[some] - 1) // 2, first[some] + count[some] // 2
    cadence[some] = (ordered[low] + ordered[high]) / 2
    _count(noted, "gap", interval > GAP_CADENCES * cadence[device])
