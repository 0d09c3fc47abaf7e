"""Exact Shapley values over the eight feature groups, against a public reference device.

The value of a coalition is the model's log-odds of failure within 30 days when the groups in it
take the device's values and the others the reference's. With 8 groups all 256 coalitions are run
at once, so the values are exact (Shapley 1953; Lundberg and Lee 2017, equation 4), not sampled.
"""

from __future__ import annotations

from functools import cache
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
_PROBABILITY = "failure_probability_30d"


def _membership() -> NDArray[np.bool_]:
    bits = np.arange(NUM_COALITIONS)[:, None] >> np.arange(len(GROUPS)) & 1
    return bits.astype(bool)


@cache
def _own_features() -> NDArray[np.bool_]:
    """Return which features each coalition takes from the device, (n_coalitions, n_features)."""
    own: NDArray[np.bool_] = _membership()[:, list(group_index())]
    return own


@cache
def _weights() -> NDArray[np.float64]:
    """Return W of shape (n_coalitions, n_groups) with Shapley values φ = v W."""
    member = _membership()
    size, count = member.sum(axis=1), len(GROUPS)
    joined = np.array([1 / (count * comb(count - 1, k)) for k in range(count)])
    with_it = joined[np.maximum(size - 1, 0)]
    without = joined[np.minimum(size, count - 1)]
    weights: NDArray[np.float64] = np.where(member, with_it[:, None], -without[:, None])
    return weights


def shapley_values(predictor: Predictor, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each group's contribution to the log-odds, shape (n, n_groups).

    A feature that was not measured is left out of the reference too, so that what is not known
    explains nothing.

    Args:
        predictor: the model.
        features: float32, shape (n, n_features), raw values.
    """
    own_features, weights = _own_features(), _weights()
    reference = predictor.bundle.explanation_reference
    values = np.empty((len(features), len(GROUPS)))
    for first in range(0, len(features), BATCH_WINDOWS):
        own = features[first : first + BATCH_WINDOWS, None, :]
        other = np.where(np.isnan(own), own, reference)
        coalitions = np.where(own_features, own, other).reshape(-1, features.shape[1])
        odds = log_odds(predictor.outputs(coalitions, [_PROBABILITY])[_PROBABILITY])
        values[first : first + BATCH_WINDOWS] = odds.reshape(-1, NUM_COALITIONS) @ weights
    return values


def log_odds(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ln(p / (1 − p)), with p kept a millionth away from 0 and 1."""
    kept = np.clip(probability.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: NDArray[np.float64] = np.log(kept / (1 - kept))
    return odds


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
