"""What the constants of a policy that was read may be: types and ranges, before any arithmetic.

A signature tells who wrote a policy, not that it makes sense. Nothing that is refused here is a
constant that any honest server signs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

GREATEST_WHOLE: Final = 10**9
"""Greatest whole number in a policy: rounds, devices, participations."""
GREATEST_NUMBER: Final = 1e9
"""Greatest magnitude of any other number; the square of its inverse is still a number."""
GREATEST_TEXT: Final = 1000
"""Most characters of a name."""


def checked(kind: type, values: object) -> dict[str, Any]:
    """Return the constants of a dataclass as they were read, once their types hold.

    Args:
        kind: A dataclass; fields of other types than numbers, truth values and text are left alone.
        values: By the names of its fields.

    Raises:
        TypeError: A value is of another type.
        ValueError: It is not finite, too great, or a number of things below 0.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"a {kind.__name__} must be an object, got {type(values).__name__}")
    for field in dataclasses.fields(kind):
        if field.name in values:
            _require(field.name, values[field.name], field.type)
    return dict(values)


def _require(name: str, value: object, wanted: object) -> None:
    if wanted is float:
        if type(value) not in (int, float):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        if not _is_within(value, GREATEST_NUMBER):
            raise ValueError(f"{name} must be finite and at most {GREATEST_NUMBER:g}")
    elif wanted is int:
        if type(value) is not int:
            raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
        if not 0 <= value <= GREATEST_WHOLE:
            raise ValueError(f"{name} must lie in 0..{GREATEST_WHOLE}")
    elif wanted is bool:
        if type(value) is not bool:
            raise TypeError(f"{name} must be true or false, got {type(value).__name__}")
    elif wanted is str:
        if type(value) is not str:
            raise TypeError(f"{name} must be text, got {type(value).__name__}")
        if len(value) > GREATEST_TEXT:
            raise ValueError(f"{name} must have at most {GREATEST_TEXT} characters")


def _is_within(value: Any, greatest: float) -> bool:
    return bool(-greatest <= value <= greatest)
