import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.request_server import LineBuffer

LIMIT = 8


def fed(chunks):
    buffer = LineBuffer(LIMIT)
    lines = [line for chunk in chunks for line in buffer.feed(chunk)]
    assert len(buffer) <= LIMIT
    return lines, buffer.rest()


def test_lines_are_cut_wherever_the_chunks_end():
    assert fed([b"one\ntw", b"o\n\nthr", b"ee"]) == ([b"one", b"two", b""], b"three")


def test_line_that_is_too_long_is_dropped_up_to_its_end_and_the_next_is_read():
    assert fed([b"0123456", b"789", b"abc\nok\n"]) == ([None, b"ok"], b"")
    assert fed([b"ok\n012345678"]) == ([b"ok"], b"")
    assert fed([b"01234567\n"]) == ([b"01234567"], b"")


@pytest.mark.slow
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_chunks_never_change_the_lines(data, cuts):
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    *whole, rest = data.split(b"\n")
    expected = [line if len(line) <= LIMIT else None for line in whole]

    assert fed(chunks or [b""]) == (expected, rest if len(rest) <= LIMIT else b"")
