"""What is larger than one message, in parts: cut, told apart, put together again.

    byte 0          2, the version of this layout
    bytes 1 to 16   tag: what the whole is an answer to, or is
    bytes 17 to 48  SHA-256 of the whole
    bytes 49 to 50  number of this part, from 0, big endian
    bytes 51 to 52  number of parts, big endian
    the rest        the part: 4,043 bytes, the last one what is left

How many parts there are, and how long each is, follows from the whole's size alone, and a receiver
knows that size before the first part comes. So nobody can make it hold more than it asked for.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .codec import MAX_PAYLOAD_BYTES
from .errors import MessageTooLargeError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterable

LAYOUT: Final = 2
TAG_BYTES: Final = 16
_HEADER: Final = struct.Struct(f">B{TAG_BYTES}s32sHH")
CHUNK_BYTES: Final = MAX_PAYLOAD_BYTES - _HEADER.size
MOST_PARTS: Final = 512


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a whole.

    Attributes:
        tag: what the whole is an answer to, or is.
        digest: SHA-256 of the whole.
        number: of this part, from 0.
        num_parts: of the whole.
        chunk: its bytes.
    """

    tag: bytes
    digest: bytes
    number: int
    num_parts: int
    chunk: bytes

    def to_bytes(self) -> bytes:
        """Return the part as it travels."""
        head = _HEADER.pack(LAYOUT, self.tag, self.digest, self.number, self.num_parts)
        return head + self.chunk


def num_parts(size: int) -> int:
    """Return in how many parts so many bytes travel.

    Raises:
        WireError: `oversize`: nothing so large is sent; also for nothing at all.
    """
    if not 0 < size <= MOST_PARTS * CHUNK_BYTES:
        raise MessageTooLargeError(size=size, limit=MOST_PARTS * CHUNK_BYTES)
    return -(-size // CHUNK_BYTES)


def split(content: bytes, *, tag: bytes) -> tuple[bytes, ...]:
    """Return the parts of a whole, each as it travels.

    Args:
        content: the whole.
        tag: 16 bytes.

    Raises:
        WireError: `oversize`.
        ValueError: the tag has another length.
    """
    if len(tag) != TAG_BYTES:
        raise ValueError(f"tag must have {TAG_BYTES} bytes, got {len(tag)}")
    count = num_parts(len(content))
    digest = hashlib.sha256(content).digest()
    return tuple(
        Part(tag, digest, number, count, content[start : start + CHUNK_BYTES]).to_bytes()
        for number, start in enumerate(range(0, len(content), CHUNK_BYTES))
    )


def read_part(payload: bytes) -> Part:
    """Return the part that a payload holds.

    Raises:
        WireError: `oversize` or `not_a_part`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(size=len(payload), limit=MAX_PAYLOAD_BYTES)
    if len(payload) <= _HEADER.size:
        raise WireError("not_a_part", f"{len(payload)} bytes are no part")
    layout, tag, digest, number, count = _HEADER.unpack_from(payload)
    chunk = payload[_HEADER.size :]
    if layout != LAYOUT:
        raise WireError("not_a_part", f"layout {layout}, only {LAYOUT} is known")
    if not number < count <= MOST_PARTS:
        raise WireError("not_a_part", f"part {number} of {count}")
    if len(chunk) < CHUNK_BYTES and number + 1 < count:
        raise WireError("not_a_part", f"part {number} of {count} has {len(chunk)} bytes")
    return Part(tag, digest, number, count, chunk)


@dataclass(slots=True)
class Joining:
    """Puts the parts of one whole together, in any order.

    Attributes:
        digest: SHA-256 of the whole.
        size: of the whole in bytes.
    """

    digest: bytes
    size: int
    _chunks: dict[int, bytes] = field(init=False, default_factory=dict, repr=False)

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the parts that have not come."""
        return tuple(n for n in range(num_parts(self.size)) if n not in self._chunks)

    def add(self, part: Part) -> bytes | None:
        """Take a part, and return the whole once it is there.

        A part that came before changes nothing. Where the whole is not what its digest says, it is
        let go, and every part is missing again.

        Raises:
            WireError: `foreign_part`: of another whole, or of another size; `wrong_digest`.
        """
        count = num_parts(self.size)
        is_last = part.number == count - 1
        expected = self.size - (count - 1) * CHUNK_BYTES if is_last else CHUNK_BYTES
        if (part.digest, part.num_parts, len(part.chunk)) != (self.digest, count, expected):
            raise WireError("foreign_part", f"not part {part.number} of the {self.size} bytes")
        self._chunks.setdefault(part.number, part.chunk)
        if len(self._chunks) < count:
            return None
        content = b"".join(self._chunks[number] for number in range(count))
        if hashlib.sha256(content).digest() != self.digest:
            self._chunks.clear()
            raise WireError("wrong_digest", "the parts together are not what their digest says")
        return content


def join(parts: Iterable[Part], *, digest: bytes, size: int) -> bytes:
    """Return the whole of all of its parts.

    Raises:
        WireError: `foreign_part`, `wrong_digest`, or `missing_part`.
    """
    joining = Joining(digest, size)
    whole: bytes | None = None
    for part in parts:
        whole = joining.add(part) or whole
    if whole is None:
        raise WireError("missing_part", f"{len(joining.missing)} of {num_parts(size)} are missing")
    return whole
