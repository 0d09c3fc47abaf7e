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
    """
    graph = _Graph()
    scaled = _write_scaling(graph)
    hazard_logits, causes = _write_network(graph, scaled, parameters.named())
    _write_outputs(graph, hazard_logits, causes, calibration)
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


def _write_scaling(graph: _Graph) -> str:
    scale = scaling()
    low, high = graph.constant("low", scale["low"]), graph.constant("high", scale["high"])
    logged_scale = np.where(scale["log_scale"] > 0, scale["log_scale"], 1.0)
    zero, one = graph.constant("zero", 0.0), graph.constant("one", 1.0)
    is_logged = graph.constant("is_logged", scale["log_scale"] > 0, bool)
    features = graph.wide("features", "wide_features")
    missing = graph.node("IsNaN", [features], "missing")
    values = graph.node("Where", [missing, low, features], "present")
    values = graph.node("Min", [graph.node("Max", [values, low], "raised"), high], "clipped")
    size = graph.node("Abs", [values], "size")
    size = graph.node("Div", [size, graph.constant("log_scale", logged_scale)], "relative_size")
    size = graph.node("Log", [graph.node("Add", [size, one], "shifted_size")], "logged_size")
    logged = graph.node("Mul", [graph.node("Sign", [values], "sign"), size], "symlog")
    values = graph.node("Where", [is_logged, logged, values], "viewed")
    values = graph.node("Sub", [values, graph.constant("center", scale["center"])], "centered")
    half_width = graph.constant("half_width", scale["half_width"])
    values = graph.node("Div", [values, half_width], "unit")
    values = graph.node("Where", [missing, zero, values], "filled")
    seen = graph.constant("seen", scale["seen"])
    values = graph.node("Mul", [values, seen], "seen_values")
    flags = graph.wide(missing, "flags")
    flags = graph.node("Mul", [flags, seen], "seen_flags")
    return graph.node("Concat", [values, flags], "scaled", axis=1)


def _write_network(graph: _Graph, scaled: str, weights: dict[str, np.ndarray]) -> tuple[str, str]:
    hidden = scaled
    for layer in (0, 2):
        weight = graph.weight(f"trunk.{layer}.weight", weights[f"trunk.{layer}.weight"].T)
        bias = graph.weight(f"trunk.{layer}.bias", weights[f"trunk.{layer}.bias"])
        hidden = graph.node("Gemm", [hidden, weight, bias], f"linear_{layer}")
        hidden = graph.node("Tanh", [hidden], f"hidden_{layer}")
    parts = {"hazards": slice(None, NUM_BINS), "causes": slice(NUM_BINS, None)}
    logits = []
    for name, part in parts.items():
        weight = graph.weight(f"head.weight.{name}", weights["head.weight"][part].T)
        bias = graph.weight(f"head.bias.{name}", weights["head.bias"][part])
        logits.append(graph.node("Gemm", [hidden, weight, bias], f"{name}_logits"))
    return logits[0], logits[1]


def _write_outputs(
    graph: _Graph, hazard_logits: str, causes: str, calibration: Calibration
) -> None:
    offset = np.log(WIDTHS_DAYS * BASE_RATE_PER_DAY) + calibration.shift
    logits = graph.node(
        "Mul", [hazard_logits, graph.constant("calibration_scale", calibration.scale)], "sharpened"
    )
    logits = graph.node("Add", [logits, graph.constant("hazard_offset", offset)], "offset_logits")
    hazards = _write_softplus(graph, logits)
    floor = graph.constant("hazard_floor", LEAST_RATE_PER_DAY * WIDTHS_DAYS)
    hazards = graph.node("Add", [hazards, floor], "hazards")

    bins = np.arange(NUM_BINS)
    edges = np.array([bins_until(edge) for edge in ACTION_EDGES_DAYS])
    in_month = graph.constant("in_month", bins[:, None] < bins_until(HORIZON_DAYS))
    soon = graph.node("MatMul", [hazards, in_month], "hazard_in_month")
    survived = graph.node("Exp", [graph.node("Neg", [soon], "minus_month")], "month_survival")
    one = "one"
    probability = graph.node("Sub", [one, survived], "probability_column")
    last_axis = graph.constant("last_axis", [1], np.int64)
    probability = graph.node("Squeeze", [probability, last_axis], "probability")
    graph.result(probability, "failure_probability_30d")

    until_edges = graph.constant("until_edges", bins[:, None] < edges[None, :])
    at_edges = graph.node("MatMul", [hazards, until_edges], "hazard_at_edges")
    survival = graph.node("Exp", [graph.node("Neg", [at_edges], "minus_edges")], "edge_survival")
    count = len(ACTION_EDGES_DAYS)
    differences = np.zeros((count, count + 1))
    differences[np.arange(count), np.arange(count)] = -1
    differences[np.arange(count), np.arange(count) + 1] = 1
    first = np.eye(count + 1)[0]
    bands = graph.node(
        "MatMul", [survival, graph.constant("differences", differences)], "band_steps"
    )
    bands = graph.node("Add", [bands, graph.constant("first_band", first)], "bands")
    graph.result(bands, "action_probabilities")

    strictly_before = graph.constant("strictly_before", bins[:, None] < bins[None, :])
    before = graph.node("MatMul", [hazards, strictly_before], "hazard_before")
    middle_axis = graph.constant("middle_axis", [1], np.int64)
    before = graph.node("Unsqueeze", [before, middle_axis], "before_3d")
    in_bin = graph.node("Unsqueeze", [hazards, middle_axis], "hazards_3d")
    wanted = -np.log1p(-np.array(QUANTILES))
    targets = graph.constant("targets", wanted[None, :, None])
    share = graph.node("Sub", [targets, before], "hazard_left")
    share = graph.node("Div", [share, in_bin], "bin_share")
    share = graph.node("Clip", [share, "zero", "one"], "clipped_share")
    widths = graph.constant("widths", WIDTHS_DAYS[:, None])
    days = graph.node("MatMul", [share, widths], "days_3d")
    days = graph.node("Squeeze", [days, graph.constant("third_axis", [2], np.int64)], "days_bins")
    total = graph.node(
        "MatMul", [hazards, graph.constant("all_bins", np.ones((NUM_BINS, 1)))], "hazard_total"
    )
    beyond = graph.node("Sub", [graph.constant("targets_2d", wanted[None, :]), total], "beyond")
    beyond = graph.node("Max", [beyond, "zero"], "beyond_last")
    is_last = graph.constant("is_last", (bins == NUM_BINS - 1)[:, None] / WIDTHS_DAYS[-1])
    rate = graph.node("MatMul", [hazards, is_last], "last_rate")
    days = graph.node("Add", [days, graph.node("Div", [beyond, rate], "tail_days")], "days_all")
    days = graph.node("Min", [days, graph.constant("max_days", MAX_DAYS)], "capped_days")
    graph.result(days, "days_to_failure")
    graph.result(graph.node("Softmax", [causes], "causes", axis=1), "cause_probabilities")


def _write_softplus(graph: _Graph, logits: str) -> str:
    """Write max(x, 0) + ln(1 + exp(−|x|)); the runtime's own Softplus knows float32 alone."""
    size = graph.node("Neg", [graph.node("Abs", [logits], "logit_size")], "minus_size")
    tail = graph.node("Add", [graph.node("Exp", [size], "tail_ratio"), "one"], "one_and_tail")
    rest = graph.node("Log", [tail], "softplus_rest")
    return graph.node("Add", [graph.node("Max", [logits, "zero"], "ramp"), rest], "soft_hazards")
