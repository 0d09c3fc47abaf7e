"""NumPy against ONNX Runtime for any weights and inputs, and hostile files against the reader."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backend_parity import TOLERANCE
from models.bundle import load_bundle
from models.calibration import Calibration
from models.numpy_backend import NumpySession
from models.onnx_gate import check_model
from models.onnx_structure import StructureError
from models.training.export_onnx import export_onnx, parameters_of
from tests.support.examples import examples
from tests.support.fleets import random_network
from tests.support.onnx_parity import extreme_rows, run_graph

SEEDS = st.integers(0, 2**32 - 1)


def worst_differences(content, features):
    session = NumpySession(content)
    names = [value.name for value in session.get_outputs()]
    expected = run_graph(content, features)
    probability = days = 0.0
    for name, found in zip(names, session.run(None, {"features": features}), strict=True):
        difference = np.abs(found.astype(float) - expected[name])
        if name == "days_to_failure":
            days = float((difference / np.maximum(np.abs(expected[name]), 1e-6)).max())
        else:
            probability = max(probability, float(difference.max()))
    return probability, days


@settings(max_examples=examples(30))
@given(SEEDS)
def test_the_default_bundle_is_equal_on_extreme_inputs(rows):
    assert max(worst_differences(load_bundle().model_bytes, extreme_rows(rows))) <= TOLERANCE


@settings(max_examples=examples(15))
@given(SEEDS, SEEDS, st.sampled_from([0.3, 1.0, 5.0]), st.floats(0.3, 2.5), st.floats(-2, 2))
def test_any_weights_are_equal_on_extreme_inputs(weights, rows, gain, scale, shift):
    parameters = parameters_of(random_network(weights, gain=gain))
    content = export_onnx(parameters, Calibration(scale=scale, shift=shift))
    assert max(worst_differences(content, extreme_rows(rows))) <= TOLERANCE


@settings(max_examples=examples(100))
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_the_one_error(content):
    with pytest.raises(StructureError):
        check_model(content)


@settings(max_examples=examples(100))
@given(st.data())
def test_bytes_put_into_a_model_are_refused_or_harmless(data):
    content = load_bundle().model_bytes
    place = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, 40))
    spliced = content[:place] + data.draw(st.binary(max_size=40)) + content[place + length :]
    try:
        structure = check_model(spliced)
    except StructureError:
        return
    assert set(structure.operators) <= set(check_model(content).operators)
