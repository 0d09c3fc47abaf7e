"""Features kept incrementally: a device's closed days, so that a prediction reads what came since.

A day is closed once its midnight has passed. Of the closed days a device keeps the daily values of
the last 97, what its pack's first readings were, and the few readings that later ones are compared
with. With them and the readings since, the features are those of all readings: `features_now` gives
the same with a window as without. Where readings are not in the order of time the window is given
up, and made anew from all readings once they are.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .arithmetic import NUMBERS
from .daily_grid import DAY_VALUES, NEW_PACK_RISE, daily_grid, day_values, pack_starts
from .feature_formulas import Device, feature_values, status_of
from .feature_spec import FEATURE_NAMES
from .featurize import LIMITS, REFERENCE_READINGS, FeatureTable, features_at
from .last_window import last_statistics
from .rolling import sorted_median
from .running_day import running_day_values
from .telemetry import COLUMN, MEASUREMENTS, SECONDS_PER_DAY, Telemetry, day_of
from .telemetry_audit import audit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .daily_grid import DailyGrid
    from .featurize import PackReferences
    from .telemetry import DeviceProfiles
    from .telemetry_audit import AuditedTelemetry

WINDOW_FORMAT = 1
WINDOW_DAYS = 97
"""The longest window of 90 days, and the week before it that shows a new pack."""

_REFERENCES = ("full_charge_capacity_mah", "charge_duration_min", "internal_resistance_mohm")
_REFERENCE_COLUMNS = [COLUMN[name] for name in _REFERENCES]
_COUNTERS = [COLUMN["charge_cycle_count"], COLUMN["unexpected_shutdown_count"]]
_CAPACITY, _CYCLES, _COUNTER = (
    DAY_VALUES.index(name) for name in ("capacity_mah", "cycles", "cycle_counter")
)


class PackMemory(NamedTuple):
    """What is remembered of the pack in use.

    Attributes:
        number: 0 for the device's first pack.
        start_day: day on which it began, as `daily_grid.day_of` counts.
        since_s: its first reading, seconds since the epoch.
        cycle_count: cycles since it was new, NaN = not counted yet.
        first_values: float64, shape (3, 10): its first capacities, charge durations and
            resistances, NaN where there are fewer.
        kept: float64, shape (3,): references that were kept from earlier and win, NaN = none.
    """

    number: int
    start_day: int
    since_s: int
    cycle_count: float
    first_values: NDArray[np.float64]
    kept: NDArray[np.float64]

    def references(self) -> NDArray[np.float64]:
        """Return the references of capacity, charge duration and resistance, shape (3,)."""
        return np.where(np.isfinite(self.kept), self.kept, sorted_median(self.first_values))

    def is_settled(self) -> bool:
        """Tell whether no later reading changes a reference."""
        return bool((np.isfinite(self.kept) | np.isfinite(self.first_values[:, -1])).all())


class FeatureWindow(NamedTuple):
    """What a device keeps of its closed days.

    Attributes:
        closed_day: the last of them, as `daily_grid.day_of` counts.
        days: float64, shape (n_values, n_days): daily values up to it, `daily_grid.DAY_VALUES`.
        pack: the pack in use at its end.
        anchors_at_s: int64, shape (n,): times of the readings that later ones are compared with.
        anchors: float32, shape (n, 8): those readings.
    """

    closed_day: int
    days: NDArray[np.float64]
    pack: PackMemory
    anchors_at_s: NDArray[np.int64]
    anchors: NDArray[np.float32]

    @property
    def closed_until_s(self) -> int:
        """The end of the last closed day: readings up to it are in here."""
        return self.closed_day * SECONDS_PER_DAY

    def to_bytes(self) -> bytes:
        """Return the window as a device stores it."""
        pack = self.pack
        numbers = {
            "format": WINDOW_FORMAT,
            "closed_day": self.closed_day,
            "num_days": self.days.shape[1],
            "pack": [pack.number, pack.start_day, pack.since_s],
            "num_anchors": len(self.anchors_at_s),
        }
        arrays = (
            np.array([pack.cycle_count], "<f8"),
            pack.first_values.astype("<f8"),
            pack.kept.astype("<f8"),
            self.days.astype("<f8"),
            self.anchors_at_s.astype("<i8"),
            self.anchors.astype("<f4"),
        )
        head = json.dumps(numbers).encode() + b"\n"
        return head + b"".join(array.tobytes() for array in arrays)

    @staticmethod
    def from_bytes(content: bytes) -> FeatureWindow | None:
        """Read a stored window; None where it is of another format: it is made anew."""
        head, _, body = content.partition(b"\n")
        try:
            numbers = json.loads(head)
            if numbers["format"] != WINDOW_FORMAT:
                return None
            num_days, num_anchors = int(numbers["num_days"]), int(numbers["num_anchors"])
            shapes = (
                ("<f8", (1,)),
                ("<f8", (len(_REFERENCES), REFERENCE_READINGS)),
                ("<f8", (len(_REFERENCES),)),
                ("<f8", (len(DAY_VALUES), num_days)),
                ("<i8", (num_anchors,)),
                ("<f4", (num_anchors, len(MEASUREMENTS))),
            )
            arrays, at = [], 0
            for kind, shape in shapes:
                count = math.prod(shape)
                arrays.append(np.frombuffer(body, kind, count, at).reshape(shape))
                at += count * int(kind[-1])
            number, start_day, since_s = (int(value) for value in numbers["pack"])
            closed_day = int(numbers["closed_day"])
        except (ValueError, KeyError, TypeError):
            return None
        cycle_count, first_values, kept, days, anchors_at_s, anchors = arrays
        pack = PackMemory(number, start_day, since_s, float(cycle_count[0]), first_values, kept)
        return FeatureWindow(closed_day, days, pack, anchors_at_s, anchors)


def features_now(
    readings: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int,
    window: FeatureWindow | None = None,
    references: PackReferences | None = None,
) -> tuple[FeatureTable, FeatureWindow | None]:
    """Compute one device's features at one moment.

    Args:
        readings: in recorded order. With a window those after `window.closed_until_s`, all of them
            recorded after the readings in it; without one all that the device has.
        profiles: of the device alone.
        now_s: the moment; later readings are not used.
        window: of the days closed before `now_s`.
        references: kept from earlier for the first pack, where there is no window.

    Returns:
        The features as of `featurize_now` over all readings, and the window to keep: None where
        none can be made yet.
    """
    if window is None:
        return _from_all(readings, profiles, now_s=now_s, references=references)
    is_forward = _runs_forward(np.concatenate([window.anchors_at_s, readings.at_s]))
    readings = readings.rows(readings.at_s <= now_s)
    today = day_of(now_s)
    if is_forward and window.closed_day == today - 1:
        table = _from_running_day(window, readings, profiles, now_s=now_s)
        if table is not None:
            return table, window
    joined = Telemetry(
        readings.device_ids,
        np.array([0, len(window.anchors_at_s) + len(readings)], np.int64),
        np.concatenate([window.anchors_at_s, readings.at_s]),
        np.concatenate([window.anchors, readings.values]),
    )
    audited = audit(joined, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    since = _Since(window, audited, design_mah=profiles.design_capacity_mah[0], now_s=now_s)
    pack = since.pack_at(today)
    first_row = max(pack.start_day - since.first_day, 0)
    last_at_s = int(audited.telemetry.at_s[-1])
    days = since.days[:, first_row:].tolist()
    table = _table_of(days, pack, profiles, last_at_s=last_at_s, now_s=now_s, audited=audited)
    if not is_forward:
        return table, None
    return table, window if today - 1 <= window.closed_day else since.closed(today - 1)


def _from_running_day(
    window: FeatureWindow, readings: Telemetry, profiles: DeviceProfiles, *, now_s: int
) -> FeatureTable | None:
    """Compute the features where only the running day is new, and no pack can be.

    Returns:
        The features; None where the pack's references still form, or a new pack may be in use.
    """
    pack = window.pack
    if math.isnan(pack.cycle_count) or not pack.is_settled():
        return None
    anchors = list(zip(window.anchors_at_s.tolist(), window.anchors.tolist(), strict=True))
    fresh = list(zip(readings.at_s.tolist(), readings.values.tolist(), strict=True))
    made_at_s = int(profiles.manufactured_at_s[0])
    today = running_day_values(anchors, fresh, manufactured_at_s=made_at_s)
    rise = today[_CAPACITY] - float(np.fmin.reduce(window.days[_CAPACITY]))
    if rise > NEW_PACK_RISE * float(profiles.design_capacity_mah[0]):
        return None
    cycles = today[_CYCLES]
    if not math.isnan(cycles):
        pack = pack._replace(cycle_count=pack.cycle_count + cycles)
    first_row = max(pack.start_day - (window.closed_day - window.days.shape[1] + 1), 0)
    days = window.days[:, first_row:].tolist()
    for values, value in zip(days, today, strict=True):
        values.append(value)
    last_at_s = (fresh or anchors)[-1][0]
    return _table_of(days, pack, profiles, last_at_s=last_at_s, now_s=now_s, audited=None)


def _table_of(
    days: list[list[float]],
    pack: PackMemory,
    profiles: DeviceProfiles,
    *,
    last_at_s: int,
    now_s: int,
    audited: AuditedTelemetry | None,
) -> FeatureTable:
    design_mah = float(profiles.design_capacity_mah[0])
    found = last_statistics(days, design_mah=design_mah)
    references = pack.references().tolist()
    made_at_s = int(profiles.manufactured_at_s[0])
    born_at_s = made_at_s if pack.number == 0 else pack.since_s
    values = feature_values(
        found,
        Device(
            design=design_mah,
            end_of_life=float(profiles.end_of_life_capacity_mah[0]),
            capacity=references[0],
            charge=references[1],
            resistance=references[2],
            cycles=pack.cycle_count,
            age_days=(now_s - born_at_s) / SECONDS_PER_DAY,
        ),
        NUMBERS,
    )
    status = status_of(found, age_s=now_s - pack.since_s, silence_s=now_s - last_at_s, m=NUMBERS)
    row = np.array([values[name] for name in FEATURE_NAMES])
    limited = np.minimum(np.maximum(row, LIMITS[0]), LIMITS[1])
    return FeatureTable(
        device=np.zeros(1, np.intp),
        as_of_s=np.array([now_s]),
        features=limited.astype(np.float32)[None],
        status=np.array([status]),
        pack=np.array([pack.number]),
        capacity_mah=np.array([found.known_capacity]),
        capacity_reference_mah=np.array([references[0]]),
        charge_reference_min=np.array([references[1]]),
        resistance_reference_mohm=np.array([references[2]]),
        pack_since_s=np.array([pack.since_s]),
        audited=audited,
    )


class _Since:
    """What came since a window was closed."""

    def __init__(
        self, window: FeatureWindow, audited: AuditedTelemetry, *, design_mah: float, now_s: int
    ) -> None:
        self.audited = audited
        self.before = window.pack
        self.closed_day = window.closed_day
        self.reading_day = day_of(audited.telemetry.at_s)
        first = int(self.reading_day[0])
        num_rows = day_of(now_s) - first + 1
        device = np.zeros(len(self.reading_day), np.intp)
        values = day_values(audited, device, self.reading_day - first, num_rows)
        fresh = values[:, window.closed_day + 1 - first :]
        self.days = np.concatenate([window.days, fresh], axis=1)
        self.first_day = window.closed_day - window.days.shape[1] + 1
        self._begins = self._new_packs(design_mah)

    def _new_packs(self, design_mah: float) -> NDArray[np.intp]:
        """Return the days on which a new pack was put in since the window was closed."""
        capacity = self.days[_CAPACITY]
        known = self.closed_day - self.first_day + 1
        highest = np.fmax.reduce(capacity[known:])
        if not highest - np.fmin.reduce(capacity) > NEW_PACK_RISE * design_mah:
            return np.zeros(0, np.intp)
        starts = pack_starts(
            capacity / design_mah, self.days[_COUNTER], np.zeros(len(capacity), np.intp)
        )
        rows = np.arange(len(capacity))
        found: NDArray[np.intp] = rows[(starts == rows) & (rows >= known)] + self.first_day
        return found

    def pack_at(self, day: int) -> PackMemory:
        """Return the pack in use at a day's end."""
        begins = self._begins[self._begins <= day]
        is_changed = len(begins) > 0
        before = self.before
        first_values = before.first_values
        start_day = int(begins[-1]) if is_changed else before.start_day
        first_new = start_day if is_changed else self.closed_day + 1
        if is_changed or not before.is_settled():
            own = (self.reading_day >= first_new) & (self.reading_day <= day)
            values = self.audited.telemetry.values[own][:, _REFERENCE_COLUMNS].T.astype(np.float64)
            if not is_changed:
                values = np.concatenate([before.first_values, values], axis=1)
            first_values = _first_present(values)
        fresh = slice(first_new - self.first_day, day - self.first_day + 1)
        cycles, counter = self.days[_CYCLES, fresh], self.days[_COUNTER, fresh]
        cycle_count = 0.0 if is_changed else before.cycle_count
        if math.isnan(cycle_count):
            seen = np.flatnonzero(np.isfinite(counter))
            if len(seen):
                cycle_count = float(counter[seen[0]])
                cycles = cycles[seen[0] + 1 :]
        return PackMemory(
            number=before.number + len(begins),
            start_day=start_day,
            since_s=(start_day - 1) * SECONDS_PER_DAY if is_changed else before.since_s,
            cycle_count=cycle_count + float(np.nansum(cycles)),
            first_values=first_values,
            kept=np.full(len(_REFERENCES), np.nan) if is_changed else before.kept,
        )

    def closed(self, day: int) -> FeatureWindow | None:
        """Return the window with the days up to `day` in it."""
        last = day - self.first_day
        return _window(
            self.days[:, max(last + 1 - WINDOW_DAYS, 0) : last + 1],
            day,
            self.pack_at(day),
            self.audited,
            self.reading_day <= day,
        )


