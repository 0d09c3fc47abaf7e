"""The ONNX graph: the same numbers as torch, the same bytes from anywhere, the weights back."""

import numpy as np
import onnx
import pytest

from models.bundle import OUTPUTS, load_bundle
from models.calibration import Calibration
from models.errors import BundleError
from models.feature_spec import NUM_FEATURES
from models.parameters import Parameters
from models.training.export_onnx import (
    export_onnx,
    network_of,
    operators,
    parameters_of,
    read_parameters,
)
from models.training.outputs import bins_until
from tests.support.fleets import random_bundle, random_network
from tests.support.onnx_parity import run_graph, worst_differences
from tests.support.system_parts import REPOSITORY


def test_weights_come_back_from_the_graph_bit_for_bit():
    parameters = parameters_of(random_network(5))
    again = read_parameters(export_onnx(parameters, Calibration()))

    assert again.names == parameters.names
    assert again.flat().tobytes() == parameters.flat().tobytes()
    assert parameters_of(network_of(again)).flat().tobytes() == parameters.flat().tobytes()


def test_bytes_are_the_same_from_another_folder_and_process():
    """The default bundle was made by another process, on another machine, by another hash seed."""
    bundle = load_bundle()
    calibration = Calibration(**bundle.manifest["calibration"])
    here = export_onnx(read_parameters(bundle.model_bytes), calibration)

    assert here == bundle.model_bytes
    assert str(REPOSITORY).encode() not in here


def test_foreign_graphs_and_weights_are_refused():
    from tests.support.line_bundle import model_bytes

    with pytest.raises(BundleError, match="lacks the weights"):
        read_parameters(model_bytes())
    with pytest.raises(ValueError, match="not weights of this network"):
        network_of(Parameters.of({"other": np.zeros(3, np.float32)}))


def test_the_manifest_lists_the_operators_in_use_all_of_the_standard_set():
    bundle = random_bundle()
    graph = onnx.load_model_from_string(bundle.model_bytes).graph

    assert bundle.manifest["operators"] == sorted({node.op_type for node in graph.node})
    assert bundle.manifest["operators"] == list(operators(bundle.model_bytes))
    assert {node.domain for node in graph.node} == {""}
    assert [output.name for output in graph.output] == list(OUTPUTS)


@pytest.mark.parametrize("name", ["default", "random"])
def test_parity_with_torch_on_real_looking_rows(name):
    from tests.support.fleets import simulated_rows

    bundle = load_bundle() if name == "default" else random_bundle()
    parameters = read_parameters(bundle.model_bytes)
    calibration = Calibration(**bundle.manifest["calibration"])
    probabilities, days = worst_differences(parameters, calibration, simulated_rows().features[::3])

    assert probabilities <= 1e-5
    assert days <= 1e-4


def test_all_that_is_missing_and_nothing_at_all_can_be_predicted():
    content = export_onnx(parameters_of(random_network(6)), Calibration())
    missing = run_graph(content, np.full((2, NUM_FEATURES), np.nan, np.float32))
    nothing = run_graph(content, np.zeros((0, NUM_FEATURES), np.float32))

    assert all(np.isfinite(values).all() for values in missing.values())
    assert {name: values.shape for name, values in nothing.items()} == {
        "failure_probability_30d": (0,),
        "days_to_failure": (0, 3),
        "action_probabilities": (0, 4),
        "cause_probabilities": (0, 5),
    }


def test_calibration_keeps_the_order_of_devices_and_moves_all_outputs_together():
    from tests.support.fleets import simulated_rows

    parameters, features = parameters_of(random_network(7)), simulated_rows().features[::50]
    plain = run_graph(export_onnx(parameters, Calibration()), features)
    riskier = run_graph(export_onnx(parameters, Calibration(shift=0.7)), features)

    assert (riskier["failure_probability_30d"] > plain["failure_probability_30d"]).all()
    assert (riskier["days_to_failure"] <= plain["days_to_failure"]).all()
    with pytest.raises(ValueError, match="scale"):
        Calibration(scale=0.0)


def test_only_edges_of_bins_can_be_summed_up_to():
    assert [bins_until(days) for days in (7, 30, 90)] == [3, 6, 9]
    with pytest.raises(ValueError):
        bins_until(31)
