"""Exact Shapley values over the eight feature groups, against a public reference device.

The value of a coalition is the model's log-odds of failure within 30 days when the groups in it
take the device's values and the others the reference's. With 8 groups all 256 coalitions are run
at once, so the values are exact (Shapley 1953; Lundberg and Lee 2017, equation 4), not sampled.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np

from .feature_spec import GROUPS, group_index
from .prediction import NUM_REASONS, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .inference import Predictor

NUM_COALITIONS = 1 << len(GROUPS)
LEAST_PROBABILITY = 1e-6
LEAST_SHARE = 0.01
BATCH_WINDOWS = 64


def _membership() -> NDArray[np.bool_]:
    bits = np.arange(NUM_COALITIONS)[:, None] >> np.arange(len(GROUPS)) & 1
    return bits.astype(bool)


def _weights() -> NDArray[np.float64]:
    """Return W of shape (n_groups, n_coalitions) with Shapley values φ = W v."""
    member = _membership()
    size, count = member.sum(axis=1), len(GROUPS)
    joined = np.array([1 / (count * comb(count - 1, k)) for k in range(count)])
    with_it = joined[np.maximum(size - 1, 0)]
    without = joined[np.minimum(size, count - 1)]
    weights: NDArray[np.float64] = np.where(member, with_it[:, None], -without[:, None]).T
    return weights


def shapley_values(predictor: Predictor, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each group's contribution to the log-odds, shape (n, n_groups).

    A feature that was not measured is left out of the reference too, so that what is not known
    explains nothing.

    Args:
        predictor: the model.
        features: float32, shape (n, n_features), raw values.
    """
    member = _membership()[:, list(group_index())]
    weights = _weights()
    reference = predictor.bundle.explanation_reference
    values = np.empty((len(features), len(GROUPS)))
    for first in range(0, len(features), BATCH_WINDOWS):
        own = features[first : first + BATCH_WINDOWS, None, :]
        other = np.where(np.isnan(own), np.float32(np.nan), reference)
        coalitions = np.where(member[None], own, other).reshape(-1, features.shape[1])
        name = "failure_probability_30d"
        probability = predictor.outputs(coalitions, [name])[name].astype(np.float64)
        probability = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        log_odds = np.log(probability / (1 - probability)).reshape(-1, NUM_COALITIONS)
        values[first : first + BATCH_WINDOWS] = log_odds @ weights.T
    return values


def top_reasons(contributions: NDArray[np.float64]) -> tuple[Reason, ...]:
    """Return the top three reasons for one prediction.

    Args:
        contributions: Shapley values of the groups, shape (n_groups,).
    """
    size = np.abs(contributions)
    total = float(size.sum())
    if total <= 0:
        return ()
    order = np.argsort(-size, kind="stable")[:NUM_REASONS]
    return tuple(
        Reason(
            code=f"{GROUPS[group]}.{'raises' if contributions[group] > 0 else 'lowers'}",
            share=round(float(size[group] / total), 4),
        )
        for group in order
        if size[group] / total >= LEAST_SHARE
    )