def _from_all(
    readings: Telemetry,
    profiles: DeviceProfiles,
    *,
    now_s: int,
    references: PackReferences | None,
) -> tuple[FeatureTable, FeatureWindow | None]:
    timely = readings.rows(readings.at_s <= now_s)
    audited = audit(timely, manufactured_at_s=profiles.manufactured_at_s, now_s=now_s)
    grid = daily_grid(audited, profiles.design_capacity_mah, until_s=now_s)
    rows = np.flatnonzero(grid.as_of_s == now_s)
    table = features_at(audited, grid, profiles, rows, references)
    day = day_of(now_s) - 1
    if len(grid) < 2 or not _closes(readings.at_s, day * SECONDS_PER_DAY):
        return table, None
    last = len(grid) - 2
    pack = _pack_of(audited, grid, last, day, references)
    own = grid.row_of_reading <= last
    days = grid.values[:, max(last + 1 - WINDOW_DAYS, 0) : last + 1]
    return table, _window(days, day, pack, audited, own)


def _pack_of(
    audited: AuditedTelemetry,
    grid: DailyGrid,
    last: int,
    day: int,
    references: PackReferences | None,
) -> PackMemory:
    start = int(grid.pack_start[last])
    number = len(np.unique(grid.pack_start[: last + 1])) - 1
    own = (grid.row_of_reading >= start) & (grid.row_of_reading <= last)
    values = audited.telemetry.values[own][:, _REFERENCE_COLUMNS].T.astype(np.float64)
    start_day = day - (last - start)
    since_s = int(grid.first_at_s[0]) if number == 0 else (start_day - 1) * SECONDS_PER_DAY
    kept = np.full(len(_REFERENCES), np.nan)
    if references is not None and number == 0:
        since_s = min(since_s, references.since_s)
        kept[:] = (
            references.capacity_mah,
            references.charge_duration_min,
            references.resistance_mohm,
        )
    return PackMemory(
        number=number,
        start_day=start_day,
        since_s=since_s,
        cycle_count=float(grid.cycle_count[last]),
        first_values=_first_present(values),
        kept=kept,
    )


