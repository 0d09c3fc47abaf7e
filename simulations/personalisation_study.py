"""Does a device's own correction help? The days that it would have said, against what came.

The rule is `models.personal_correction`, the one that devices run, over whole fleets at once: day
by day as each device would have predicted, with what it knew then. What became of a simulated
device is known to the end of its battery, however long that takes: judged on failures within the
months of telemetry alone, any model that says less looks better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from models.evaluation import device_windows
from models.featurize import featurize
from models.metrics import NEAR_DAYS
from models.personal_correction import Correction, Forecast, corrected_days, forecast_of, learnt
from models.prediction import MAX_DAYS
from models.telemetry import SECONDS_PER_DAY

from .fleet import device_ids, lives_of, simulate_fleet

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def fleet_days(
    predictor: Predictor, recipe: FleetRecipe, *, num_devices: int, num_days: int, seed: int
) -> JudgedDays:
    """Live through a simulated fleet, and say what the model and the devices would have said.

    Args:
        predictor: the model.
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
    return judged_days(
        predictor,
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


def judged_days(
    predictor: Predictor,
    profiles: DeviceProfiles,
    telemetry: Telemetry,
    *,
    outcomes: Outcomes,
    failed_at_s: Floats,
    segments: Mapping[str, NDArray[np.object_]],
) -> JudgedDays:
    """Say what the model and the devices would have said, day by day.

    Args:
        predictor: the model.
        profiles: one a device.
        telemetry: of these devices.
        outcomes: what was seen of them, for labels.
        failed_at_s: shape (n_devices,), when each first pack failed, however late; NaN = not known.
        segments: by kind, the name of each device's segment.
    """
    table = featurize(telemetry, profiles)
    table = _rows_of(table, table.is_ok())
    outputs = predictor.outputs(table.features)
    days = outputs["days_to_failure"].astype(np.float64)
    own = corrected_days(days[:, 1], own_log_factors(table, days[:, 1]))
    kept = table.pack == 0
    windows = device_windows(table.device, table.as_of_s, outcomes)
    left = (failed_at_s[table.device] - table.as_of_s) / SECONDS_PER_DAY
    return JudgedDays(
        device=table.device[kept],
        days_left=np.where(left > 0, left, np.nan)[kept],
        model_days=days[kept, 1],
        model_p90=days[kept, 2],
        own_days=own[kept],
        features=table.features[kept],
        label=windows.label[kept],
        label_known=windows.known[kept],
        segments=segments,
    )


def own_log_factors(table: FeatureTable, days_p50: Floats) -> Floats:
    """Return the correction that each device has learnt by each row, from its own rows alone.

    Args:
        table: rows with status ok, sorted by device and day.
        days_p50: shape (n,), of the model alone.
    """
    count = int(table.device.max(initial=-1)) + 1
    correction, waiting = Correction.none(count), Forecast.none(count)
    pack = np.zeros(count, np.intp)
    found = np.zeros(len(days_p50))
    day = table.as_of_s // SECONDS_PER_DAY
    order = np.argsort(day, kind="stable")
    _, first = np.unique(day[order], return_index=True)
    for rows in np.split(order, first[1:]):
        device = table.device[rows]
        is_new = table.pack[rows] != pack[device]
        before = Correction(*(np.where(is_new, 0.0, kept[device]) for kept in correction))
        made = Forecast(*(np.where(is_new, np.nan, kept[device]) for kept in waiting))
        today = forecast_of(table.features[rows], days_p50[rows], day[rows].astype(np.float64))
        after, still = learnt(before, made, today)
        for kept, now in zip((*correction, *waiting), (*after, *still), strict=True):
            kept[device] = now
        pack[device] = table.pack[rows]
        found[rows] = after.log_factor
    return found


def _rows_of(table: FeatureTable, chosen: NDArray[np.bool_]) -> FeatureTable:
    arrays = {name: value[chosen] for name, value in table._asdict().items() if name != "audited"}
    return table._replace(**arrays)
