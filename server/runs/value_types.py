"""Types of what was read from a file that anybody may have spoilt, checked value by value."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], bool]

GREATEST_COUNT: Final = 2**31 - 1
"""Of rounds, devices and processes; more is no count."""
GREATEST_NUMBER: Final = 1e300


def is_text(value: object) -> bool:
    """Whether it is a text."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """Whether it is a whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 <= value <= GREATEST_COUNT


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= GREATEST_NUMBER and math.isfinite(value)


def is_time(value: object) -> bool:
    """Whether it is a time whose zone is known."""
    return isinstance(value, datetime) and value.tzinfo is not None


def is_refusals(value: object) -> bool:
    """Whether it counts by reason."""
    return isinstance(value, dict) and all(is_count(count) for count in value.values())


def is_look(value: object) -> bool:
    """Whether it is a look at quality: a number, or none, by name."""
    return isinstance(value, dict) and all(one is None or is_number(one) for one in value.values())


def or_none(check: Check) -> Check:
    """Return the check that lets nothing pass, too."""
    return lambda value: value is None or check(value)


def require_types(values: Mapping[str, object], types: Mapping[str, Check]) -> None:
    """Refuse values of another type than they must have.

    Args:
        values: by name.
        types: what each must be; names without one are let pass.

    Raises:
        ValueError: one is not, which is named.
    """
    for name, check in types.items():
        if not check(values[name]):
            raise ValueError(f"{name} is not what it must be")
