"""ChaCha20: the one place where 256 bits of entropy become as many as are asked for.

RFC 8439, section 2.4, with the 64-bit block counter and 64-bit nonce of Bernstein 2008, "ChaCha, a
variant of Salsa20": the nonce is the number of the step, the block counter starts at 0. So each
step of a stream has its own keystream of up to 2^38 bytes, which are the same on every machine.
"""

import os
from typing import Final

KEY_BYTES: Final = 32
_COUNTERS: Final = 2**64
_LONGEST: Final = 2**38


def new_key() -> bytes:
    """A 256-bit key from the operating system's entropy."""
    return os.urandom(KEY_BYTES)


def keystream(key: bytes, counter: int, size: int) -> bytes:
    """The first `size` bytes of ChaCha20 under a key and a counter.

    Args:
        key: 32 bytes.
        counter: Which keystream of the key, such as the index of a step; in 0..2^64 − 1.
        size: Number of bytes, at most 2^38.

    Returns:
        The bytes; equal for equal arguments, on every machine.

    Raises:
        ValueError: An argument is out of bounds.
    """
    # Loaded when first used: a device that only predicts never needs it.
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    if len(key) != KEY_BYTES:
        raise ValueError(f"key must have {KEY_BYTES} bytes, got {len(key)}")
    if not 0 <= counter < _COUNTERS:
        raise ValueError(f"counter must lie in 0..2^64 - 1, got {counter}")
    if not 0 <= size <= _LONGEST:
        raise ValueError(f"size must lie in 0..2^38, got {size}")
    nonce = bytes(8) + counter.to_bytes(8, "little")
    return Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(size))
