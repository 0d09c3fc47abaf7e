"""ChaCha20 against the vectors of RFC 8439 and an implementation from its text."""

import struct

import pytest

from privacy.keystream import KEY_BYTES, keystream, new_key


def quarter_round(state, a, b, c, d):
    for first, second, third, shift in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[first] = (state[first] + state[second]) & 0xFFFFFFFF
        mixed = state[third] ^ state[first]
        state[third] = ((mixed << shift) | (mixed >> (32 - shift))) & 0xFFFFFFFF


def block(key, block_counter, nonce):
    """RFC 8439, section 2.3, with Bernstein's split of the last 128 bits."""
    start = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        *struct.unpack("<2I", struct.pack("<Q", block_counter)),
        *struct.unpack("<2I", struct.pack("<Q", nonce)),
    ]
    state = list(start)
    for _ in range(10):
        for columns in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            quarter_round(state, *columns)
        for diagonals in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter_round(state, *diagonals)
    added = [(a + b) & 0xFFFFFFFF for a, b in zip(start, state, strict=True)]
    return struct.pack("<16I", *added)


def test_keystream_is_that_of_the_rfc():
    # Appendix A.1, vectors 1, 2 (the next block) and 5 (nonce ending in 02).
    zeros = keystream(bytes(32), 0, 128)
    assert zeros[:8].hex() == "76b8e0ada0f13d90"
    assert zeros[64:72].hex() == "9f07e7be5551387a"
    assert keystream(bytes(32), 2 << 56, 8).hex() == "c2c64d378cd53637"


@pytest.mark.parametrize("counter", [0, 1, 103, 2**32, 2**64 - 1])
def test_keystream_is_that_of_an_implementation_from_the_text(counter):
    key = bytes(range(32))
    written_out = b"".join(block(key, number, counter) for number in range(4))
    assert keystream(key, counter, 250) == written_out[:250]


def test_key_and_counter_each_change_everything():
    first = keystream(bytes(32), 0, 64)
    assert keystream(bytes(31) + b"\1", 0, 64) != first
    assert keystream(bytes(32), 1, 64) != first
    assert keystream(bytes(32), 0, 64) == first
    assert keystream(bytes(32), 0, 0) == b""


def test_keys_are_fresh():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {KEY_BYTES}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((bytes(16), 0, 8), "key"),
        ((bytes(32), -1, 8), "counter"),
        ((bytes(32), 2**64, 8), "counter"),
        ((bytes(32), 0, -1), "size"),
        ((bytes(32), 0, 2**38 + 1), "size"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        keystream(*arguments)
