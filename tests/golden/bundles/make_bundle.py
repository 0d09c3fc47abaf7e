"""Writes bundle_v1.zip and expected_v1.json: run once, when the format was fixed.

The weights are no model of anything: sines, so that anybody can write them again.
"""

import json
from pathlib import Path

import numpy as np

from models.bundle import Bundle, sign_bundle, write_bundle
from models.calibration import Calibration
from models.feature_spec import FEATURES
from models.inference import Predictor
from models.model_card import ModelCard, public_data_statement
from models.parameters import Parameters
from models.training.export_onnx import parameters_of
from models.training.network import HazardNetwork
from models.training.recipe import TrainedModel, bundle_of
from models.training_rows import TrainingRows

KEY_ID = "golden"
PRIVATE_KEY = bytes(range(1, 33))
NUM_ROWS = 200


def wavy_parameters() -> Parameters:
    """Return weights sin(1), sin(2), ... scaled to a third."""
    empty = parameters_of(HazardNetwork())
    return empty.with_flat(np.sin(np.arange(1, empty.size + 1)).astype(np.float32) / 3)


def wavy_rows() -> TrainingRows:
    """Return rows that run through the ranges of the features at different paces."""
    low, high = np.array([(f.low, f.high) for f in FEATURES]).T
    step = np.arange(NUM_ROWS)[:, None]
    share = 0.5 + 0.5 * np.sin(0.37 * step * (1 + np.arange(len(FEATURES)) / 7))
    features = (low + (high - low) * share).astype(np.float32)
    features[(step + np.arange(len(FEATURES))) % 11 == 0] = np.nan
    return TrainingRows(
        device=np.zeros(NUM_ROWS, np.intp),
        features=features,
        exposure=np.ones((NUM_ROWS, 16), np.float32),
        event_bin=np.full(NUM_ROWS, -1, np.int8),
        cause=np.full(NUM_ROWS, -1, np.int8),
    )


def golden_bundle() -> Bundle:
    """Build the bundle from today's code."""
    model = TrainedModel(wavy_parameters(), Calibration(scale=1.5, shift=0.25), 0.4)
    card = ModelCard(
        title="Golden bundle",
        purpose="Shows that bundles of format 1 load for ever.",
        trained_on=("nothing: its weights are sines",),
        metrics={},
        privacy=public_data_statement({"sines": "0" * 64}),
        limits=("predicts nothing",),
    )
    bundle = bundle_of(model, wavy_rows(), name="golden", card=card)
    return sign_bundle(bundle, key_id=KEY_ID, private_key=PRIVATE_KEY)


def main() -> None:
    """Write the files beside this script."""
    bundle = golden_bundle()
    write_bundle(bundle, Path(__file__).with_name("bundle_v1.zip"))
    predictions = Predictor(bundle).predict(wavy_rows().features[:12])
    expected = {
        "version": bundle.version,
        "digest": bundle.digest,
        "predictions": {
            name: [round(float(value), 6) for value in getattr(predictions, name)]
            for name in predictions.__slots__
        },
    }
    path = Path(__file__).with_name("expected_v1.json")
    path.write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
