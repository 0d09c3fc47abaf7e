"""Model parameters <-> arrays <-> one flat vector, with checks of names, shapes and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Parameters:
    """Named float32 arrays in a fixed order.

    Attributes:
        names: parameter names, in order.
        arrays: one array a name, float32.
    """

    names: tuple[str, ...]
    arrays: tuple[NDArray[np.float32], ...]

    def __post_init__(self) -> None:
        """Refuse wrong types and values that are not finite."""
        if len(self.names) != len(self.arrays):
            message = f"{len(self.names)} names for {len(self.arrays)} arrays"
            raise ValueError(message)
        for name, array in zip(self.names, self.arrays, strict=True):
            if array.dtype != np.float32:
                message = f"{name} must be float32, got {array.dtype}"
                raise ValueError(message)
            if not np.isfinite(array).all():
                message = f"{name} holds values that are not finite"
                raise ValueError(message)

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return sum(array.size for array in self.arrays)

    def named(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays by name."""
        return dict(zip(self.names, self.arrays, strict=True))

    def flat(self) -> NDArray[np.float32]:
        """Return all weights in one vector, shape (size,), in order."""
        return np.concatenate([array.ravel() for array in self.arrays])

    def with_flat(self, vector: NDArray[np.floating]) -> Parameters:
        """Return parameters of the same names and shapes from one vector.

        Raises:
            ValueError: when the vector's length is not `size`.
        """
        if vector.shape != (self.size,):
            message = f"expected a vector of {self.size} weights, got shape {vector.shape}"
            raise ValueError(message)
        arrays, first = [], 0
        for array in self.arrays:
            part = vector[first : first + array.size]
            arrays.append(part.reshape(array.shape).astype(np.float32))
            first += array.size
        return Parameters(self.names, tuple(arrays))

    @staticmethod
    def of(named: Mapping[str, NDArray[np.floating]]) -> Parameters:
        """Make parameters from named arrays, in the mapping's order."""
        arrays = tuple(np.asarray(array, dtype=np.float32) for array in named.values())
        return Parameters(tuple(named), arrays)
