"""Plain values as Flower's records carry them: which types there are, and how one is read."""

from collections.abc import Mapping
from typing import Any, Final

PlainValue = str | int | float | list[str]

_INTEGERS_END: Final = 2**63


def read_value(values: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a value of a record.

    Args:
        values: of the record, as they came.
        name: of the value.
        kind: its type; a whole number serves as a float.

    Raises:
        ValueError: it is missing, of another type, or a whole number beyond 64 bits.
    """
    value = values.get(name)
    # A number of hundreds of digits is no float, and prints as a text that Python refuses to make.
    if type(value) is int and abs(value) >= _INTEGERS_END:
        raise ValueError(f"{name} must lie within 64 bits")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} must be {kind.__name__}, got {value!r}"[:200])
    return value
