"""Per-row gradients of the battery network in closed form: NumPy alone, batched over devices.

DP-SGD needs the norm of each row's gradient and then one weighted sum; it never needs the gradients
themselves. For a layer z = W·a + b the gradient of row i is δ_i·(a_i, 1)ᵀ, an outer product, so

    ‖g_i‖² = Σ_layers ‖δ_i‖² (‖a_i‖² + 1)        (Goodfellow 2015, "Efficient per-example gradient
    Σ_i s_i g_i = Σ_i (s_i δ_i)·(a_i, 1)ᵀ         computations", sections 2 and 4)

with s_i = min(1, R / (‖g_i‖ + 1e-6)), Opacus' factor. Tests hold the sums against Opacus' hooks.

Arrays run along rows, shape (units, n_rows), the rows of all devices side by side. What is
elementwise is one call for all of them; products are one a device, because each device has its own
weights from its second step on, and because a device's numbers then do not depend, not even in the
last bit, on which devices it was batched with (one with a single row in the step excepted, whose
products take another routine).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .hazard_bins import BASE_RATE_PER_DAY, LEAST_RATE_PER_DAY, NUM_BINS, WIDTHS_DAYS
from .network_shape import CAUSE_WEIGHT, HIDDEN_UNITS, LAYERS, LEAST_HAZARD, NUM_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .closed_form_batches import RaggedBatch, ScaledRows

    Floats = NDArray[np.floating[Any]]

NORM_FLOOR: Final = 1e-6
"""Opacus adds it to a norm before it divides by it."""
GREATEST_ODDS: Final = 1e30
"""Keeps exp(−x) finite: infinity times zero is no number."""
_WITH_ONE: Final = HIDDEN_UNITS + 1
_OF_LAYER: Final = (
    slice(0, HIDDEN_UNITS),
    slice(HIDDEN_UNITS, 2 * HIDDEN_UNITS),
    slice(2 * HIDDEN_UNITS, 2 * HIDDEN_UNITS + LAYERS[-1][0]),
)
"""Where each layer's δ stand among all."""


def clipped_sums(
    weights: Floats, batch: RaggedBatch, *, max_grad_norm: float | None
) -> NDArray[np.float64]:
    """Return Σ_i g_i · min(1, R / ‖g_i‖₂) over the rows of each device.

    Args:
        weights: float, shape (1, n_weights) for all devices or (n_devices, n_weights), in the order
            of the network's parameters and of the batch's type.
        batch: rows of each device.
        max_grad_norm: R; None adds the gradients up as they are.

    Returns:
        float64, shape (n_devices, n_weights). A device without rows has zeros. With R, a row whose
        gradient is not finite adds zero.

    Raises:
        ValueError: the weights have another shape.
    """
    if weights.ndim != 2 or weights.shape[1] != NUM_WEIGHTS:
        raise ValueError(f"weights must have shape (n, {NUM_WEIGHTS}), got {weights.shape}")
    if len(weights) not in {1, batch.num_devices}:
        raise ValueError(f"weights must be 1 or {batch.num_devices} sets, got {len(weights)}")
    parts = [
        (device, slice(start, stop))
        for device, (start, stop) in enumerate(zip(batch.bounds, batch.bounds[1:], strict=False))
        if stop > start
    ]
    # What is not finite is looked for below; NumPy need not warn of it on the way.
    with np.errstate(all="ignore"):
        layers = _layers(weights)
        inputs, hidden, logits = _activations(layers, batch, parts)
        squares = hidden * hidden
        deltas = _deltas(layers, logits, 1 - squares, batch.rows, parts)
        if max_grad_norm is not None:
            _clip(deltas, inputs, hidden, squares, max_grad_norm)
        return _sums(deltas, [inputs, *_halves(hidden)], parts, num_devices=batch.num_devices)


_Parts = list[tuple[int, slice]]
"""Each device that has rows, with the columns where they stand."""


