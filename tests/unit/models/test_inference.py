"""Running a bundle: outputs, decisions, and the check before it is trusted."""

import numpy as np
import pytest

from models.bundle import GOLDEN, OUTPUTS, canonical_json, load_bundle
from models.errors import BundleError
from models.feature_spec import NUM_FEATURES
from models.inference import Predictor
from models.prediction import action_band, urgency_band
from tests.support.fleets import random_bundle, simulated_rows
from tests.support.line_bundle import CONFIDENCE, LINE, line_bundle


@pytest.fixture(scope="module")
def predictor():
    return Predictor(random_bundle())


def with_files(bundle, **contents):
    from dataclasses import replace

    return replace(bundle, files={**bundle.files, **contents})


def test_decisions_follow_from_the_outputs(predictor):
    features = simulated_rows().features[:3000]
    outputs, predictions = predictor.outputs(features), predictor.predict(features)
    p50 = outputs["days_to_failure"][:, 1]

    assert set(outputs) == set(OUTPUTS)
    assert (
        predictions.flagged.tolist()
        == (outputs["failure_probability_30d"] >= np.float32(predictor.bundle.threshold)).tolist()
    )
    assert 100 < predictions.flagged.sum() < 2900
    assert predictions.action.tolist() == action_band(p50).tolist()
    assert predictions.urgency.tolist() == urgency_band(p50, predictions.flagged).tolist()
    assert predictions.confidence.tolist() == [
        outputs["action_probabilities"][row, band] for row, band in enumerate(predictions.action)
    ]
    assert predictions.cause.tolist() == outputs["cause_probabilities"].argmax(axis=1).tolist()


def test_a_line_bundle_says_what_its_line_says():
    features = np.full((3, NUM_FEATURES), 100.0, np.float32)
    features[:, LINE] = [10, 60, np.nan]
    predictions = Predictor(line_bundle()).predict(features)

    assert predictions.days_to_failure_p50.tolist() == [10, 60, 3650]
    assert predictions.days_to_failure_p10.tolist() == [5, 30, 1825]
    assert predictions.flagged.tolist() == [True, False, False]
    assert predictions.action.tolist() == [1, 2, 3]
    assert predictions.confidence == pytest.approx([CONFIDENCE] * 3)


def test_batches_are_put_together_in_order(predictor, monkeypatch):
    features = simulated_rows().features[:500]
    once = predictor.outputs(features)
    monkeypatch.setattr("models.inference.BATCH_ROWS", 64)
    in_parts = predictor.outputs(features)

    for name in OUTPUTS:
        assert in_parts[name].shape == once[name].shape
        assert np.allclose(in_parts[name], once[name], rtol=1e-5, atol=1e-6)


def test_no_rows_give_no_predictions(predictor):
    predictions = predictor.predict(np.zeros((0, NUM_FEATURES), np.float32))

    assert {len(column) for column in predictions} == {0}


def test_more_threads_change_nothing():
    features = simulated_rows().features[:2000]
    one, two = (Predictor(random_bundle(), num_threads=n).outputs(features) for n in (1, 2))

    for name in OUTPUTS:
        assert two[name] == pytest.approx(one[name], abs=1e-6)


@pytest.mark.parametrize(
    "features",
    [np.zeros((2, NUM_FEATURES)), np.zeros((2, 3), np.float32), np.zeros(NUM_FEATURES, np.float32)],
    ids=["dtype", "columns", "shape"],
)
def test_features_of_another_form_are_a_programming_error(predictor, features):
    with pytest.raises(ValueError, match="features must be float32"):
        predictor.outputs(features)


@pytest.mark.parametrize("name", ["default", "random", "line"])
def test_a_good_bundle_gives_its_golden_outputs(name):
    bundle = {"default": load_bundle, "random": random_bundle, "line": line_bundle}[name]()
    predictor = Predictor(bundle)
    predictor.check_golden()

    golden = bundle.golden()
    outputs = predictor.outputs(golden["features"])
    for output in OUTPUTS:
        assert outputs[output] == pytest.approx(golden[output], rel=1e-4, abs=1e-5)


def golden_with(**changes):
    import json

    vectors = json.loads(random_bundle().files[GOLDEN]) | changes
    return canonical_json({name: value for name, value in vectors.items() if value is not None})


BROKEN = {
    "another output": {"failure_probability_30d": [0.5] * 24},
    "output of another shape": {"failure_probability_30d": [0.5]},
    "no features": {"features": None},
    "an output missing": {"days_to_failure": None},
    "an output too many": {"price": [1.0]},
    "features of another form": {"features": [[1.0, 2.0]]},
    "features that are words": {"features": "many"},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_golden_vectors_that_do_not_hold_are_refused(change):
    bundle = with_files(random_bundle(), **{GOLDEN: golden_with(**change)})

    with pytest.raises(BundleError, match="golden"):
        Predictor(bundle).check_golden()


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09"])
def test_a_graph_that_the_runtime_refuses_is_a_bundle_error(content):
    bundle = with_files(random_bundle(), **{"model.onnx": content})

    with pytest.raises(BundleError, match="refuses the graph"):
        Predictor(bundle).check_golden()


def test_a_graph_with_another_input_is_a_bundle_error():
    renamed = random_bundle().model_bytes.replace(b"features", b"featurez")

    with pytest.raises(BundleError, match="cannot run the graph"):
        Predictor(with_files(random_bundle(), **{"model.onnx": renamed})).check_golden()


def test_a_row_is_the_same_the_first_time_and_again_and_among_others(predictor):
    features = simulated_rows().features[:40]
    among_others = predictor.outputs(features)
    fresh = Predictor(predictor.bundle)
    for number in range(40):
        alone = fresh.outputs(features[number : number + 1])
        for name, found in alone.items():
            assert found.dtype == np.float32
            assert np.allclose(found[0], among_others[name][number], rtol=1e-6, atol=1e-7)
    kept = fresh.outputs(features[:1])
    fresh.outputs(features[1:2])
    assert np.allclose(kept["days_to_failure"][0], among_others["days_to_failure"][0])
