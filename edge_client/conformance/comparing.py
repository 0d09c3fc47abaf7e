"""What is computed here against what a vector says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def difference(
    found: object, expected: object, tolerance: Mapping[str, float], where: str
) -> str | None:
    """Return the first difference of two JSON values, None where they agree.

    Args:
        found: computed here.
        expected: of the vector; fields that it does not have are not compared.
        tolerance: `relative` and `absolute`, for numbers.
        where: what is compared.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            part = difference(found.get(name), value, tolerance, f"{where}: {name}")
            if part is not None:
                return part
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            part = difference(one, other, tolerance, f"{where}[{number}]")
            if part is not None:
                return part
        return None
    if _is_number(expected) and _is_number(found):
        close = math.isclose(
            found,  # type: ignore[arg-type]
            expected,  # type: ignore[arg-type]
            rel_tol=tolerance["relative"],
            abs_tol=tolerance["absolute"],
        )
        return None if close else f"{where} is {found}, not {expected}"
    return None if found == expected else f"{where} is {found!r}, not {expected!r}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def refusal(work: Callable[[], object], kind: type[Exception], reason: str) -> str | None:
    """Return what is wrong where something must be refused for a reason, None where it is."""
    try:
        work()
    except kind as error:
        found = getattr(error, "reason", None)
        return None if found == reason else f"refused as {found}, not as {reason}"
    return f"taken, but must be refused as {reason}"
