"""ONNX files that are almost ours: the golden model with one thing changed, by onnx itself.

The golden bundle's model never changes, so its nodes can be named here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "golden" / "bundles" / "bundle_v1.zip"


@cache
def golden_model() -> bytes:
    """Return the model of the first version's golden bundle."""
    with ZipFile(GOLDEN) as archive:
        return archive.read("model.onnx")


def model() -> onnx.ModelProto:
    """Return the golden bundle's model, to be changed at will."""
    return onnx.load_model_from_string(golden_model())


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    """Return the golden model after a change."""
    proto = model()
    change(proto)
    return proto.SerializeToString(deterministic=True)


def tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """Return a constant of the model by name."""
    return next(t for t in proto.graph.initializer if t.name == name)


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return a node of the model by name."""
    return next(n for n in proto.graph.node if n.name == name)


def _replace(proto: onnx.ModelProto, name: str, operator: str, inputs=None, **attributes) -> None:
    old = node(proto, name)
    made = helper.make_node(operator, inputs or list(old.input), list(old.output), **attributes)
    old.CopyFrom(made)


def _add_constant(proto, name, values) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


def _insert(proto, node_proto, index=0) -> None:
    proto.graph.node.insert(index, node_proto)


def _external(proto) -> None:
    weight = tensor(proto, "trunk.0.weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _subgraph(proto) -> None:
    body = helper.make_graph([], "body", [], [])
    _insert(proto, helper.make_node("If", ["one"], ["branch"], then_branch=body, else_branch=body))


def _loop(proto) -> None:
    body = helper.make_graph([], "body", [], [])
    _add_constant(proto, "trips", np.int64(2**62))
    _insert(proto, helper.make_node("Loop", ["trips", ""], ["looped"], body=body))


def _constant_of_shape(proto) -> None:
    _add_constant(proto, "huge", np.array([2**20, 2**20], np.int64))
    _insert(proto, helper.make_node("ConstantOfShape", ["huge"], ["four_terabytes"]))


def _outer_product(proto) -> None:
    _add_constant(proto, "tall", np.ones((60_000, 1)))
    _add_constant(proto, "broad", np.ones((1, 60_000)))
    _insert(proto, helper.make_node("Add", ["tall", "broad"], ["twenty_gigabytes"]))


def _rows_meet(proto) -> None:
    _insert(
        proto,
        helper.make_node("Unsqueeze", ["failure_probability_30d", "zeroth"], ["row"]),
        index=60,
    )
    _add_constant(proto, "zeroth", np.array([0], np.int64))


def _much_work(proto) -> None:
    _add_constant(proto, "wide", np.ones((28, 1000), np.float32))
    _add_constant(proto, "deep", np.ones((1000, 30), np.float32))
    _insert(proto, helper.make_node("MatMul", ["features", "wide"], ["spread"]), index=1)
    for index in range(50):
        again = helper.make_node("MatMul", ["spread", "deep"], [f"again_{index}"])
        _insert(proto, again, index=2)


def _function(proto) -> None:
    proto.functions.append(
        helper.make_function(
            "own",
            "Twice",
            ["x"],
            ["y"],
            [helper.make_node("Add", ["x", "x"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
    )


def _sparse(proto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def _dims(*sizes):
    def change(proto) -> None:
        del tensor(proto, "low").dims[:]
        tensor(proto, "low").dims.extend(sizes)

    return change


def _float_data(proto) -> None:
    low = tensor(proto, "low")
    low.ClearField("raw_data")
    low.double_data.extend([0.0] * 28)


def _opset(number):
    return lambda proto: setattr(proto.opset_import[0], "version", number)


def _string_attribute(proto) -> None:
    node(proto, "scaled").attribute.append(helper.make_attribute("note", "hello"))


def _output_of_width(width):
    def change(proto) -> None:
        shape = proto.graph.output[1].type.tensor_type.shape
        shape.dim[1].dim_value = width

    return change


def _rename_input(proto) -> None:
    proto.graph.input[0].name = "readings"
    for taker in proto.graph.node:
        for place, name in enumerate(taker.input):
            if name == "features":
                taker.input[place] = "readings"


STRUCTURAL = {
    "another operator": lambda p: _replace(p, "hidden_0", "Sigmoid"),
    "an operator of random numbers": lambda p: _replace(p, "hidden_0", "RandomNormalLike"),
    "an operator of another domain": lambda p: setattr(node(p, "hidden_0"), "domain", "com.own"),
    "a subgraph": _subgraph,
    "an endless loop": _loop,
    "four terabytes of zeros": _constant_of_shape,
    "an outer product of gigabytes": _outer_product,
    "rows that meet": _rows_meet,
    "a function of its own": _function,
    "a sparse tensor": _sparse,
    "external data": _external,
    "a tensor of huge shape": _dims(2**40),
    "a tensor of negative shape": _dims(-1),
    "a tensor of many dimensions": _dims(1, 1, 1, 1, 1, 28),
    "a tensor of an empty shape": _dims(0),
    "a tensor whose bytes are missing": lambda p: tensor(p, "low").ClearField("raw_data"),
    "a tensor of text": lambda p: setattr(tensor(p, "low"), "data_type", TensorProto.STRING),
    "a tensor of halves": lambda p: setattr(tensor(p, "low"), "data_type", TensorProto.FLOAT16),
    "a tensor in typed fields": _float_data,
    "a tensor twice": lambda p: p.graph.initializer.append(tensor(p, "low")),
    "a tensor of another width": _dims(14, 2),
    "an old opset": _opset(7),
    "a new opset": _opset(99),
    "a second set of operators": lambda p: p.opset_import.append(helper.make_opsetid("own", 1)),
    "no set of operators": lambda p: p.ClearField("opset_import"),
    "a new format": lambda p: setattr(p, "ir_version", 99),
    "training information": lambda p: p.training_info.add(),
    "metadata": lambda p: p.metadata_props.add(key="source", value="/home/me"),
    "a text attribute": _string_attribute,
    "an attribute twice": lambda p: node(p, "scaled").attribute.append(
        helper.make_attribute("axis", 1)
    ),
    "an attribute that transposes": lambda p: node(p, "linear_0").attribute.append(
        helper.make_attribute("transB", 1)
    ),
    "a cast to integers": lambda p: _replace(p, "flags", "Cast", to=TensorProto.INT64),
    "a value from nowhere": lambda p: _replace(p, "hidden_0", "Tanh", ["nowhere"]),
    "a node before what it takes": lambda p: _insert(p, p.graph.node.pop()),
    "a value made twice": lambda p: p.graph.node.append(node(p, "hidden_0")),
    "a node without result": lambda p: node(p, "hidden_0").ClearField("output"),
    "an optional input": lambda p: _replace(p, "clipped_share", "Clip", ["bin_share", "", "one"]),
    "bounds that are computed": lambda p: _replace(
        p, "clipped_share", "Clip", ["bin_share", "hazards_3d", "one"]
    ),
    "an axis that is computed": lambda p: _replace(
        p, "failure_probability_30d", "Squeeze", ["sign", "sign"]
    ),
    "another input": _rename_input,
    "two inputs": lambda p: p.graph.input.append(p.graph.input[0]),
    "a batch of fixed size": lambda p: setattr(
        p.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2**40
    ),
    "an output less": lambda p: p.graph.output.pop(),
    "an output of another width": _output_of_width(4),
    "an output of huge width": _output_of_width(2**40),
    "an output that nothing makes": lambda p: node(p, "days_to_failure").output.__setitem__(
        0, "days"
    ),
    "a long name": lambda p: setattr(node(p, "hidden_0"), "op_type", "T" * 100_000),
    "a name that is no ASCII": lambda p: setattr(node(p, "hidden_0"), "op_type", "Tänh"),
    "many nodes": lambda p: p.graph.node.extend(
        helper.make_node("Neg", ["one"], [f"spare_{i}"]) for i in range(300)
    ),
    "many tensors": lambda p: [_add_constant(p, f"spare_{i}", 1.0) for i in range(200)],
    "too much to do": _much_work,
}
"""Changes that the gate refuses, by what they put into the file."""
