"""Clipped gradient sums of many devices by batched products, shape (devices, units, rows).

The mathematics is that of `models.closed_form`, where its sources stand: row i's gradient of a
layer is δ_i·(a_i, 1)ᵀ, its norm follows from ‖δ_i‖ and ‖a_i‖, and the clipped sum is one product a
layer. There, products are one call a device, and rows of unequal number stand side by side; here
one call does a layer of a batch of devices, all filled up to the same number of rows.

Every product has one device's matrices for its operands, and everything else goes element by
element or along one device's own axis, in float32. So a device's numbers depend on its own alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from models.closed_form import GREATEST_ODDS, NORM_FLOOR, hazard_terms
from models.hazard_bins import NUM_BINS
from models.network_shape import CAUSE_WEIGHT, HIDDEN_UNITS, LAYERS, NUM_WEIGHTS

from .bordered_weights import layer_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .padded_rows import PaddedRows

    Floats = NDArray[np.float32]

_OUTPUTS: Final = LAYERS[-1][0]


ROWS_A_PRODUCT: Final = 184
"""Most rows of a device in one product. OpenBLAS keeps 24 · 57 · 184 multiplications on one thread
(its bound is 65,536 · 4); a sum that threads share has other bits for another number of them."""


def clipped_gradient_sums(
    weights: Floats, rows: PaddedRows, picked: NDArray[np.intp], *, max_grad_norm: float | None
) -> Floats:
    """Return Σ_i g_i · min(1, R / ‖g_i‖₂) over the picked rows of each device.

    Args:
        weights: float32, shape (n_devices, n_weights), or (1, n_weights) for all; bordered.
        rows: of the block.
        picked: int, shape (n_devices, width): positions of rows.
        max_grad_norm: R; None adds the gradients up as they are.

    Returns:
        float32, shape (n_devices, n_weights), bordered. With R, a row whose gradient is not finite
        adds zero.
    """
    width = picked.shape[1]
    sums = _sums(weights, rows, picked[:, :ROWS_A_PRODUCT], max_grad_norm=max_grad_norm)
    for start in range(ROWS_A_PRODUCT, width, ROWS_A_PRODUCT):
        piece = picked[:, start : start + ROWS_A_PRODUCT]
        sums += _sums(weights, rows, piece, max_grad_norm=max_grad_norm)
    return sums


def _sums(
    weights: Floats, rows: PaddedRows, picked: NDArray[np.intp], *, max_grad_norm: float | None
) -> Floats:
    """Return the clipped sums over so few rows that no product is shared by threads."""
    num_devices = len(picked)
    layers = layer_views(weights)
    inputs = rows.inputs.take(picked, axis=0)
    first = _activation(layers[0], inputs.transpose(0, 2, 1), num_devices)
    second = _activation(layers[1], first, num_devices)
    of_outputs = np.matmul(layers[2], second)
    _delta_of_logits(of_outputs, rows, picked)
    squares = [np.multiply(first, first), np.multiply(second, second)]
    of_second = _delta_below(layers[2], of_outputs, squares[1])
    of_first = _delta_below(layers[1], of_second, squares[0])
    deltas = (of_first, of_second, of_outputs)
    if max_grad_norm is not None:
        factor, is_bad = _factors(
            deltas, rows.input_squares.take(picked), squares, max_grad_norm=max_grad_norm
        )
        for delta in deltas:
            np.multiply(delta, factor[:, None, :], out=delta)
        if is_bad is not None:
            _silence(is_bad, (*deltas, first, second))
    sums = np.empty((num_devices, NUM_WEIGHTS), np.float32)
    to_sums = layer_views(sums)
    np.matmul(of_first, inputs, out=to_sums[0])
    np.matmul(of_second, first.transpose(0, 2, 1), out=to_sums[1])
    np.matmul(of_outputs, second.transpose(0, 2, 1), out=to_sums[2])
    return sums


def _activation(layer: Floats, below: Floats, num_devices: int) -> Floats:
    """Return tanh of a layer and a row of ones under it, shape (n_devices, units + 1, width)."""
    product = np.matmul(layer, below)
    values = np.empty((num_devices, HIDDEN_UNITS + 1, product.shape[2]), np.float32)
    np.tanh(product, out=values[:, :-1])
    values[:, -1] = 1
    return values


def _delta_below(layer: Floats, above: Floats, squares: Floats) -> Floats:
    """Take ∂loss/∂z back through a layer and the tanh below it, of which the squares are given."""
    back: Floats = np.matmul(layer[:, :, :-1].transpose(0, 2, 1), above)
    # tanh' = 1 − tanh²
    back -= back * squares[:, :-1]
    return back


def _delta_of_logits(logits: Floats, rows: PaddedRows, picked: NDArray[np.intp]) -> None:
    """Replace logits, hazards then causes, by ∂loss/∂logits; as `models.closed_form` does."""
    width = picked.shape[1]
    offsets, survived_floor, failed_floor = hazard_terms(logits.dtype.str)
    odds = np.subtract(-offsets, logits[:, :NUM_BINS])
    np.exp(odds, out=odds)
    np.minimum(odds, GREATEST_ODDS, out=odds)
    slope = odds + np.float32(1)
    np.reciprocal(slope, out=slope)
    failed = np.flatnonzero(rows.has_failed.take(picked))
    row_of_failed = picked.ravel().take(failed)
    device = failed // width
    # Where bin 0 and cause 0 of a failed row stand among the flat logits.
    first_bin = failed + device * (width * (_OUTPUTS - 1))
    of_causes = _delta_of_causes(
        logits, rows.cause.take(row_of_failed), first_bin + NUM_BINS * width, width
    )
    exposure = rows.exposure.take(picked, axis=0)
    np.multiply(exposure.transpose(0, 2, 1), slope, out=logits[:, :NUM_BINS])
    logits[:, NUM_BINS:] = 0
    if not len(failed):
        return
    bins = rows.event_bin.take(row_of_failed).astype(np.intp)
    place = failed + (device * (NUM_BINS - 1) + bins) * width
    slope_there = slope.ravel().take(place)
    pull = slope_there * survived_floor.take(bins)
    missed = pull + failed_floor.take(bins)
    pull *= odds.ravel().take(place)
    pull *= slope_there
    pull /= missed
    flat = logits.reshape(-1)
    flat[first_bin + bins * width] -= pull
    if of_causes is not None:
        flat[of_causes[0]] = of_causes[1]


def _delta_of_causes(
    logits: Floats, causes: NDArray[np.int8], first: NDArray[np.intp], width: int
) -> tuple[NDArray[np.intp], Floats] | None:
    """Return where the logits of known causes stand, and softmax − one-hot, weighed.

    Both have shape (n_causes, n_known); None where no cause is known.
    """
    known = np.flatnonzero(causes >= 0)
    if not len(known):
        return None
    place = first.take(known) + (np.arange(_OUTPUTS - NUM_BINS) * width)[:, None]
    shares = logits.ravel().take(place)
    shares -= np.maximum.reduce(shares, axis=0)
    np.exp(shares, out=shares)
    shares /= np.add.reduce(shares, axis=0)
    shares[causes.take(known), np.arange(len(known))] -= 1
    shares *= np.float32(CAUSE_WEIGHT)
    return place, shares


@cache
def _ones(units: int) -> Floats:
    return np.ones((1, units), np.float32)


def _column_sums(values: Floats) -> Floats:
    """Add a device's units up by a product with ones, shape (n_devices, width)."""
    sums: Floats = np.matmul(_ones(values.shape[1]), values)[:, 0]
    return sums


def _factors(
    deltas: tuple[Floats, Floats, Floats],
    of_inputs: Floats,
    squares: list[Floats],
    *,
    max_grad_norm: float,
) -> tuple[Floats, NDArray[np.bool_] | None]:
    """Return min(1, R / ‖g_i‖) of each row, and which rows are not finite, None for none."""
    squared = _column_sums(deltas[0] * deltas[0]) * of_inputs
    for delta, square in zip(deltas[1:], squares, strict=True):
        squared += _column_sums(delta * delta) * _column_sums(square)
    is_bad = ~np.isfinite(squared)
    factor = np.sqrt(squared)
    factor += np.float32(NORM_FLOOR)
    np.divide(np.float32(max_grad_norm), factor, out=factor)
    np.minimum(factor, np.float32(1), out=factor)
    return factor, is_bad if is_bad.any() else None


def _silence(is_bad: NDArray[np.bool_], values: tuple[Floats, ...]) -> None:
    """Make zeros of rows that are not finite, in place."""
    device, row = np.nonzero(is_bad)
    for array in values:
        array[device, :, row] = 0
