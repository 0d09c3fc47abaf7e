"""Confidence as the network gives it, brought to what comes true by the bundle's factors."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.band_reliability import confidence_reliability
from models.bundle import (
    CARD_JSON,
    EVEN_SCALES,
    MANIFEST,
    canonical_json,
    load_bundle,
    write_bundle,
)
from models.calibration import Calibration
from models.errors import BundleError
from models.hazard_bins import WIDTHS_DAYS
from models.inference import Predictor
from models.training.export_onnx import read_parameters
from models.training.recipe import TrainedModel, bundle_of
from tests.support.fleets import CARD, random_bundle, simulated_rows


@pytest.fixture(scope="module")
def scaled():
    """The default network made to see failures too soon, with scales from half of the devices."""
    rows = simulated_rows()
    parameters = read_parameters(load_bundle().model_bytes)
    model = TrainedModel(parameters, Calibration(scale=1.2, shift=1.5), 0.5)
    fitted = rows.take(rows.device % 2 == 0)
    return bundle_of(model, rows, name="random", card=CARD, unseen=fitted)


def error(bundle, rows):
    said = Predictor(bundle).predict(rows.features)
    return confidence_reliability(
        confidence=said.confidence,
        action=said.action,
        duration_days=rows.exposure.astype(float) @ WIDTHS_DAYS,
        event_observed=rows.event_bin >= 0,
    ).expected_calibration_error()


@pytest.mark.slow
def test_confidence_is_better_calibrated_on_devices_the_scales_were_not_fitted_on(scaled):
    rows = simulated_rows()
    judged = rows.take(rows.device % 2 == 1)
    even = replace(scaled, manifest={**scaled.manifest, "confidence_scales": list(EVEN_SCALES)})
    assert min(scaled.confidence_scales) < 1
    assert error(scaled, judged) < error(even, judged)


def test_scales_touch_confidence_alone(scaled):
    features = simulated_rows().features[::999]
    plain = replace(
        scaled, manifest={k: v for k, v in scaled.manifest.items() if k != "confidence_scales"}
    )
    one, other = Predictor(scaled).predict(features), Predictor(plain).predict(features)
    assert plain.confidence_scales == EVEN_SCALES
    for name in ("failure_probability_30d", "days_to_failure_p50", "action", "urgency", "flagged"):
        assert (getattr(one, name) == getattr(other, name)).all()
    expected = other.confidence * np.array(scaled.confidence_scales)[other.action]
    assert one.confidence == pytest.approx(expected, rel=1e-6)


def test_a_bundle_made_before_scales_is_read_as_it_was():
    assert load_bundle().digest
    assert random_bundle().confidence_scales == EVEN_SCALES
    assert CARD_JSON in random_bundle().files


@pytest.mark.parametrize("scales", [[1, 1, 1], [1, 1, 1, 2], [1, 1, 1, -1], ["a"] * 4, 7])
def test_scales_that_cannot_be_are_refused(scaled, tmp_path, scales):
    manifest = {**json.loads(scaled.files[MANIFEST]), "confidence_scales": scales}
    altered = replace(scaled, files={**scaled.files, MANIFEST: canonical_json(manifest)})
    write_bundle(altered, tmp_path / "b.zip")
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "b.zip", allow_unsigned=True)
