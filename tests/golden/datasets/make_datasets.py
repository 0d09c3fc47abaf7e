"""Writes fleet_v1/, cells_v1.parquet and predictions_v1.parquet: run once, when they were fixed.

Three devices by closed forms: one fades, one gets a new pack, one has only capacities.
"""

import shutil
from pathlib import Path

import numpy as np

from models.fleet_dataset import write_fleet
from models.fleet_predictions import predict_fleet
from models.inference import Predictor
from models.labels import OwnerAnswers
from models.parquet_tables import Kind, write_table
from models.telemetry import Outcomes
from tests.golden.bundles.make_bundle import golden_bundle
from tests.support.fleets import DAY, START_S, profiles, readings, times, together

HERE = Path(__file__).parent
DAYS = 120


def golden_readings():
    """Return the readings of the three devices."""
    at_s = times(DAYS, per_day=2)
    day = (at_s - START_S) / DAY
    wave = np.sin(day * 1.7)
    fading = readings(
        at_s,
        device_id="d0",
        capacity=np.round(3000 - 5.5 * day + 20 * wave),
        cycles=np.floor(0.7 * day),
        charge=np.round(60 + 0.2 * day + 2 * wave),
        temp_max=np.round(33 + 3 * wave, 1),
        temp_avg=np.round(25 + 2 * wave, 1),
        shutdowns=np.floor(np.maximum(day - 90, 0) / 4),
        usage=np.round(2 + wave, 2),
        resistance=np.round(80 + 0.5 * day + wave, 1),
    )
    new = day > 50
    changed = readings(
        at_s,
        device_id="d1",
        capacity=np.where(new, 2980.0, 2450 - day) + 10 * np.round(wave),
        cycles=np.where(new, np.floor(day - 50), 400 + np.floor(day)),
        resistance=np.where(new, 79.0, 150.0),
    )
    seldom = np.arange(len(at_s)) % 5 == 0
    bare = readings(at_s[seldom], device_id="d2", capacity=2700 - 2 * day[seldom])
    for life in (fading, changed):
        life.values[np.arange(life.values.size).reshape(life.values.shape) % 37 == 0] = np.nan
    return together(fading, changed, bare)


def main() -> None:
    """Write the files beside this script."""
    from models.fleet_dataset import open_fleet

    folder = HERE / "fleet_v1"
    shutil.rmtree(folder, ignore_errors=True)
    until = START_S + DAYS * DAY
    write_fleet(
        folder,
        profiles=profiles(3),
        telemetry=golden_readings(),
        outcomes=Outcomes(
            ("d0", "d1", "d2"),
            np.full(3, until),
            np.array([START_S + 110.0 * DAY, np.nan, np.nan]),
            np.array(["capacity_fade", None, None], dtype=object),
        ),
        answers=OwnerAnswers(
            np.array([0]), np.array([START_S + 111 * DAY]), np.array([0], np.int8)
        ),
    )
    predict_fleet(
        open_fleet(folder), Predictor(golden_bundle()), HERE / "predictions_v1.parquet", now_s=until
    )
    cycle = np.tile(np.arange(1.0, 61), 2)
    write_table(
        HERE / "cells_v1.parquet",
        {
            "cell_id": np.repeat(np.array(["x-1", "x-2"], dtype=object), 60),
            "dataset": np.full(120, "golden", dtype=object),
            "cycle": cycle,
            "day": cycle,
            "capacity_ah": 1.1 - np.repeat([0.002, 0.006], 60) * cycle,
            "nominal_ah": np.full(120, 1.1),
            "eol_capacity_ah": np.full(120, 0.88),
            "internal_resistance_ohm": np.full(120, 0.017),
            "eol_flag": np.where((np.repeat([0, 1], 60) == 1) & (cycle >= 37), 1.0, 0.0),
        },
        {
            "cell_id": Kind.TEXT,
            "dataset": Kind.TEXT,
            "cycle": Kind.NUMBER,
            "day": Kind.NUMBER,
            "capacity_ah": Kind.NUMBER,
            "nominal_ah": Kind.NUMBER,
            "eol_capacity_ah": Kind.NUMBER,
            "internal_resistance_ohm": Kind.NUMBER,
            "eol_flag": Kind.NUMBER,
        },
    )


if __name__ == "__main__":
    main()
