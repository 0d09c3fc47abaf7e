"""Weights as batched products take them: each layer a matrix whose last column is the bias.

Activations then end with a row of ones, and one product a layer gives the gradient of weights and
bias together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.network_shape import LAYERS, NUM_WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _order() -> NDArray[np.intp]:
    """Where each bordered entry stands among the flat weights."""
    numbers = np.arange(NUM_WEIGHTS)
    parts, first = [], 0
    for outputs, inputs in LAYERS:
        middle, last = first + outputs * inputs, first + outputs * (inputs + 1)
        matrix = numbers[first:middle].reshape(outputs, inputs)
        parts.append(np.column_stack([matrix, numbers[middle:last]]).ravel())
        first = last
    return np.concatenate(parts)


FLAT_OF_BORDERED: Final = _order()
"""int, shape (n_weights,): flat position of each bordered entry."""
BORDERED_OF_FLAT: Final = np.argsort(FLAT_OF_BORDERED)
"""int, shape (n_weights,): bordered position of each flat entry."""


def bordered(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring flat weights, shape (…, n_weights), into bordered order; a copy."""
    return flat.take(FLAT_OF_BORDERED, axis=-1)


def flattened(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring bordered weights, shape (…, n_weights), back into the network's order; a copy."""
    return values.take(BORDERED_OF_FLAT, axis=-1)


def add_flat(values: NDArray[np.float32], flat: NDArray[np.float32]) -> None:
    """Add flat weights to bordered ones, both of shape (n_devices, n_weights), in place."""
    first = 0
    for layer, (outputs, inputs) in zip(layer_views(values), LAYERS, strict=True):
        middle, last = first + outputs * inputs, first + outputs * (inputs + 1)
        layer[:, :, :-1] += flat[:, first:middle].reshape(-1, outputs, inputs)
        layer[:, :, -1] += flat[:, middle:last]
        first = last


def layer_views(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return each layer of bordered weights as a view, shape (n_devices, outputs, inputs + 1)."""
    views, first = [], 0
    for outputs, inputs in LAYERS:
        last = first + outputs * (inputs + 1)
        views.append(values[:, first:last].reshape(-1, outputs, inputs + 1))
        first = last
    return views
