"""A bounded reader of ONNX files: the standard library and numpy, no onnx package.

ONNX Runtime is no validator: it loads and runs files that are corrupted. This reader takes the
part of the format that our exporter writes, with a limit on every length, and refuses everything
else: subgraphs, functions, external data, unknown or repeated fields, groups. What passes means
the same to every reader of protobuf, so what is checked here is what a runtime will run.

Format: onnx.proto3 of IR version 9, Protocol Buffers wire format. Field numbers stand beside
their names below.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_MODEL_BYTES: Final = 1 << 20
MAX_NODES: Final = 256
MAX_TENSORS: Final = 128
MAX_EDGES: Final = 4
MAX_ATTRIBUTES: Final = 4
MAX_RANK: Final = 4
MAX_DIMENSION: Final = 1 << 16
MAX_ELEMENTS: Final = 1 << 18
MAX_NAME_BYTES: Final = 128
MAX_FIELDS: Final = 1 << 14

ELEMENT_TYPES: Final[Mapping[int, np.dtype[np.generic]]] = {
    1: np.dtype("<f4"),
    7: np.dtype("<i8"),
    9: np.dtype(np.bool_),
    11: np.dtype("<f8"),
}
"""TensorProto.DataType numbers that a graph of ours uses."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT_ATTRIBUTE, _INT_ATTRIBUTE = 1, 2

