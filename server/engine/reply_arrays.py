"""Reads what a node replied, an array and some facts, whatever it has written: the one place.

Only the bytes of `numpy.save` are read, without pickles, archives or anything that their header
makes larger than they are. Flower's own reader takes all that numpy does, and raises what numpy
does: one reply would end a run.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from flwr.app import Array
from numpy.lib import format as npy

from models.wire.rounds import FLAT_ARRAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from flwr.app import Message
    from numpy.typing import NDArray

Facts = TypeVar("Facts")

_MAGIC: Final = b"\x93NUMPY"
_USUAL_HEADER: Final = 128
_GREATEST_WIDTH, _GREATEST_HEADER = 32, 4096
_NUMBERS: Final = "biufc"


def read_reply(
    reply: Message,
    *,
    array_record: str,
    facts_record: str,
    size: int,
    facts_of: Callable[[Mapping[str, Any]], Facts],
) -> tuple[NDArray[np.generic], Facts] | None:
    """Read a reply's array and facts; None for an error, and whatever does not have their form.

    Args:
        reply: as it came; anybody may have written it.
        array_record: record of the array `FLAT_ARRAY`.
        facts_record: record of plain values.
        size: of an honest reply's array; one of many times its bytes is not even read.
        facts_of: reads the plain values.
    """
    if reply.has_error():
        return None
    try:
        array = reply.content.array_records[array_record][FLAT_ARRAY]
        if len(array.data) > array_bytes(size):
            return None
        facts = facts_of(reply.content.config_records[facts_record])
        return _values_of(array), facts
    except Exception:  # noqa: BLE001 - anybody may have written it, and nobody's reply ends a run
        return None


def array_bytes(size: int) -> int:
    """Return how long an array of so many numbers can be, whatever their type."""
    return _GREATEST_WIDTH * size + _GREATEST_HEADER


def _values_of(array: Array) -> NDArray[np.generic]:
    """Read an array; one in the form that honest nodes send without looking for others.

    Raises:
        ValueError: it is not in numpy's own format, holds no numbers, or is not as long as it says.
    """
    data = array.data
    size, rest = divmod(len(data) - _USUAL_HEADER, 8)
    if rest == 0 and size > 0 and (array.stype, data[:_USUAL_HEADER]) == _usual_form(size):
        return np.frombuffer(data, "<i8", offset=_USUAL_HEADER)
    if array.stype != _usual_form(1)[0] or not data.startswith(_MAGIC):
        raise ValueError("an array must be in the format of numpy.save")
    content = BytesIO(data)
    version = npy.read_magic(content)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, _, dtype = read_header(content, max_header_size=_GREATEST_HEADER)
    left = len(data) - content.tell()
    if dtype.kind not in _NUMBERS or min(shape, default=0) < 0:
        raise ValueError(f"an array must hold numbers, got {dtype} in {shape}"[:200])
    if prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{left} bytes are not {prod(shape)} of {dtype}"[:200])
    return np.frombuffer(data, dtype, offset=content.tell()).reshape(shape)


@lru_cache(maxsize=8)
def _usual_form(size: int) -> tuple[str, bytes]:
    """Return how so many int64 in one dimension are written, and the header before them."""
    usual = Array(np.zeros(size, "<i8"))
    return usual.stype, usual.data[:_USUAL_HEADER]