def _window(
    days: NDArray[np.float64],
    day: int,
    pack: PackMemory,
    audited: AuditedTelemetry,
    own: NDArray[np.bool_],
) -> FeatureWindow | None:
    """Put a window together; None where its days show less than the whole life would."""
    telemetry = audited.telemetry
    count = int(np.count_nonzero(own))
    seen = [np.flatnonzero(np.isfinite(telemetry.values[:count, c])) for c in (0, *_COUNTERS)]
    oldest_s = (day - days.shape[1]) * SECONDS_PER_DAY
    if any(len(s) and telemetry.at_s[s[-1]] <= oldest_s for s in seen[:2]):
        return None
    kept = sorted({*range(max(count - 2, 0), count), *(int(s[-1]) for s in seen[1:] if len(s))})
    return FeatureWindow(
        day, days, pack, telemetry.at_s[kept], np.ascontiguousarray(telemetry.values[kept])
    )


def _closes(at_s: NDArray[np.int64], closed_until_s: int) -> bool:
    """Tell whether no reading of a closed day was recorded after a later one, nor may be moved."""
    later = np.flatnonzero(at_s > closed_until_s)
    first_later = int(later[0]) if len(later) else len(at_s)
    closed = np.flatnonzero(at_s <= closed_until_s)
    if len(closed) == 0 or closed[-1] > first_later:
        return False
    return _runs_forward(at_s[max(first_later - 4, 0) :])


def _runs_forward(at_s: NDArray[np.int64]) -> bool:
    return bool((np.diff(at_s) > 0).all())


def _first_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first values present in each row, shape (n_rows, REFERENCE_READINGS)."""
    first = np.full((len(values), REFERENCE_READINGS), np.nan)
    for row, own in zip(first, values, strict=True):
        present = own[np.isfinite(own)][:REFERENCE_READINGS]
        row[: len(present)] = present
    return first
