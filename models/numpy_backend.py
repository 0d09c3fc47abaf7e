"""Running a bundle's graph in NumPy, for machines that have no ONNX Runtime.

The file is read by the reader that serves the operator gate, and what the gate would refuse is
refused here too. Types are the graph's own: float64 where it casts to float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from .onnx_gate import CAST_TARGETS, INPUT, axis_of, check_model
from .onnx_gate import Value as KnownValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .onnx_structure import Node, OnnxStructure, ValueInfo

    Array = NDArray[np.generic]
    Operation = Callable[..., Array]


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation of a plan: where its arguments and its result live, what ends with it."""

    operation: Operation
    arguments: tuple[int, ...]
    result: int
    ended: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The operations that given outputs need, in order.

    Attributes:
        values: constants at their places, None where a run puts its own.
        steps: the operations.
        results: places of the outputs.
    """

    values: tuple[Array | None, ...]
    steps: tuple[_Step, ...]
    results: tuple[int, ...]


class NumpySession:
    """Runs one graph; called as a session of ONNX Runtime is.

    Args:
        model_bytes: an ONNX file.

    Raises:
        StructureError: the graph is none that this product writes.
    """

    def __init__(self, model_bytes: bytes) -> None:
        self._structure = check_model(model_bytes)
        self._constants = _folded(self._structure)
        self._names = tuple(output.name for output in self._structure.outputs)
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._plan(self._names)

    def get_inputs(self) -> list[ValueInfo]:
        """Return the graph's inputs."""
        return list(self._structure.inputs)

    def get_outputs(self) -> list[ValueInfo]:
        """Return the graph's outputs; each has a `name`."""
        return list(self._structure.outputs)

    def run(
        self, output_names: Sequence[str] | None, feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run the graph, no further than the outputs need.

        Args:
            output_names: outputs wanted; None = all.
            feed: `features`, float32 of shape (n, n_features).

        Returns:
            The outputs, float32, in the order asked for.

        Raises:
            ValueError: an output is unknown, or the features have another type or shape.
        """
        features = feed.get(INPUT)
        width = self._structure.inputs[0].shape[1]
        if features is None or features.dtype != np.float32 or features.shape[1:] != (width,):
            raise ValueError(f"{INPUT} must be float32 of shape (n, {width})")
        plan = self._plan(self._names if output_names is None else tuple(output_names))
        values = list(plan.values)
        values[0] = features
        # Infinities of hostile inputs pass as they do in ONNX Runtime: without a warning.
        with np.errstate(all="ignore"):
            for step in plan.steps:
                values[step.result] = step.operation(*[values[place] for place in step.arguments])
                for place in step.ended:
                    values[place] = None
        return [values[place] for place in plan.results]  # type: ignore[misc]

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        found = self._plans.get(names)
        if found is None:
            if not set(names) <= set(self._names):
                raise ValueError(f"outputs are {self._names}, got {names}")
            found = self._plans[names] = _planned(self._structure, self._constants, names)
        return found


def _folded(structure: OnnxStructure) -> dict[str, Array]:
    """Return every value that is the same in all runs."""
    constants: dict[str, Array] = dict(structure.initializers)
    for node in structure.nodes:
        if set(node.inputs) <= set(constants):
            operation, arguments = _resolved(node, constants)
            with np.errstate(all="ignore"):
                made = operation(*[constants[name] for name in arguments])
            constants[node.outputs[0]] = made
    return constants


def _planned(
    structure: OnnxStructure, constants: Mapping[str, Array], names: tuple[str, ...]
) -> _Plan:
    needed, nodes = set(names), []
    for node in reversed(structure.nodes):
        if node.outputs[0] in needed and node.outputs[0] not in constants:
            nodes.append(node)
            needed |= set(node.inputs)
    nodes.reverse()
    places: dict[str, int] = {INPUT: 0}
    values: list[Array | None] = [None]
    for name in [*(name for name in constants if name in needed), *(n.outputs[0] for n in nodes)]:
        places[name] = len(values)
        values.append(constants.get(name))
    last_use = {name: index for index, node in enumerate(nodes) for name in node.inputs}
    steps = []
    for index, node in enumerate(nodes):
        operation, arguments = _resolved(node, constants)
        ended = tuple(
            places[name]
            for name in dict.fromkeys(arguments)
            if last_use[name] == index and name not in constants and name not in names
        )
        steps.append(
            _Step(
                operation,
                tuple(places[name] for name in arguments),
                places[node.outputs[0]],
                ended,
            )
        )
    return _Plan(tuple(values), tuple(steps), tuple(places[name] for name in names))


def _resolved(node: Node, constants: Mapping[str, Array]) -> tuple[Operation, tuple[str, ...]]:
    """Return what a node does, and the inputs that it needs for it at each run."""
    if node.operator == "Cast":
        return partial(_cast, CAST_TARGETS[int(node.attributes["to"])]), node.inputs
    if node.operator in {"Squeeze", "Unsqueeze"}:
        array = constants[node.inputs[1]]
        axis = axis_of(KnownValue(array.dtype, array.shape, array))
        added = 0 if node.operator == "Squeeze" else None
        index = (*(slice(None),) * axis, added)
        return partial(_at, index), node.inputs[:1]
    return OPERATIONS[node.operator], node.inputs


def _cast(dtype: np.dtype[np.generic], values: Array) -> Array:
    return values.astype(dtype)


def _at(index: tuple[slice | int | None, ...], values: Array) -> Array:
    found: Array = values[index]
    return found


def _clip(values: Array, low: Array, high: Array) -> Array:
    clipped: Array = np.minimum(np.maximum(values, low), high)
    return clipped


def _concat(left: Array, right: Array) -> Array:
    return np.concatenate((left, right), axis=1)


def _gemm(values: Array, weights: Array, bias: Array) -> Array:
    made: Array = np.matmul(values, weights)
    np.add(made, bias, out=made)
    return made


def _softmax(values: Array) -> Array:
    powers = np.exp(np.subtract(values, values.max(axis=1, keepdims=True)))
    shares: Array = np.divide(powers, powers.sum(axis=1, keepdims=True))
    return shares


def _softplus(values: Array) -> Array:
    rest = np.log1p(np.exp(np.negative(np.abs(values))))
    made: Array = np.add(np.maximum(values, 0), rest)
    return made


OPERATIONS: Final[Mapping[str, Operation]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Clip": _clip,
    "Concat": _concat,
    "Div": np.divide,
    "Exp": np.exp,
    "Gemm": _gemm,
    "IsNaN": np.isnan,
    "Log": np.log,
    "MatMul": np.matmul,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sign": np.sign,
    "Softmax": _softmax,
    "Softplus": _softplus,
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "Where": np.where,
}
"""What each operator does; `Cast`, `Squeeze` and `Unsqueeze` are resolved node by node."""
