"""A reply of any bytes: rounds and counts read it by one reader, and nothing that it raises."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from models.wire.counts import COUNTED_RECORD, COUNTS_RECORD, Counted
from models.wire.rounds import CONTRIBUTION_RECORD, FLAT_ARRAY, SUM_RECORD, Contribution
from server.counts.count_queries import read_counted
from server.engine.flower_messages import read_contribution
from tests.support.federated_rounds import SENT, honest, rounds_over, task_of
from tests.support.flower_grid import GridInMemory

VALUES = np.array([4, -5, 6], np.int64)


def saved(save, *arguments, **named):
    file = io.BytesIO()
    save(file, *arguments, **named)
    return file.getvalue()


def npy(header, body=b"", version=b"\x01\x00"):
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + header + body


def header(descr="<i8", shape="(3,)"):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


HOSTILE = {
    "nothing": b"",
    "magic alone": b"\x93NUMPY",
    "broken archive": b"PK\x03\x04junk",
    "archive": saved(np.savez, x=np.zeros(3)),
    "pickle": saved(np.save, np.array([None, {}], object), allow_pickle=True),
    "bare pickle": b"\x80\x04K\x01.",
    "huge": npy(header(shape="(9999999999999,)")),
    "overflowing": npy(header(shape="(2305843009213693952, 8)")),
    "negative": npy(header(shape="(-3,)"), bytes(24)),
    "short": npy(header(), bytes(23)),
    "long": npy(header(), bytes(25)),
    "strings": npy(header("<U2"), bytes(24)),
    "objects": npy(header("|O"), bytes(24)),
    "nested": npy(b"(" * 4000 + b"\n"),
    "torn token": npy(b"{'a\n"),
    "long header": npy(header() + b" " * 9000, bytes(24)),
    "list of types": npy(b"{'descr': [[]], 'fortran_order': False, 'shape': (3,)}\n", bytes(24)),
    "another version": npy(header(), bytes(24), b"\x09\x00"),
    "no dictionary": npy(b"7\n", bytes(24)),
    "true shape": npy(header(shape="(True, None)"), bytes(8)),
}


def message_of(content):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Message(content, dst_node_id=1, message_type="train")


def both(data, *, stype="numpy.ndarray", shape=(3,)):
    """Read the same bytes as a round's reply and as a count's."""
    array = ArrayRecord({FLAT_ARRAY: Array(dtype="int64", shape=shape, stype=stype, data=data)})
    of_round = Contribution(stream="s", index=0, num_devices=1).to_plain()
    of_count = Counted(channel="drift", index=0, num_devices=1).to_plain()
    content = RecordDict({SUM_RECORD: array, CONTRIBUTION_RECORD: ConfigRecord({**of_round})})
    other = RecordDict({COUNTS_RECORD: array, COUNTED_RECORD: ConfigRecord({**of_count})})
    return (
        read_contribution(message_of(content), num_weights=3),
        read_counted(message_of(other), size=3),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_are_no_array_of_numbers_are_no_reply(name):
    assert both(HOSTILE[name]) == (None, None)


def test_array_of_another_kind_or_of_far_too_many_bytes_is_no_reply():
    assert both(saved(np.save, VALUES), stype="torch.Tensor") == (None, None)
    assert both(saved(np.save, np.zeros(5000))) == (None, None)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda text: npy(text, bytes(24))),
        st.tuples(st.integers(0, 151), st.integers(0, 255)).map(
            lambda change: (
                saved(np.save, VALUES)[: change[0]]
                + bytes([change[1]])
                + saved(np.save, VALUES)[change[0] + 1 :]
            )
        ),
    )
)
def test_whatever_bytes_come_nothing_is_raised_and_numbers_come_out(data):
    for read in both(data):
        assert read is None or (isinstance(read[0], np.ndarray) and read[0].dtype.kind in "biufc")


@pytest.mark.parametrize(
    "values",
    [VALUES, VALUES.astype("<f4"), VALUES.astype(">i4"), VALUES[:0], np.ones((3, 1)), VALUES[0]],
)
def test_numbers_are_read_as_numpy_reads_them(values):
    for total, _ in both(saved(np.save, np.asarray(values))):
        assert (total.dtype, total.shape) == (values.dtype, values.shape)
        assert np.array_equal(total, values)


def test_error_and_missing_records_are_no_reply():
    empty = message_of(RecordDict())
    error = Message(Error(code=2, reason="x"), reply_to=empty)
    for reply in (empty, error):
        assert read_contribution(reply, num_weights=3) is None
        assert read_counted(reply, size=3) is None


@pytest.mark.parametrize("name", ["broken archive", "archive", "nested", "huge"])
def test_round_with_a_hostile_reply_ends_as_any_other(tmp_path, name):
    def hostile(message):
        facts = Contribution(stream="test", index=task_of(message).index, num_devices=2)
        array = Array(dtype="int64", shape=(3,), stype="numpy.ndarray", data=HOSTILE[name])
        content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: array})})
        content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
        return [content]

    records = []
    rounds = rounds_over([1, 2], tmp_path, on_round=records.append)
    assert rounds.run(GridInMemory({1: honest, 2: hostile}))
    assert [record.refused for record in records] == [{"malformed": 1}] * 2
    assert (rounds.weights() != 0).tolist() == [bool(value) for value in SENT]
