"""Datasets written by the first version load and mean the same for ever.

Made by `make_datasets.py` beside this file; never made anew once released.
"""

from pathlib import Path

import numpy as np
import pytest

from models.cycling_cells import DAY_ZERO_S, read_cells
from models.evaluation import evaluate_predictions
from models.fleet_dataset import open_fleet
from models.fleet_predictions import COLUMNS, read_predictions
from models.labels import label_packs
from tests.golden.datasets.make_datasets import golden_readings
from tests.support.fleets import DAY, START_S

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def fleet():
    return open_fleet(HERE / "fleet_v1")


def test_the_first_fleet_dataset_loads(fleet):
    telemetry, outcomes, answers = fleet.telemetry(), fleet.outcomes(), fleet.answers()
    expected = golden_readings()

    assert fleet.profiles.device_id.tolist() == ["d0", "d1", "d2"]
    assert fleet.profiles[0].end_of_life_capacity_mah == 2400
    assert telemetry.offsets.tolist() == expected.offsets.tolist() == [0, 240, 480, 528]
    assert telemetry.at_s.tolist() == expected.at_s.tolist()
    assert np.array_equal(telemetry.values, expected.values, equal_nan=True)
    assert outcomes.primary_cause.tolist() == ["capacity_fade", None, None]
    assert outcomes.failed_at_s == pytest.approx([START_S + 110 * DAY, np.nan, np.nan], nan_ok=True)
    assert answers.failed_at_s.tolist() == [START_S + 111 * DAY]


def test_its_labels_stay(fleet):
    labels = label_packs(fleet.telemetry(), fleet.profiles)

    assert labels.device.tolist() == [0, 1, 1, 2]
    days = ((labels.failed_at_s - START_S) / DAY).tolist()
    assert days == pytest.approx([111, np.nan, np.nan, np.nan], nan_ok=True)
    assert ((labels.known_until_s - START_S) / DAY).tolist() == [113, 43, 113, 101]


def test_the_first_predictions_table_can_be_judged(fleet):
    table = read_predictions(HERE / "predictions_v1.parquet")
    found = evaluate_predictions(table, fleet.outcomes(), where="golden")

    assert list(table) == list(COLUMNS)
    assert len(table["status"]) == 120 + 120 + 118
    assert found.num_windows > 100


def test_the_first_cycling_file_imports():
    cells = read_cells([HERE / "cells_v1.parquet"])

    assert cells.profiles.device_id.tolist() == ["x-1", "x-2"]
    assert cells.profiles.design_capacity_mah == pytest.approx([1100, 1100])
    assert cells.profiles.chemistry.tolist() == ["unknown", "unknown"]
    assert cells.telemetry.values[0] == pytest.approx(
        [1098, 1, np.nan, np.nan, np.nan, np.nan, np.nan, 17], nan_ok=True
    )
    assert cells.outcomes.failed_at_s == pytest.approx([np.nan, DAY_ZERO_S + 37 * DAY], nan_ok=True)
