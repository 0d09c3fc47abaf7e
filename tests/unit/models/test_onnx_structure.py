"""The bounded reader of ONNX files, against onnx itself, and the gate that follows it."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.bundle import load_bundle
from models.onnx_gate import RULES, check_model
from models.onnx_structure import MAX_MODEL_BYTES, StructureError, read_onnx
from tests.support.line_bundle import line_bundle
from tests.support.onnx_surgery import STRUCTURAL, changed, golden_model, model, node


@pytest.mark.parametrize("content", [golden_model(), load_bundle().model_bytes])
def test_the_reader_says_what_onnx_says(content):
    proto, found = onnx.load_model_from_string(content), read_onnx(content)

    assert (found.ir_version, found.opset) == (proto.ir_version, proto.opset_import[0].version)
    assert [(n.operator, n.inputs, n.outputs) for n in found.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in proto.graph.node
    ]
    assert [dict(n.attributes) for n in found.nodes] == [
        {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute} for n in proto.graph.node
    ]
    assert list(found.initializers) == [t.name for t in proto.graph.initializer]
    for tensor in proto.graph.initializer:
        expected, array = numpy_helper.to_array(tensor), found.initializers[tensor.name]
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)
    assert [(v.name, v.shape) for v in found.inputs] == [("features", ("n", 28))]
    assert [v.name for v in found.outputs] == [v.name for v in proto.graph.output]


def test_constants_cannot_be_written_to():
    array = read_onnx(golden_model()).initializers["low"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_what_our_exporters_wrote_passes_and_uses_every_operator_that_is_allowed():
    """The first version's graphs and today's are not of the same operators."""
    first, today = (check_model(c).operators for c in (golden_model(), load_bundle().model_bytes))
    assert set(first) | set(today) == set(RULES)
    assert set(check_model(line_bundle().model_bytes).operators) < set(RULES)


@pytest.mark.parametrize("change", STRUCTURAL.values(), ids=STRUCTURAL)
def test_what_no_graph_of_ours_holds_is_refused(change):
    with pytest.raises(StructureError) as refusal:
        check_model(changed(change))
    assert refusal.value.reason == "structure"
    assert len(str(refusal.value)) < 400


def test_names_and_texts_that_change_nothing_pass():
    def rename(proto):
        proto.producer_name = "someone else"
        node(proto, "hidden_0").name = "activation"

    assert check_model(changed(rename)).operators == check_model(golden_model()).operators


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "imports 0 sets"),
        (b"\x08", "cut off within a number"),
        (b"\x08\x80", "cut off within a number"),
        (b"\x08\x80\x00", "in a form that no writer uses"),
        (b"\x08" + b"\xff" * 10, "in a form that no writer uses"),
        (b"\x3a\x05ab", "cut off in graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7fab", "cut off in graph"),
        (b"\x0b\x0c", "ir_version in another form"),
        (b"\x08\x09\x08\x09", "ir_version twice"),
        (b"\x3a\x00\x3a\x00", "graph twice"),
        (b"\xfa\x07\x00", "unknown field 127"),
        (b"\x39" + bytes(8), "graph in another form"),
        (b"\x08\x09" * 1, "imports 0 sets"),
        (b"\x42\x00" * 20_000, "more than 16384 fields"),
        (bytes(MAX_MODEL_BYTES + 1), "are allowed"),
    ],
)
def test_bytes_that_other_readers_may_read_otherwise_are_refused(content, says):
    with pytest.raises(StructureError, match=says):
        read_onnx(content)


def test_every_cut_is_refused():
    content = line_bundle().model_bytes
    for length in range(len(content)):
        with pytest.raises(StructureError):
            check_model(content[:length])


@pytest.mark.slow
def test_every_changed_byte_is_refused_or_read_as_onnx_reads_it():
    content = line_bundle().model_bytes
    rng = np.random.default_rng(5)
    num_refused = 0
    places = rng.integers(0, len(content), 400)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            found = check_model(bytes(damaged))
        except StructureError:
            num_refused += 1
            continue
        proto = onnx.load_model_from_string(bytes(damaged))
        assert [n.operator for n in found.nodes] == [n.op_type for n in proto.graph.node]
        for tensor in proto.graph.initializer:
            expected = numpy_helper.to_array(tensor)
            assert found.initializers[tensor.name].tobytes() == expected.tobytes()
    assert 100 < num_refused < 400


def test_a_model_with_a_packed_shape_is_read_the_same():
    """Protobuf readers take repeated numbers packed or one by one."""
    content = model().SerializeToString(deterministic=True)
    loose, packed = b"\x08\x38\x08\x18", b"\x0a\x02\x38\x18"
    assert content.count(loose) == 1
    assert read_onnx(content.replace(loose, packed)).initializers["trunk.0.weight"].shape == (
        56,
        24,
    )
