"""The network's time axis: hazard bins in days."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EDGES_DAYS = (0, 1, 3, 7, 14, 21, 30, 45, 60, 90, 120, 180, 270, 365, 545, 730, 1095)
NUM_BINS = len(EDGES_DAYS) - 1
WIDTHS_DAYS = np.diff(np.array(EDGES_DAYS, dtype=np.float64))
BASE_RATE_PER_DAY = 1 / 400
"""Rate that a zero logit stands for in every bin."""
LEAST_RATE_PER_DAY = 1e-5
"""Floor of every rate: keeps quantiles well conditioned in float32."""


def exposure(
    days: NDArray[np.float64], event_observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Spread times at risk over the bins.

    Args:
        days: shape (n,): days from the row to the failure or to the end of observation, >= 0.
        event_observed: shape (n,): True where the time ends with a failure.

    Returns:
        The share of each bin spent at risk before the bin of the failure, float32, shape
        (n, n_bins), and the failure's bin, int8, shape (n,), −1 = censored or after the last edge.
    """
    edges = np.array(EDGES_DAYS, dtype=np.float64)
    share = np.clip((days[:, None] - edges[:-1]) / WIDTHS_DAYS, 0.0, 1.0)
    event_bin = np.searchsorted(edges, days, side="left") - 1
    event_bin = np.where(event_observed & (event_bin < NUM_BINS), np.maximum(event_bin, 0), -1)
    failed = np.flatnonzero(event_bin >= 0)
    share[failed, event_bin[failed]] = 0.0
    return share.astype(np.float32), event_bin.astype(np.int8)
