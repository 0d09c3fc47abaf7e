"""The few operations that formulas of features need, over arrays and over single numbers.

A formula written with them is one implementation for both: all windows of all devices at once, and
the one window of a device that predicts, for which an array operation costs fifty times its sum.
NaN = not known, in both: it stays NaN, and no comparison with it is true.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np


class ArrayArithmetic:
    """Over float64 arrays."""

    def where(self, condition: Any, value: Any, other: Any) -> Any:
        """Return `value` where the condition holds, else `other`."""
        return np.where(condition, value, other)

    def greater(self, value: Any, other: Any) -> Any:
        """Return the greater of two; NaN where either is."""
        return np.maximum(value, other)

    def smaller(self, value: Any, other: Any) -> Any:
        """Return the smaller of two; NaN where either is."""
        return np.minimum(value, other)

    def ratio(self, value: Any, other: Any, *, when: Any) -> Any:
        """Return value / other where `when` holds, which must imply other ≠ 0; else NaN."""
        return np.divide(value, other, out=np.full(np.shape(value), np.nan), where=when)

    def root(self, value: Any) -> Any:
        """Return the square root of a value ≥ 0 or NaN."""
        return np.sqrt(value)


class NumberArithmetic:
    """Over floats."""

    def where(self, condition: bool, value: float, other: float) -> float:  # noqa: FBT001 - np.where's order
        """Return `value` where the condition holds, else `other`."""
        return value if condition else other

    def greater(self, value: float, other: float) -> float:
        """Return the greater of two; NaN where either is."""
        return value if value > other or value != value else other  # noqa: PLR0124 - NaN

    def smaller(self, value: float, other: float) -> float:
        """Return the smaller of two; NaN where either is."""
        return value if value < other or value != value else other  # noqa: PLR0124 - NaN

    def ratio(self, value: float, other: float, *, when: bool) -> float:
        """Return value / other where `when` holds, which must imply other ≠ 0; else NaN."""
        return value / other if when else math.nan

    def root(self, value: float) -> float:
        """Return the square root of a value ≥ 0 or NaN."""
        return math.sqrt(value)


ARRAYS = ArrayArithmetic()
NUMBERS = NumberArithmetic()

if TYPE_CHECKING:
    Arithmetic = ArrayArithmetic | NumberArithmetic
