"""Writing the ONNX graph node by node: the same weights give the same bytes, anywhere.

`torch.onnx.export` writes source paths and stack traces into the file; this writer writes only
what is computed. Cumulative sums are products with triangular matrices, which every runtime has.

Weights are float32, arithmetic is float64: where a quantile of the failure day falls on a stretch
with hardly any hazard, the rounding of float32 moves it by whole days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..bundle import OUTPUTS
from ..errors import BundleError
from ..feature_spec import NUM_FEATURES
from ..hazard_bins import (
    BASE_RATE_PER_DAY,
    EDGES_DAYS,
    LEAST_RATE_PER_DAY,
    NUM_BINS,
    WIDTHS_DAYS,
)
from ..parameters import Parameters
from ..prediction import ACTION_EDGES_DAYS, HORIZON_DAYS, MAX_DAYS
from ..telemetry import CAUSES
from .network import HazardNetwork, scaling
from .outputs import QUANTILES, bins_until

if TYPE_CHECKING:
    from ..calibration import Calibration

OPSET = 17
MOST_LOGIT = 600.0
IR_VERSION = 9


def parameters_of(network: HazardNetwork) -> Parameters:
    """Return a network's weights in the order of its `state_dict`."""
    return Parameters.of({name: t.detach().numpy() for name, t in network.state_dict().items()})


def network_of(parameters: Parameters) -> HazardNetwork:
    """Return a network with these weights.

    Raises:
        ValueError: when a name or shape is not the network's.
    """
    import torch

    network = HazardNetwork()
    own = network.state_dict()
    given = parameters.named()
    if list(own) != list(given) or any(own[n].shape != given[n].shape for n in own):
        message = "these are not weights of this network"
        raise ValueError(message)
    network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in given.items()})
    return network


