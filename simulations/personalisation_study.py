"""Does a device's own correction help? The days that it would have said, against what came.

The rule is `models.personal_correction`, the one that devices run, over whole fleets at once: day
by day as each device would have predicted, with what it knew then, under one bundle for good or a
new one every four weeks. What became of a simulated
device is known to the end of its battery, however long that takes: judged on failures within the
months of telemetry alone, any model that says less looks better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from models.evaluation import device_windows
from models.featurize import featurize
from models.metrics import NEAR_DAYS
from models.personal_correction import (
    Correction,
    Forecast,
    corrected_days,
    forecast_of,
    handed_on,
    learnt,
)
from models.prediction import MAX_DAYS
from models.telemetry import SECONDS_PER_DAY

from .fleet import device_ids, lives_of, simulate_fleet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.featurize import FeatureTable
    from models.inference import Predictor
    from models.telemetry import DeviceProfiles, Outcomes, Telemetry

    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

WHOLE_LIFE_DAYS: Final = 4200
LEAST_DEVICES: Final = 5
"""A segment with fewer devices near their end says nothing of its kind."""
SOON_DAYS: Final = 365.0
BUNDLE_DAYS: Final = 28
"""Time between two bundles, where there are several."""


@dataclass(frozen=True, slots=True)
class LivedFleet:
    """What devices measured day by day, and what became of them.

    Attributes:
        table: features, rows with status ok, sorted by device and day.
        days_left: float64, shape (n,): to the failure of the first pack, NaN where none is known.
        label: bool, shape (n,): a failure within 30 days.
        label_known: bool, shape (n,).
        segments: by kind, the name of each device's segment, shape (n_devices,).
    """

    table: FeatureTable
    days_left: Floats
    label: NDArray[np.bool_]
    label_known: NDArray[np.bool_]
    segments: Mapping[str, NDArray[np.object_]]


@dataclass(frozen=True, slots=True)
class JudgedDays:
    """Each day of each device's first pack: what was said, and what was left.

    Attributes:
        device: int, shape (n,).
        days_left: float64, shape (n,): to the failure, NaN where none is known.
        model_days: float64, shape (n,): p50 of the model alone.
        model_p90: float64, shape (n,).
        own_days: float64, shape (n,): p50 as the device would have said it.
        features: float32, shape (n, n_features).
        label: bool, shape (n,): a failure within 30 days.
        label_known: bool, shape (n,).
        segments: by kind, the name of each device's segment, shape (n_devices,).
    """

    device: NDArray[np.intp]
    days_left: Floats
    model_days: Floats
    model_p90: Floats
    own_days: Floats
    features: NDArray[np.float32]
    label: NDArray[np.bool_]
    label_known: NDArray[np.bool_]
    segments: Mapping[str, NDArray[np.object_]]

    def near_end(self) -> NDArray[np.bool_]:
        """Return the days with a failure 90 days ahead or less."""
        return np.isfinite(self.days_left) & (self.days_left <= NEAR_DAYS)

    def known(self) -> NDArray[np.bool_]:
        """Return the days whose failure is known."""
        return np.isfinite(self.days_left)

    def said_soon(self) -> NDArray[np.bool_]:
        """Return the days with a known failure on which the model says a year or less."""
        return self.known() & (self.model_days <= SOON_DAYS)

    def error(self, said: Floats, rows: NDArray[np.bool_]) -> float:
        """Return the mean absolute error of days to failure over some rows, days."""
        left = np.minimum(self.days_left[rows], MAX_DAYS)
        return float(np.abs(said[rows] - left).mean())

    def error_by_segment(self, said: Floats, rows: NDArray[np.bool_]) -> dict[str, float]:
        """Return the error over some rows in every segment with enough devices among them."""
        found = {}
        for kind, names in self.segments.items():
            each, code = np.unique(names.astype(str), return_inverse=True)
            of_row = code[self.device]
            for number, name in enumerate(each.tolist()):
                inside = rows & (of_row == number)
                if len(np.unique(self.device[inside])) >= LEAST_DEVICES:
                    found[f"{kind} {name}"] = self.error(said, inside)
        return found

    def worst_segment(self, said: Floats, rows: NDArray[np.bool_]) -> tuple[str, float]:
        """Return the segment with the greatest error, and that error."""
        return max(self.error_by_segment(said, rows).items(), key=lambda entry: entry[1])


def lived_fleet(recipe: FleetRecipe, *, num_devices: int, num_days: int, seed: int) -> LivedFleet:
    """Live through a simulated fleet.

    Args:
        recipe: of the fleet.
        num_devices: devices.
        num_days: of telemetry.
        seed: of the fleet.
    """
    fleet = simulate_fleet(num_devices=num_devices, num_days=num_days, seed=seed, recipe=recipe)
    # The same batteries, whose owners never take them out of use: each reaches its end.
    uncensored = replace(
        recipe, retired_a_year=0.0, owner_replaced_a_year=0.0, owner_replaced_worn_a_year=0.0
    )
    numbers = np.arange(num_devices, dtype=np.int64)
    lives = lives_of(numbers, num_days=WHOLE_LIFE_DAYS, seed=seed, recipe=uncensored)
    truth = lives.truth.outcomes(device_ids(numbers, seed=seed))
    profiles = fleet.profiles
    return lived(
        profiles,
        fleet.telemetry,
        outcomes=fleet.outcomes,
        failed_at_s=truth.failed_at_s,
        segments={
            "device model": profiles.device_model,
            "climate": profiles.climate,
            "region": profiles.region,
            "chemistry": profiles.chemistry,
        },
    )


def lived(
    profiles: DeviceProfiles,
    telemetry: Telemetry,
    *,
    outcomes: Outcomes,
    failed_at_s: Floats,
    segments: Mapping[str, NDArray[np.object_]],
) -> LivedFleet:
    """Put together what devices measured, and what became of them.

    Args:
        profiles: one a device.
        telemetry: of these devices.
        outcomes: what was seen of them, for labels.
        failed_at_s: shape (n_devices,), when each first pack failed, however late; NaN = not known.
        segments: by kind, the name of each device's segment.
    """
    table = featurize(telemetry, profiles)
    table = _rows_of(table, table.is_ok())
    windows = device_windows(table.device, table.as_of_s, outcomes)
    left = (failed_at_s[table.device] - table.as_of_s) / SECONDS_PER_DAY
    return LivedFleet(
        table=table,
        days_left=np.where(left > 0, left, np.nan),
        label=windows.label,
        label_known=windows.known,
        segments=segments,
    )


def judged_days(fleet: LivedFleet, bundles: Sequence[Predictor]) -> JudgedDays:
    """Say what the models and the devices would have said, day by day.

    Args:
        fleet: devices.
        bundles: taken in turn, for four weeks each; a single one stays, and is never handed on.
    """
    table = fleet.table
    day = table.as_of_s // SECONDS_PER_DAY
    since = day - day.min()
    bundle = since // BUNDLE_DAYS if len(bundles) > 1 else np.zeros_like(since)
    days = np.zeros((len(day), 3))
    for number, predictor in enumerate(bundles):
        rows = np.flatnonzero(bundle % len(bundles) == number)
        outputs = predictor.outputs(table.features[rows], ["days_to_failure"])
        days[rows] = outputs["days_to_failure"]
    own = corrected_days(days[:, 1], own_log_factors(table, days[:, 1], bundle))
    kept = table.pack == 0
    return JudgedDays(
        device=table.device[kept],
        days_left=fleet.days_left[kept],
        model_days=days[kept, 1],
        model_p90=days[kept, 2],
        own_days=own[kept],
        features=table.features[kept],
        label=fleet.label[kept],
        label_known=fleet.label_known[kept],
        segments=fleet.segments,
    )


class _Known(NamedTuple):
    """What every device has kept: shape (n_devices,) each."""

    correction: Correction
    waiting: Forecast
    pack: NDArray[np.int64]
    bundle: NDArray[np.int64]


def own_log_factors(table: FeatureTable, days_p50: Floats, bundle: NDArray[np.int64]) -> Floats:
    """Return the correction that each device has learnt by each row, from its own rows alone.

    Args:
        table: rows with status ok, sorted by device and day.
        days_p50: shape (n,), of the model alone.
        bundle: shape (n,), the number of the bundle that said it.
    """
    count = int(table.device.max(initial=-1)) + 1
    known = _Known(
        Correction.none(count),
        Forecast.none(count),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
    )
    found = np.zeros(len(days_p50))
    day = table.as_of_s // SECONDS_PER_DAY
    order = np.argsort(day, kind="stable")
    _, first = np.unique(day[order], return_index=True)
    for rows in np.split(order, first[1:]):
        today = forecast_of(table.features[rows], days_p50[rows], day[rows].astype(np.float64))
        found[rows] = _live_on(
            known, table.device[rows], today, pack=table.pack[rows], bundle=bundle[rows]
        )
    return found


def _live_on(
    known: _Known,
    device: NDArray[np.intp],
    today: Forecast,
    *,
    pack: NDArray[np.integer],
    bundle: NDArray[np.int64],
) -> Floats:
    """Let some devices live one day, and return their log factors; `known` is written."""
    is_new = pack != known.pack[device]
    before = Correction(*(np.where(is_new, 0.0, kept[device]) for kept in known.correction))
    made = Forecast(*(np.where(is_new, np.nan, kept[device]) for kept in known.waiting))
    is_other = bundle != known.bundle[device]
    if is_other.any():
        brought = handed_on(before, made, today)
        before = Correction(*_chosen(is_other, brought[0], before))
        made = Forecast(*_chosen(is_other, brought[1], made))
    after, still = learnt(before, made, today)
    for kept, now in zip((*known.correction, *known.waiting), (*after, *still), strict=True):
        kept[device] = now
    known.pack[device] = pack
    known.bundle[device] = bundle
    return after.log_factor


def _chosen(
    where: NDArray[np.bool_], some: tuple[Floats, ...], others: tuple[Floats, ...]
) -> list[Floats]:
    return [np.where(where, one, other) for one, other in zip(some, others, strict=True)]


def _rows_of(table: FeatureTable, chosen: NDArray[np.bool_]) -> FeatureTable:
    arrays = {name: value[chosen] for name, value in table._asdict().items() if name != "audited"}
    return table._replace(**arrays)
