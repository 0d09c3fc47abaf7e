"""Which graphs a device runs: known operators, bounded work, one row's answer from one row.

Every value's type and shape is worked out from the file before anything is run, so a graph whose
shapes do not fit, or whose arrays would grow beyond a bound, never reaches a runtime. Each row of
a batch is the first dimension of every value that depends on it and meets no other row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .bundle import OUTPUTS
from .feature_spec import NUM_FEATURES
from .onnx_structure import MAX_RANK, StructureError, read_onnx
from .prediction import ACTION_EDGES_DAYS
from .telemetry import CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .onnx_structure import Node, OnnxStructure, Shape, ValueInfo

OPSETS: Final = range(17, 18)
IR_VERSIONS: Final = range(8, 10)
MAX_ROW_ELEMENTS: Final = 1 << 14
MAX_ROW_WORK: Final = 1 << 20
FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float64))
BOOL: Final = np.dtype(np.bool_)
INT64: Final = np.dtype(np.int64)
CAST_TARGETS: Final[Mapping[int, np.dtype[np.generic]]] = {
    1: np.dtype(np.float32),
    11: np.dtype(np.float64),
}
INPUT: Final = "features"
OUTPUT_WIDTHS: Final[Mapping[str, int | None]] = {
    "failure_probability_30d": None,
    "days_to_failure": 3,
    "action_probabilities": len(ACTION_EDGES_DAYS) + 1,
    "cause_probabilities": len(CAUSES),
}
"""Columns of each output; None for one number a row."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a value before the graph is run.

    Attributes:
        dtype: of its elements.
        shape: of the value; a name stands for the number of rows.
        array: the value itself where it is a constant of the file.
    """

    dtype: np.dtype[np.generic]
    shape: Shape
    array: NDArray[np.generic] | None = None


def check_model(content: bytes) -> OnnxStructure:
    """Read an ONNX file and refuse what a device does not run; nothing is run.

    Raises:
        StructureError: the file is refused; the message says which rule it broke.
    """
    structure = read_onnx(content)
    check_structure(structure)
    return structure


def check_structure(structure: OnnxStructure) -> None:
    """Refuse a graph that is not of our operators, signature and size.

    Raises:
        StructureError: which rule it broke.
    """
    if structure.opset not in OPSETS or structure.ir_version not in IR_VERSIONS:
        what = f"is of opset {structure.opset} and IR version {structure.ir_version}"
        raise StructureError(what)
    batch = _check_signature(structure)
    values = {name: Value(a.dtype, a.shape, a) for name, a in structure.initializers.items()}
    if INPUT in values:
        raise StructureError(f"a tensor is called {INPUT!r}, as the input")
    values[INPUT] = Value(FLOATS[0], (batch, NUM_FEATURES))
    work = 0
    for node in structure.nodes:
        name = node.outputs[0] if len(node.outputs) == 1 else ""
        if not name or name in values:
            what = f"{node.operator} makes {list(node.outputs)}, which is no new value"
            raise StructureError(what)
        made, cost = _infer(node, values)
        values[name] = made
        work += cost
        if work > MAX_ROW_WORK:
            raise StructureError(f"needs more than {MAX_ROW_WORK} steps a row")
    for promised in structure.outputs:
        found = values.get(promised.name)
        if found is None or (found.dtype, found.shape) != (promised.dtype, promised.shape):
            raise StructureError(f"does not make the output {promised.name!r} that it names")


def _check_signature(structure: OnnxStructure) -> str:
    if len(structure.inputs) != 1:
        raise StructureError(f"has {len(structure.inputs)} inputs instead of one")
    features = structure.inputs[0]
    batch = features.shape[0] if features.shape else 0
    is_ours = (features.name, features.dtype, features.shape[1:]) == (
        INPUT,
        FLOATS[0],
        (NUM_FEATURES,),
    )
    if not is_ours or not isinstance(batch, str) or not batch:
        raise StructureError(f"its input {_say(features)} is not {INPUT} float32 (n, features)")
    if tuple(sorted(output.name for output in structure.outputs)) != tuple(sorted(OUTPUTS)):
        raise StructureError(f"its outputs are {[output.name for output in structure.outputs]}")
    for output in structure.outputs:
        width = OUTPUT_WIDTHS[output.name]
        wanted: Shape = (batch,) if width is None else (batch, width)
        if (output.dtype, output.shape) != (FLOATS[0], wanted):
            raise StructureError(f"its output {_say(output)} is not float32 {wanted}")
    return batch


def _say(value: ValueInfo) -> str:
    return f"{value.name!r} {value.dtype} {value.shape}"


def _infer(node: Node, values: Mapping[str, Value]) -> tuple[Value, int]:
    rule = RULES.get(node.operator)
    if rule is None:
        raise StructureError(f"uses the operator {node.operator!r}")
    if not set(node.attributes) <= rule.attributes or len(node.inputs) != rule.num_inputs:
        what = (
            f"{node.operator} takes {len(node.inputs)} inputs and {sorted(node.attributes)} "
            f"instead of {rule.num_inputs} and {sorted(rule.attributes)}"
        )
        raise StructureError(what)
    try:
        inputs = [values[name] for name in node.inputs]
    except KeyError as error:
        raise StructureError(f"{node.operator} takes {error}, which no node before made") from error
    made, depth = rule.infer(node, inputs)
    elements = 1
    for place, size in enumerate(made.shape):
        if isinstance(size, int):
            elements *= size
        elif place > 0:
            raise StructureError(f"{node.operator} lets rows meet")
    if len(made.shape) > MAX_RANK or elements > MAX_ROW_ELEMENTS:
        raise StructureError(f"{node.operator} makes a value of shape {made.shape}")
    return made, elements * depth


def _broadcast(operator: str, shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result: list[int | str] = []
    for sizes in zip(*padded, strict=True):
        distinct = set(sizes) - {1}
        if len(distinct) > 1:
            raise StructureError(f"{operator} takes shapes {list(shapes)} that do not fit")
        result.append(distinct.pop() if distinct else 1)
    return tuple(result)


def _same_float(operator: str, inputs: Sequence[Value]) -> np.dtype[np.generic]:
    dtypes = {value.dtype for value in inputs}
    if len(dtypes) != 1 or not dtypes <= set(FLOATS):
        raise StructureError(f"{operator} takes {sorted(map(str, dtypes))}")
    return dtypes.pop()


def _elementwise(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    dtype = _same_float(node.operator, inputs)
    return Value(dtype, _broadcast(node.operator, [value.shape for value in inputs])), 1


def _clip(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    if any(bound.array is None or bound.array.size != 1 for bound in inputs[1:]):
        raise StructureError(f"{node.operator} takes bounds that are no single constants")
    return Value(_same_float(node.operator, inputs), inputs[0].shape), 1


def _is_nan(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    _same_float(node.operator, inputs)
    return Value(BOOL, inputs[0].shape), 1


def _where(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    if inputs[0].dtype != BOOL:
        raise StructureError(f"Where takes a condition of {inputs[0].dtype}")
    shape = _broadcast(node.operator, [value.shape for value in inputs])
    return Value(_same_float(node.operator, inputs[1:]), shape), 1


def _cast(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    target = CAST_TARGETS.get(int(node.attributes.get("to", 0)))
    if target is None or inputs[0].dtype == INT64:
        raise StructureError(f"Cast makes type {node.attributes.get('to')} of {inputs[0].dtype}")
    return Value(target, inputs[0].shape), 1


def _mat_mul(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    left, right = inputs[0].shape, inputs[1].shape
    depth = left[-1] if left else 0
    if len(left) < 2 or len(right) != 2 or depth != right[0] or not isinstance(depth, int):
        raise StructureError(f"{node.operator} takes shapes {left} and {right}")
    return Value(_same_float(node.operator, inputs), (*left[:-1], right[1])), depth


def _gemm(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    product, depth = _mat_mul(node, inputs[:2])
    row = product.shape[1:]
    if len(product.shape) != 2 or inputs[2].shape not in {row, (1, *row)}:
        raise StructureError(f"Gemm adds {inputs[2].shape} to {product.shape}")
    return Value(_same_float("Gemm", inputs), product.shape), depth


def _concat(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    left, right = inputs[0].shape, inputs[1].shape
    fits = len(left) == len(right) == 2 and left[0] == right[0] and node.attributes["axis"] == 1
    if not fits or not isinstance(left[1], int) or not isinstance(right[1], int):
        raise StructureError(f"Concat takes shapes {left} and {right}")
    return Value(_same_float("Concat", inputs), (left[0], left[1] + right[1])), 1


def _softmax(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    if len(inputs[0].shape) != 2 or node.attributes["axis"] != 1:
        raise StructureError(f"Softmax takes the shape {inputs[0].shape}")
    return Value(_same_float("Softmax", inputs), inputs[0].shape), 1


def axis_of(axes: Value) -> int:
    """Return the one axis that a Squeeze or Unsqueeze names; never the first, the rows.

    Raises:
        StructureError: it is no constant, or names something else.
    """
    if axes.array is None or axes.dtype != INT64 or axes.array.shape != (1,):
        raise StructureError("an axis is no constant")
    axis = int(axes.array[0])
    if not 0 < axis < MAX_RANK:
        raise StructureError(f"an axis is {axis}")
    return axis


def _squeeze(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    shape, axis = inputs[0].shape, axis_of(inputs[1])
    if axis >= len(shape) or shape[axis] != 1:
        raise StructureError(f"{node.operator} takes axis {axis} out of {shape}")
    return Value(inputs[0].dtype, (*shape[:axis], *shape[axis + 1 :])), 1


def _unsqueeze(node: Node, inputs: Sequence[Value]) -> tuple[Value, int]:
    shape, axis = inputs[0].shape, axis_of(inputs[1])
    if axis > len(shape):
        raise StructureError(f"{node.operator} puts axis {axis} into {shape}")
    return Value(inputs[0].dtype, (*shape[:axis], 1, *shape[axis:])), 1


@dataclass(frozen=True, slots=True)
class _Rule:
    num_inputs: int
    infer: Callable[[Node, Sequence[Value]], tuple[Value, int]]
    attributes: frozenset[str] = frozenset()


_FUNCTIONS = ("Abs", "Exp", "Log", "Neg", "Sign", "Softplus", "Tanh")
_AXIS = frozenset({"axis"})
RULES: Final[Mapping[str, _Rule]] = {
    **{name: _Rule(1, _elementwise) for name in _FUNCTIONS},
    **{name: _Rule(2, _elementwise) for name in ("Add", "Div", "Max", "Min", "Mul", "Sub")},
    "Cast": _Rule(1, _cast, frozenset({"to"})),
    "Clip": _Rule(3, _clip),
    "Concat": _Rule(2, _concat, _AXIS),
    "Gemm": _Rule(3, _gemm),
    "IsNaN": _Rule(1, _is_nan),
    "MatMul": _Rule(2, _mat_mul),
    "Softmax": _Rule(1, _softmax, _AXIS),
    "Squeeze": _Rule(2, _squeeze),
    "Unsqueeze": _Rule(2, _unsqueeze),
    "Where": _Rule(3, _where),
}
"""What each operator that an exporter of ours ever wrote takes and makes; there are no others."""
