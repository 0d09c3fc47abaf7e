"""The NumPy backend called as a session of ONNX Runtime is."""

from dataclasses import replace

import numpy as np
import pytest

from models.backend_parity import BackendParity, backend_parity, parity_rows
from models.bundle import MODEL, OUTPUTS, load_bundle
from models.feature_spec import NUM_FEATURES
from models.inference import Predictor
from models.numpy_backend import NumpySession
from models.onnx_structure import StructureError
from tests.support.line_bundle import line_bundle
from tests.support.onnx_surgery import STRUCTURAL, changed, golden_model


@pytest.fixture(scope="module")
def session():
    return NumpySession(load_bundle().model_bytes)


def test_inputs_and_outputs_have_the_names_and_types_of_the_graph(session):
    assert [value.name for value in session.get_inputs()] == ["features"]
    assert {value.name for value in session.get_outputs()} == set(OUTPUTS)
    for value in session.run(None, {"features": parity_rows(3)}):
        assert value.dtype == np.float32
        assert len(value) == 3


def test_outputs_come_in_the_order_asked_for_and_alone_as_together(session):
    features = parity_rows(5)
    names = [value.name for value in session.get_outputs()]
    together = dict(zip(names, session.run(None, {"features": features}), strict=True))
    for name in reversed(names):
        assert np.array_equal(session.run([name], {"features": features})[0], together[name])
    assert session.run([], {"features": features}) == []


def test_no_row_depends_on_another(session):
    features = parity_rows(64)
    whole = session.run(["days_to_failure"], {"features": features})[0]
    single = [session.run(["days_to_failure"], {"features": row[None]})[0] for row in features]
    assert np.allclose(np.concatenate(single), whole, rtol=1e-6)


def test_no_rows_give_no_answers(session):
    empty = np.zeros((0, NUM_FEATURES), np.float32)
    assert [value.shape[0] for value in session.run(None, {"features": empty})] == [0] * 4


def test_features_and_constants_stay_as_they_were(session):
    features = parity_rows(16)
    before = features.copy()
    first = session.run(None, {"features": features})
    second = session.run(None, {"features": features})
    assert np.array_equal(features, before, equal_nan=True)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "feed",
    [
        {},
        {"features": np.zeros((1, NUM_FEATURES))},
        {"features": np.zeros((1, NUM_FEATURES - 1), np.float32)},
        {"features": np.zeros(NUM_FEATURES, np.float32)},
    ],
)
def test_other_features_are_refused(session, feed):
    with pytest.raises(ValueError, match="features must be float32"):
        session.run(None, feed)


def test_unknown_outputs_are_refused(session):
    with pytest.raises(ValueError, match="outputs are"):
        session.run(["fortune"], {"features": parity_rows(1)})


@pytest.mark.parametrize("name", ["another operator", "external data", "rows that meet"])
def test_what_the_gate_refuses_the_backend_refuses(name):
    with pytest.raises(StructureError):
        NumpySession(changed(STRUCTURAL[name]))


def test_golden_vectors_of_the_default_bundle_come_out():
    golden = load_bundle().golden()
    features = golden.pop("features")
    names = list(golden)
    found = NumpySession(load_bundle().model_bytes).run(names, {"features": features})
    for name, values in zip(names, found, strict=True):
        assert values == pytest.approx(golden[name], rel=1e-5, abs=1e-6)


def test_backends_are_equal_on_the_rows_of_the_conformance_test():
    parity = backend_parity(load_bundle())
    assert parity.is_equal
    assert parity.num_rows == 512


def test_backends_are_equal_for_the_first_version_within_what_float32_can():
    bundle = load_bundle()
    parity = backend_parity(replace(bundle, files={**bundle.files, MODEL: golden_model()}))
    assert parity.probability <= 1e-5
    assert parity.days <= 1e-3


def test_backends_are_equal_in_float32_where_a_graph_casts_nothing():
    rows = parity_rows()
    rows[np.isinf(rows)] = 1e30
    assert backend_parity(line_bundle(), rows).is_equal


def test_parity_that_is_none_is_found():
    assert not BackendParity(2e-5, 0.0, 1).is_equal
    assert not BackendParity(0.0, 2e-5, 1).is_equal
    assert BackendParity(1e-5, 1e-5, 1).is_equal


def test_rows_of_the_conformance_test_are_the_same_everywhere():
    rows = parity_rows()
    assert rows.dtype == np.float32
    assert np.array_equal(rows, parity_rows(), equal_nan=True)
    assert np.isnan(rows).mean() > 0.01
    assert np.isinf(rows).any()


def test_a_batch_of_explanations_is_one_run(session):
    features = parity_rows(256)
    expected = Predictor(load_bundle()).outputs(features, ["failure_probability_30d"])
    found = session.run(["failure_probability_30d"], {"features": features})[0]
    assert found == pytest.approx(expected["failure_probability_30d"], abs=1e-5)