def _layers(weights: Floats) -> list[Floats]:
    """Cut flat weights into matrices (outputs, inputs + 1), the bias in the last column."""
    layers: list[Floats] = []
    first = 0
    for outputs, inputs in LAYERS:
        matrix = np.empty((len(weights), outputs, inputs + 1), weights.dtype)
        middle, last = first + outputs * inputs, first + outputs * (inputs + 1)
        matrix[:, :, :-1] = weights[:, first:middle].reshape(-1, outputs, inputs)
        matrix[:, :, -1] = weights[:, middle:last]
        layers.append(matrix)
        first = last
    return layers


def _activations(
    layers: list[Floats], batch: RaggedBatch, parts: _Parts
) -> tuple[Floats, Floats, Floats]:
    """Return inputs, what both hidden layers give, and the logits: shape (units, n_rows).

    Inputs and each hidden layer end with a row of ones; the hidden layers stand in one array.
    """
    inputs = batch.rows.inputs.T
    hidden = np.empty((2 * _WITH_ONE, inputs.shape[1]), inputs.dtype)
    below = inputs
    for layer, half in zip(layers, _halves(hidden), strict=False):
        np.tanh(_times(layer, below, parts), out=half[:-1])
        half[-1] = 1
        below = half
    return inputs, hidden, _times(layers[-1], below, parts)


def _halves(hidden: Floats) -> tuple[Floats, Floats]:
    """Cut what stands in one array into the two hidden layers."""
    return hidden[:_WITH_ONE], hidden[_WITH_ONE:]


def _times(layer: Floats, values: Floats, parts: _Parts) -> Floats:
    """Multiply each device's columns by its matrix."""
    product = np.empty((layer.shape[1], values.shape[1]), values.dtype)
    one = len(layer) == 1
    for device, part in parts:
        np.matmul(layer[0 if one else device], values[:, part], out=product[:, part])
    return product


def _deltas(
    layers: list[Floats], logits: Floats, slopes: Floats, rows: ScaledRows, parts: _Parts
) -> Floats:
    """Return ∂loss/∂z of all layers in one array, first layer first: shape (units, n_rows)."""
    deltas = np.empty((_OF_LAYER[-1].stop, logits.shape[1]), logits.dtype)
    above = deltas[_OF_LAYER[-1]]
    _delta_of_logits(logits, rows, out=above)
    for number in (1, 0):
        below = deltas[_OF_LAYER[number]]
        back = _times(layers[number + 1][:, :, :-1].transpose(0, 2, 1), above, parts)
        np.multiply(back, _halves(slopes)[number][:-1], out=below)
        above = below
    return deltas


def _delta_of_logits(logits: Floats, rows: ScaledRows, *, out: Floats) -> None:
    """Write ∂loss/∂logits, hazards then causes, shape (n_bins + n_causes, n_rows).

    With h = softplus(x) + f, s = 1/(1 + exp(−x)) and q = exp(−h): ∂h/∂x = s and ∂loss/∂h_j =
    exposure_j − [j = e] q/(1 − q + c). As exp(−softplus(x)) = 1 − s, q = (1 − s)·exp(−f) and
    1 − q = s·exp(−f) + (1 − exp(−f)), which cancels nowhere. The cause's cross-entropy gives
    softmax − one-hot.
    """
    num_rows = logits.shape[1]
    offsets, survived_floor, failed_floor = hazard_terms(logits.dtype.str)
    odds = np.negative(logits[:NUM_BINS])
    odds -= offsets
    np.exp(odds, out=odds)
    np.minimum(odds, GREATEST_ODDS, out=odds)
    slope = odds + 1
    np.divide(1, slope, out=slope)
    np.multiply(rows.exposure.T, slope, out=out[:NUM_BINS])
    out[NUM_BINS:] = 0
    failed = np.flatnonzero(rows.event_bin >= 0)
    if len(failed):
        bins = rows.event_bin.take(failed).astype(np.intp)
        place = bins * num_rows + failed
        slope_there = slope.ravel().take(place)
        pull = slope_there * survived_floor.take(bins)
        missed = pull + failed_floor.take(bins)
        pull *= odds.ravel().take(place)
        pull *= slope_there
        out.reshape(-1)[place] -= pull / missed
        causes = rows.cause.take(failed)
        known = failed if causes.min() >= 0 else failed.compress(causes >= 0)
        if len(known):
            out[NUM_BINS:, known] = _delta_of_causes(
                logits[NUM_BINS:].take(known, axis=1), rows.cause.take(known)
            )


