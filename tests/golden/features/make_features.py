"""Writes features_v1.json: features of some days of the golden fleet, run once."""

import json
from pathlib import Path

import numpy as np

from models.feature_spec import FEATURE_NAMES, digest
from models.featurize import featurize
from tests.golden.datasets.make_datasets import golden_readings
from tests.support.fleets import DAY, START_S, profiles

ROWS = ((0, 40), (0, 75), (0, 119), (1, 49), (1, 51), (1, 100), (2, 60), (2, 117))
"""Device and day of each recorded row."""


def recorded_rows() -> list[dict[str, float | None]]:
    """Compute the rows by today's code."""
    table = featurize(golden_readings(), profiles(3))
    rows = []
    for device, day in ROWS:
        (row,) = np.flatnonzero((table.device == device) & (table.as_of_s == START_S + day * DAY))
        values = table.features[row].astype(float).tolist()
        rows.append(
            {
                name: None if np.isnan(value) else float(f"{value:.7g}")
                for name, value in zip(FEATURE_NAMES, values, strict=True)
            }
        )
    return rows


def main() -> None:
    """Write the file beside this script."""
    recorded = {"feature_spec_digest": digest(), "rows": recorded_rows()}
    path = Path(__file__).with_name("features_v1.json")
    path.write_text(json.dumps(recorded, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
