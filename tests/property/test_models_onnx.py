"""ONNX Runtime against torch, and what every output promises, for any weights and inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import load_bundle
from models.calibration import Calibration
from models.training.export_onnx import export_onnx, parameters_of, read_parameters
from tests.support.examples import examples
from tests.support.fleets import random_network
from tests.support.onnx_parity import differences, extreme_rows, run_graph, worst_differences

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=examples(20))
@given(SEEDS, SEEDS, st.sampled_from([0.3, 1.0]), st.floats(0.3, 2.5), st.floats(-2, 2))
def test_parity_for_random_weights_and_extreme_inputs(weights, rows, gain, scale, shift):
    parameters = parameters_of(random_network(weights, gain=gain))
    probabilities, days = worst_differences(
        parameters, Calibration(scale=scale, shift=shift), extreme_rows(rows)
    )

    assert probabilities <= 1e-5
    assert days <= 1e-4


@settings(max_examples=examples(25))
@given(SEEDS)
def test_parity_for_the_default_bundle_on_extreme_inputs(rows):
    bundle = load_bundle()
    calibration = Calibration(**bundle.manifest["calibration"])
    parameters = read_parameters(bundle.model_bytes)
    probabilities, days = differences(
        bundle.model_bytes, parameters, calibration, extreme_rows(rows)
    )

    assert probabilities <= 1e-5
    assert days <= 1e-4


@settings(max_examples=examples(15))
@given(SEEDS, SEEDS, st.sampled_from([0.3, 1.0, 5.0]))
def test_outputs_keep_their_promises(weights, rows, gain):
    content = export_onnx(parameters_of(random_network(weights, gain=gain)), Calibration())
    outputs = run_graph(content, extreme_rows(rows))
    probability, days = outputs["failure_probability_30d"], outputs["days_to_failure"]
    bands, causes = outputs["action_probabilities"], outputs["cause_probabilities"]

    assert all(np.isfinite(values).all() for values in outputs.values())
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (days[:, 0] <= days[:, 1]).all()
    assert (days[:, 1] <= days[:, 2]).all()
    assert ((days > 0) & (days <= 3650)).all()
    assert bands.min() >= -1e-6
    assert bands.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert causes.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert probability == pytest.approx(bands[:, :2].sum(axis=1), abs=1e-5)
    # The month holds the median exactly when the probability reaches one half.
    clear = np.abs(probability - 0.5) > 1e-4
    assert ((days[:, 1] < 30) == (probability > 0.5))[clear].all()
