"""How the fleet stands at the end, and one device's life, both as the bundle in use sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.featurize import featurize_now
from models.fleet_predictions import Reasons, prediction_columns
from models.prediction import Status
from models.telemetry import SECONDS_PER_DAY

from ..run_report_parts import Expectation, FleetHealth, Life

if TYPE_CHECKING:
    from models.inference import Predictor

    from .chosen_devices import Cast
    from .scene import JudgedFleet, TrainingFleet


def fleet_health(training: TrainingFleet, predictor: Predictor, *, now_s: int) -> FleetHealth:
    """Predict every device of the rounds' fleet at one moment.

    Args:
        training: the fleet.
        predictor: of the bundle in use.
        now_s: the end of the simulation, seconds since the Unix epoch.
    """
    profiles = training.fleet.profiles
    table = featurize_now(training.fleet.telemetry, profiles, now_s=now_s)
    columns = prediction_columns(profiles, table, predictor, reasons=Reasons.NONE)
    without_readings = len(profiles) - len(table.status)
    return FleetHealth.of_predictions(
        status=[
            *columns["status"].tolist(),
            *[str(Status.INSUFFICIENT_HISTORY)] * without_readings,
        ],
        urgency=[*columns["urgency"].tolist(), *[None] * without_readings],
        state_of_health=np.append(columns["state_of_health"], np.full(without_readings, np.nan)),
    )


def life_of(fleet: JudgedFleet, predictor: Predictor, *, position: int) -> Life:
    """Follow one device from its first reading to the end of its first pack.

    Args:
        fleet: of the device.
        predictor: of the bundle in use.
        position: of the device in the fleet.
    """
    table, simulated = fleet.table, fleet.fleet
    rows = np.flatnonzero((table.device == position) & (table.pack == 0))
    profile = simulated.profiles[position]
    ok = table.is_ok()[rows]
    predictions = predictor.predict(table.features[rows])
    quantiles = np.stack(
        [
            predictions.days_to_failure_p10,
            predictions.days_to_failure_p50,
            predictions.days_to_failure_p90,
        ],
        axis=1,
    ).astype(np.float64)
    quantiles[~ok] = np.nan
    begin_s = table.pack_since_s[rows][0]
    failed_at_s = simulated.outcomes.failed_at_s[position]
    return Life.of_arrays(
        device_id=profile.device_id,
        as_of_days=(table.as_of_s[rows] - begin_s) / SECONDS_PER_DAY,
        capacity_health_pct=100 * table.capacity_mah[rows] / profile.design_capacity_mah,
        days_to_failure=quantiles,
        failed_at_days=(
            float((failed_at_s - begin_s) / SECONDS_PER_DAY) if np.isfinite(failed_at_s) else None
        ),
        end_of_life_health_pct=100 * profile.end_of_life_capacity_mah / profile.design_capacity_mah,
    )


def followed_device(fleet: JudgedFleet, cast: Cast) -> int:
    """Return the device whose life is shown.

    The first urgent one of the cast, or else the next one that is due, whose battery did fail
    later; without any, the device of the fleet that was watched longest until it failed.
    """
    failed_at_s = fleet.fleet.outcomes.failed_at_s
    for expectation in (Expectation.URGENT, Expectation.SOON):
        for device in cast.devices:
            if device.expectation is expectation and np.isfinite(failed_at_s[device.position]):
                return device.position
    lengths = np.bincount(fleet.windows.device, minlength=len(failed_at_s))
    return int(np.argmax(np.where(np.isfinite(failed_at_s), lengths, -1)))
