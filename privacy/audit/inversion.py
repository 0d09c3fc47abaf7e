"""The inversion attack: one record read out of an update that one record made.

For a layer z = W·a + b the gradient of one record is (δ aᵀ, δ): every row of the first layer's
block, divided by its bias entry, is the record as the network saw it (Phong et al. 2018, "Privacy-
preserving deep learning via additively homomorphic encryption", section 3). Learning rate, clipping
and the cohort's size scale the block and change nothing. Under noise the attacker fits the rank-one
matrix that is nearest (Eckart and Young 1936), which is the likeliest under Gaussian noise of any
σ, and keeps to what is publicly known: values in [−1, 1], nothing where the network is blind.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

RECOVERED_WITHIN: Final = 0.01
"""Relative error up to which a record counts as recovered."""


def recovered_record(
    update: NDArray[np.float64], *, outputs: int, inputs: int, seen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Read a record out of an update.

    Args:
        update: float64, shape (n_weights,), in any scale; the first layer's weights (outputs,
            inputs) stand first, then its biases (outputs,).
        outputs: units of the first layer.
        inputs: inputs of the first layer.
        seen: bool, shape (inputs,): False where the network sees nothing.

    Returns:
        float64, shape (inputs,): the likeliest record; zeros where the update says nothing.
    """
    weights = update[: outputs * inputs].reshape(outputs, inputs)
    biases = update[outputs * inputs : outputs * (inputs + 1)]
    block = np.column_stack([weights[:, seen], biases])
    record = np.zeros(inputs)
    if not np.isfinite(block).all():
        return record
    direction = np.linalg.svd(block, full_matrices=False)[2][0]
    if direction[-1] != 0.0:
        record[seen] = np.clip(direction[:-1] / direction[-1], -1.0, 1.0)
    return record


def is_recovered(found: NDArray[np.float64], truth: NDArray[np.float64]) -> bool:
    """Whether a record was found within 1 %: ‖found − truth‖₂ ≤ 0.01 ‖truth‖₂."""
    return bool(np.linalg.norm(found - truth) <= RECOVERED_WITHIN * np.linalg.norm(truth))