Shape = tuple[int | str, ...]
"""Sizes of the dimensions; a name stands for one that each run decides."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        operator: its type, of the standard domain.
        inputs: names of the values that it takes.
        outputs: names of the values that it makes.
        attributes: its integers and floats, by name.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output of the graph.

    Attributes:
        name: of the value.
        dtype: of its elements.
        shape: of the value.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape


@dataclass(frozen=True, slots=True)
class OnnxStructure:
    """What an ONNX file holds.

    Attributes:
        ir_version: of the file format.
        opset: version of the standard operators.
        nodes: in the order of the file.
        initializers: the constants, read-only, by name.
        inputs: of the graph.
        outputs: of the graph.
    """

    ir_version: int
    opset: int
    nodes: tuple[Node, ...]
    initializers: Mapping[str, NDArray[np.generic]]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]

    @property
    def operators(self) -> tuple[str, ...]:
        """Return the operators that the graph uses, sorted."""
        return tuple(sorted({node.operator for node in self.nodes}))


class StructureError(BundleError):
    """An ONNX file is not of the structure that this product writes; it was not run."""

    default_reason = "structure"

    def __init__(self, what: str, *, where: object = "model.onnx") -> None:
        """Say what is wrong with it."""
        super().__init__(where, what, "use a bundle that fedcell exported")


def read_onnx(content: bytes) -> OnnxStructure:
    """Read an ONNX file.

    Raises:
        StructureError: it is larger than a limit, cut off, or holds what no graph of ours holds.
    """
    if len(content) > MAX_MODEL_BYTES:
        raise StructureError(f"has {len(content)} bytes; {MAX_MODEL_BYTES} are allowed")
    model = _Message("the model", content, _MODEL)
    opsets = [_opset(part) for part in model.parts("opset_import")]
    if len(opsets) != 1:
        raise StructureError(f"imports {len(opsets)} sets of operators instead of one")
    graph = _Message("the graph", model.only("graph"), _GRAPH)
    nodes = _counted("nodes", graph.parts("node"), MAX_NODES)
    tensors = _counted("tensors", graph.parts("initializer"), MAX_TENSORS)
    initializers = dict(map(_tensor, tensors))
    if len(initializers) != len(tensors):
        raise StructureError("two tensors have one name")
    if sum(array.size for array in initializers.values()) > MAX_ELEMENTS:
        raise StructureError(f"its tensors hold more than {MAX_ELEMENTS} elements")
    return OnnxStructure(
        ir_version=model.number("ir_version"),
        opset=opsets[0],
        nodes=tuple(map(_node, nodes)),
        initializers=initializers,
        inputs=tuple(map(_value_info, _counted("inputs", graph.parts("input"), MAX_EDGES))),
        outputs=tuple(map(_value_info, _counted("outputs", graph.parts("output"), 2 * MAX_EDGES))),
    )


def _opset(content: bytes) -> int:
    opset = _Message("the operators", content, _OPSET)
    domain = opset.text("domain")
    if domain not in {"", "ai.onnx"}:
        raise StructureError(f"imports operators of {domain!r}")
    return opset.number("version")


def _node(content: bytes) -> Node:
    node = _Message("a node", content, _NODE)
    operator = node.text("op_type")
    if node.text("domain") not in {"", "ai.onnx"}:
        raise StructureError(f"uses the operator {operator!r} of {node.text('domain')!r}")
    attributes = _counted("attributes", node.parts("attribute"), MAX_ATTRIBUTES)
    values = dict(map(_attribute, attributes))
    if len(values) != len(attributes):
        raise StructureError(f"{operator} has an attribute twice")
    edges = [
        tuple(_name(part) for part in _counted(which, node.parts(which), MAX_EDGES))
        for which in ("input", "output")
    ]
    return Node(operator, edges[0], edges[1], values)


def _attribute(content: bytes) -> tuple[str, int | float]:
    attribute = _Message("an attribute", content, _ATTRIBUTE)
    name, kind = attribute.text("name"), attribute.number("type")
    if kind == _INT_ATTRIBUTE and not attribute.has("f"):
        return name, _signed(attribute.number("i"))
    if kind == _FLOAT_ATTRIBUTE and not attribute.has("i"):
        return name, float(struct.unpack("<f", attribute.only("f"))[0])
    raise StructureError(f"the attribute {name!r} is no integer or float")


def _tensor(content: bytes) -> tuple[str, NDArray[np.generic]]:
    tensor = _Message("a tensor", content, _TENSOR)
    name = tensor.text("name")
    dtype = ELEMENT_TYPES.get(tensor.number("data_type"))
    if dtype is None:
        raise StructureError(f"{name!r} has elements of type {tensor.number('data_type')}")
    if tensor.has("data_location") and tensor.number("data_location") != 0:
        raise StructureError(f"{name!r} keeps its data outside the file")
    shape = _dimensions(name, tensor)
    count = 1
    for size in shape:
        count *= size
    raw = tensor.only("raw_data")
    if count > MAX_ELEMENTS or len(raw) != count * dtype.itemsize:
        what = f"{name!r} of shape {list(shape)} holds {len(raw)} bytes"
        raise StructureError(what)
    if dtype == np.bool_ and not set(raw) <= {0, 1}:
        raise StructureError(f"{name!r} holds truth values that are none")
    return name, np.frombuffer(raw, dtype).reshape(shape)


def _dimensions(name: str, tensor: _Message) -> tuple[int, ...]:
    sizes = list(tensor.numbers("dims"))
    if len(sizes) > MAX_RANK or not all(0 < size <= MAX_DIMENSION for size in sizes):
        raise StructureError(f"{name!r} has the shape {sizes[:9]}")
    return tuple(sizes)


def _value_info(content: bytes) -> ValueInfo:
    value = _Message("a value", content, _VALUE_INFO)
    name = value.text("name")
    kind = _Message("a type", value.only("type"), _TYPE)
    tensor = _Message("a type", kind.only("tensor_type"), _TENSOR_TYPE)
    dtype = ELEMENT_TYPES.get(tensor.number("elem_type"))
    if dtype is None:
        raise StructureError(f"{name!r} has elements of type {tensor.number('elem_type')}")
    shape = _Message("a shape", tensor.only("shape"), _SHAPE)
    dimensions = _counted("dimensions", shape.parts("dim"), MAX_RANK)
    return ValueInfo(name, dtype, tuple(_dimension(name, part) for part in dimensions))


def _dimension(name: str, content: bytes) -> int | str:
    dimension = _Message("a dimension", content, _DIMENSION)
    if dimension.has("dim_param") == dimension.has("dim_value"):
        raise StructureError(f"a dimension of {name!r} has no size")
    if dimension.has("dim_param"):
        return dimension.text("dim_param")
    size = dimension.number("dim_value")
    if not 0 < size <= MAX_DIMENSION:
        raise StructureError(f"a dimension of {name!r} is {size}")
    return size


def _counted(what: str, parts: list[bytes], limit: int) -> list[bytes]:
    if len(parts) > limit:
        raise StructureError(f"has {len(parts)} {what}; {limit} are allowed")
    return parts


def _name(content: bytes) -> str:
    if len(content) > MAX_NAME_BYTES:
        raise StructureError(f"holds a name of {len(content)} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise StructureError("holds a name that is no ASCII text") from None


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    wire_type: int
    is_repeated: bool = False


_MODEL: Final = {
    1: _Field("ir_version", _VARINT),
    2: _Field("producer_name", _BYTES),
    3: _Field("producer_version", _BYTES),
    7: _Field("graph", _BYTES),
    8: _Field("opset_import", _BYTES, is_repeated=True),
}
_OPSET: Final = {1: _Field("domain", _BYTES), 2: _Field("version", _VARINT)}
_GRAPH: Final = {
    1: _Field("node", _BYTES, is_repeated=True),
    2: _Field("name", _BYTES),
    5: _Field("initializer", _BYTES, is_repeated=True),
    11: _Field("input", _BYTES, is_repeated=True),
    12: _Field("output", _BYTES, is_repeated=True),
}
_NODE: Final = {
    1: _Field("input", _BYTES, is_repeated=True),
    2: _Field("output", _BYTES, is_repeated=True),
    3: _Field("name", _BYTES),
    4: _Field("op_type", _BYTES),
    5: _Field("attribute", _BYTES, is_repeated=True),
    7: _Field("domain", _BYTES),
}
_ATTRIBUTE: Final = {
    1: _Field("name", _BYTES),
    2: _Field("f", _FIXED32),
    3: _Field("i", _VARINT),
    20: _Field("type", _VARINT),
}
_TENSOR: Final = {
    1: _Field("dims", _VARINT, is_repeated=True),
    2: _Field("data_type", _VARINT),
    8: _Field("name", _BYTES),
    9: _Field("raw_data", _BYTES),
    14: _Field("data_location", _VARINT),
}
_VALUE_INFO: Final = {1: _Field("name", _BYTES), 2: _Field("type", _BYTES)}
_TYPE: Final = {1: _Field("tensor_type", _BYTES)}
_TENSOR_TYPE: Final = {1: _Field("elem_type", _VARINT), 2: _Field("shape", _BYTES)}
_SHAPE: Final = {1: _Field("dim", _BYTES, is_repeated=True)}
_DIMENSION: Final = {1: _Field("dim_value", _VARINT), 2: _Field("dim_param", _BYTES)}
_FORBIDDEN: Final = {
    ("the model", 20): "training information",
    ("the model", 25): "functions of its own",
    ("the graph", 15): "sparse tensors",
    ("an attribute", 5): "a tensor as an attribute",
    ("an attribute", 6): "a subgraph",
    ("an attribute", 11): "subgraphs",
    ("a tensor", 13): "external data",
}


class _Message:
    """The fields of one protobuf message, by name.

    Args:
        what: the message, for errors.
        content: its bytes.
        known: its fields by number; any other is refused.
    """

    def __init__(self, what: str, content: bytes, known: Mapping[int, _Field]) -> None:
        self._what = what
        self._raw: dict[str, list[bytes]] = {}
        self._numbers: dict[str, list[int]] = {}
        place = num_fields = 0
        while place < len(content):
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise StructureError(f"{what} has more than {MAX_FIELDS} fields")
            tag, place = _varint(content, place)
            field = known.get(tag >> 3)
            if field is None:
                held = _FORBIDDEN.get((what, tag >> 3), f"the unknown field {tag >> 3}")
                raise StructureError(f"{what} holds {held}")
            place = self._read(field, tag & 7, content, place)

    def _read(self, field: _Field, wire_type: int, content: bytes, place: int) -> int:
        is_packed = field.is_repeated and field.wire_type == _VARINT and wire_type == _BYTES
        if wire_type != field.wire_type and not is_packed:
            raise StructureError(f"{self._what} holds {field.name} in another form")
        if not field.is_repeated and (field.name in self._raw or field.name in self._numbers):
            raise StructureError(f"{self._what} holds {field.name} twice")
        if wire_type == _VARINT:
            number, place = _varint(content, place)
            self._numbers.setdefault(field.name, []).append(number)
            return place
        if wire_type == _BYTES:
            length, place = _varint(content, place)
        else:
            length = 4
        if length > len(content) - place:
            raise StructureError(f"{self._what} is cut off in {field.name}")
        part = content[place : place + length]
        if is_packed:
            self._numbers.setdefault(field.name, []).extend(_packed(part))
        else:
            self._raw.setdefault(field.name, []).append(part)
        return place + length

    def has(self, name: str) -> bool:
        return name in self._raw or name in self._numbers

    def parts(self, name: str) -> list[bytes]:
        return self._raw.get(name, [])

    def only(self, name: str) -> bytes:
        if name not in self._raw:
            raise StructureError(f"{self._what} lacks {name}")
        return self._raw[name][0]

    def text(self, name: str) -> str:
        return _name(self._raw[name][0]) if name in self._raw else ""

    def numbers(self, name: str) -> list[int]:
        return self._numbers.get(name, [])

    def number(self, name: str) -> int:
        return self._numbers[name][0] if name in self._numbers else 0


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Read a number in its one shortest form; others are read differently by different readers."""
    number = 0
    for index in range(10):
        if place + index >= len(content):
            raise StructureError("is cut off within a number")
        byte = content[place + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if (byte == 0 and index > 0) or number >> 64:
                break
            return number, place + index + 1
    raise StructureError("holds a number in a form that no writer uses")


def _packed(content: bytes) -> list[int]:
    numbers: list[int] = []
    place = 0
    while place < len(content) and len(numbers) <= MAX_RANK:
        number, place = _varint(content, place)
        numbers.append(number)
    return numbers