class _Graph:
    """Collects nodes and constants in the order in which they are written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: object, dtype: type = np.float64) -> str:
        array: np.ndarray = np.ascontiguousarray(np.asarray(values, dtype=dtype))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        return self.wide(self.constant(name, values, np.float32), f"wide_{name}")

    def wide(self, name: str, output: str) -> str:
        return self.node("Cast", [name], output, to=TensorProto.DOUBLE)

    def result(self, name: str, output: str) -> str:
        return self.node("Cast", [name], output, to=TensorProto.FLOAT)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


def export_onnx(parameters: Parameters, calibration: Calibration) -> bytes:
    """Write the graph: raw feature values with NaN for missing -> final outputs.

    Args:
        parameters: weights of a `HazardNetwork`.
        calibration: of the hazard logits.

    Returns:
        The ONNX file, byte-identical for the same weights and calibration.

    Raises:
        ValueError: the weights are not finite, or so large that a hazard could overflow.
    """
    graph = _Graph()
    inputs = _write_scaling(graph)
    named = parameters.named()
    _refuse_overflow(named, calibration)
    hazard_logits, causes = _write_network(graph, inputs, named, calibration)
    _write_outputs(graph, hazard_logits, causes)
    shapes: dict[str, list[str | int]] = {
        "failure_probability_30d": ["n"],
        "days_to_failure": ["n", len(QUANTILES)],
        "action_probabilities": ["n", len(ACTION_EDGES_DAYS) + 1],
        "cause_probabilities": ["n", len(CAUSES)],
    }
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fedcell",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", NUM_FEATURES])],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n]) for n in OUTPUTS],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fedcell",
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def read_parameters(model_bytes: bytes) -> Parameters:
    """Read the weights back from a graph that `export_onnx` wrote.

    Raises:
        BundleError: when the graph was not written by it.
    """
    model = onnx.load_model_from_string(model_bytes)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = list(HazardNetwork().state_dict())
    try:
        head_w = np.concatenate([arrays["head.weight.hazards"], arrays["head.weight.causes"]], 1).T
        head_b = np.concatenate([arrays["head.bias.hazards"], arrays["head.bias.causes"]])
        trunk = {n: arrays[n].T if n.endswith("weight") else arrays[n] for n in names[:-2]}
    except KeyError as error:
        what = f"the graph lacks the weights {error}"
        raise BundleError("model.onnx", what, "use a bundle that fedcell exported") from error
    return Parameters.of(trunk | {"head.weight": head_w, "head.bias": head_b})


def operators(model_bytes: bytes) -> tuple[str, ...]:
    """Return the operators a graph uses, sorted."""
    model = onnx.load_model_from_string(model_bytes)
    return tuple(sorted({node.op_type for node in model.graph.node}))


def _refuse_overflow(weights: dict[str, np.ndarray], calibration: Calibration) -> None:
    """Refuse weights whose logits could leave the range of the exponential, for any input."""
    head, bias = weights["head.weight"][:NUM_BINS], weights["head.bias"][:NUM_BINS]
    largest = calibration.scale * (np.abs(head).sum(axis=1) + np.abs(bias)) + abs(calibration.shift)
    is_finite = all(np.isfinite(values).all() for values in weights.values())
    if not (is_finite and (largest < MOST_LOGIT).all()):
        raise ValueError(f"weights must be finite and their logits below {MOST_LOGIT:g}")


def _write_scaling(graph: _Graph) -> str:
    """Write the view of each value, the middle of its range where it is missing, and the flags."""
    scale = scaling()
    logged_scale = np.where(scale["log_scale"] > 0, scale["log_scale"], 1.0)
    features = graph.wide("features", "wide_features")
    missing = graph.node("IsNaN", [features], "missing")
    values = graph.node("Max", [features, graph.constant("low", scale["low"])], "raised")
    values = graph.node("Min", [values, graph.constant("high", scale["high"])], "clipped")
    size = graph.node("Abs", [values], "size")
    size = graph.node("Div", [size, graph.constant("log_scale", logged_scale)], "relative_size")
    size = graph.node("Add", [size, graph.constant("one", 1.0)], "shifted_size")
    size = graph.node("Log", [size], "logged_size")
    logged = graph.node("Mul", [graph.node("Sign", [values], "sign"), size], "symlog")
    is_logged = graph.constant("is_logged", scale["log_scale"] > 0, bool)
    values = graph.node("Where", [is_logged, logged, values], "viewed")
    values = graph.node(
        "Where", [missing, graph.constant("center", scale["center"]), values], "filled"
    )
    return graph.node("Concat", [values, graph.wide(missing, "flags")], "inputs", axis=1)


def _write_network(
    graph: _Graph, inputs: str, weights: dict[str, np.ndarray], calibration: Calibration
) -> tuple[str, str]:
    """Write the layers; scaling and calibration act on constants, once, when a graph is loaded."""
    scale = scaling()
    unit = (scale["seen"].astype(np.float64) / scale["half_width"], scale["seen"])
    shift = (-scale["center"].astype(np.float64) * unit[0], np.zeros(NUM_FEATURES))
    first = graph.weight("trunk.0.weight", weights["trunk.0.weight"].T)
    bias = graph.weight("trunk.0.bias", weights["trunk.0.bias"])
    bias = graph.node(
        "Gemm",
        [graph.constant("unit_shift", np.concatenate(shift)[None]), first, bias],
        "shifted_bias",
    )
    first = graph.node(
        "Mul", [first, graph.constant("unit_scale", np.concatenate(unit)[:, None])], "scaled_weight"
    )
    hidden = graph.node("Gemm", [inputs, first, bias], "linear_0")
    hidden = graph.node("Tanh", [hidden], "hidden_0")
    second = graph.weight("trunk.2.weight", weights["trunk.2.weight"].T)
    hidden = graph.node(
        "Gemm", [hidden, second, graph.weight("trunk.2.bias", weights["trunk.2.bias"])], "linear_2"
    )
    hidden = graph.node("Tanh", [hidden], "hidden_2")
    head, head_bias = weights["head.weight"], weights["head.bias"]
    sharpness = graph.constant("calibration_scale", calibration.scale)
    offset = np.log(WIDTHS_DAYS * BASE_RATE_PER_DAY) + calibration.shift
    offset += LEAST_RATE_PER_DAY * WIDTHS_DAYS
    hazards = graph.weight("head.weight.hazards", head[:NUM_BINS].T)
    hazards = graph.node("Mul", [hazards, sharpness], "sharpened_weight")
    bias = graph.weight("head.bias.hazards", head_bias[:NUM_BINS])
    bias = graph.node("Mul", [bias, sharpness], "sharpened_bias")
    bias = graph.node("Add", [bias, graph.constant("hazard_offset", offset)], "offset_bias")
    causes = graph.weight("head.weight.causes", head[NUM_BINS:].T)
    causes_bias = graph.weight("head.bias.causes", head_bias[NUM_BINS:])
    return (
        graph.node("Gemm", [hidden, hazards, bias], "hazard_logits"),
        graph.node("Gemm", [hidden, causes, causes_bias], "cause_logits"),
    )


def _write_outputs(graph: _Graph, hazard_logits: str, causes: str) -> None:
    """Write the hazards, ln(1 + exp(logit)) + floor = ln(e^floor + exp(logit + floor)), and on."""
    floor = LEAST_RATE_PER_DAY * WIDTHS_DAYS
    powers = graph.node("Exp", [hazard_logits], "powers")
    powers = graph.node("Add", [powers, graph.constant("floor_power", np.exp(floor))], "all_powers")
    hazards = graph.node("Log", [powers], "hazards")
    bins = np.arange(NUM_BINS)

    edges = bins[:, None] < np.array([bins_until(edge) for edge in ACTION_EDGES_DAYS])
    lost = graph.constant("until_edges", -edges.astype(float))
    survival = graph.node("Exp", [graph.node("MatMul", [hazards, lost], "lost")], "edge_survival")
    count = len(ACTION_EDGES_DAYS)
    differences = np.zeros((count, count + 1))
    differences[np.arange(count), np.arange(count)] = -1
    differences[np.arange(count), np.arange(count) + 1] = 1
    bands = [survival, graph.constant("differences", differences)]
    bands.append(graph.constant("first_band", np.eye(count + 1)[0]))
    graph.result(graph.node("Gemm", bands, "bands"), "action_probabilities")
    in_month = np.append(np.array(ACTION_EDGES_DAYS) <= HORIZON_DAYS, False)
    month = graph.constant("in_month", in_month[:, None], np.float32)
    month = graph.node("MatMul", ["action_probabilities", month], "month_column")
    last_axis = graph.constant("last_axis", [1], np.int64)
    graph.node("Squeeze", [month, last_axis], "failure_probability_30d")
    _write_days(graph, hazards)
    graph.result(graph.node("Softmax", [causes], "causes", axis=1), "cause_probabilities")


def _write_days(graph: _Graph, hazards: str) -> None:
    """Write the quantiles of days: for each, the share of every bin that is lived through.

    Each quantile has its own columns, one a bin. The last bin's hazard goes on until `MAX_DAYS`.
    """
    bins, count = np.arange(NUM_BINS), len(QUANTILES)
    wanted = np.repeat(-np.log1p(-np.array(QUANTILES)), NUM_BINS)
    earlier = -np.tile((bins[:, None] < bins).astype(float), count)
    left = [graph.constant("strictly_before", earlier), graph.constant("wanted", wanted)]
    own = graph.constant("own_bin", np.tile(np.eye(NUM_BINS), count))
    share = graph.node(
        "Div",
        [
            graph.node("Gemm", [hazards, *left], "hazard_left"),
            graph.node("MatMul", [hazards, own], "own_hazard"),
        ],
        "share",
    )
    share = graph.node("Max", [share, graph.constant("zero", 0.0)], "begun_share")
    most = np.ones(NUM_BINS)
    most[-1] += (MAX_DAYS - EDGES_DAYS[-1]) / WIDTHS_DAYS[-1]
    share = graph.node("Min", [share, graph.constant("most", np.tile(most, count))], "lived_share")
    widths = np.kron(np.eye(count), WIDTHS_DAYS[:, None])
    graph.result(
        graph.node("MatMul", [share, graph.constant("widths", widths)], "days"), "days_to_failure"
    )