def _delta_of_causes(logits: Floats, causes: NDArray[np.int8]) -> Floats:
    num_rows = len(causes)
    logits -= np.maximum.reduce(logits, axis=0)
    shares: Floats = np.exp(logits, out=logits)
    shares /= np.add.reduce(shares, axis=0)
    shares.reshape(-1)[causes.astype(np.intp) * num_rows + np.arange(num_rows)] -= 1
    shares *= CAUSE_WEIGHT
    return shares


@lru_cache(maxsize=2)
def hazard_terms(dtype: str) -> tuple[Floats, Floats, Floats]:
    """Return what the hazards' slopes are made of, in a type.

    Args:
        dtype: as `numpy.dtype.str`.

    Returns:
        ln(width · base rate), shape (n_bins, 1); exp(−f) and 1 − exp(−f) + c, shape (n_bins,).
    """
    floors = LEAST_RATE_PER_DAY * WIDTHS_DAYS
    terms = (
        np.log(WIDTHS_DAYS * BASE_RATE_PER_DAY)[:, None],
        np.exp(-floors),
        LEAST_HAZARD - np.expm1(-floors),
    )
    offsets, survived, failed = (values.astype(dtype) for values in terms)
    return offsets, survived, failed


def _clip(
    deltas: Floats, inputs: Floats, hidden: Floats, squares: Floats, max_grad_norm: float
) -> None:
    """Scale every row's δ so that its gradient is no longer than R; non-finite rows become zero."""
    of_inputs = np.add.reduce(inputs * inputs, axis=0)
    of_activations = (of_inputs, *(np.add.reduce(half, axis=0) for half in _halves(squares)))
    of_deltas = deltas * deltas
    squared = np.zeros(deltas.shape[1], deltas.dtype)
    for layer, of_activation in zip(_OF_LAYER, of_activations, strict=True):
        squared += np.add.reduce(of_deltas[layer], axis=0) * of_activation
    factor = np.sqrt(squared)
    factor += NORM_FLOOR
    np.divide(max_grad_norm, factor, out=factor)
    np.minimum(factor, 1, out=factor)
    is_good = np.isfinite(squared)
    if not is_good.all():
        bad = np.flatnonzero(~is_good)
        factor[bad] = 0
        deltas[:, bad] = 0
        hidden[:, bad] = 0
    deltas *= factor


def _sums(
    deltas: Floats, activations: Sequence[Floats], parts: _Parts, *, num_devices: int
) -> NDArray[np.float64]:
    """Return Σ_i δ_i (a_i, 1)ᵀ of each device as flat weights."""
    sums = np.zeros((num_devices, NUM_WEIGHTS), deltas.dtype)
    first = 0
    for (outputs, inputs), layer, activation in zip(LAYERS, _OF_LAYER, activations, strict=True):
        middle, last = first + outputs * inputs, first + outputs * (inputs + 1)
        matrices = sums[:, first:middle].reshape(-1, outputs, inputs)
        for device, part in parts:
            of_device = deltas[layer, part]
            np.matmul(of_device, activation[:-1, part].T, out=matrices[device])
            np.add.reduce(of_device, axis=1, out=sums[device, middle:last])
        first = last
    return sums.astype(np.float64)
