"""What the battery network is, without torch: its layers, and how it sees raw values.

The network in torch (`models.training.network`) and the closed form in NumPy
(`models.closed_form`) are two ways to compute one function; what both rest on stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from .feature_spec import FEATURES
from .hazard_bins import NUM_BINS
from .telemetry import CAUSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIDDEN_UNITS: Final = 24
LAYERS: Final = (
    (HIDDEN_UNITS, 2 * len(FEATURES)),
    (HIDDEN_UNITS, HIDDEN_UNITS),
    (NUM_BINS + len(CAUSES), HIDDEN_UNITS),
)
"""(outputs, inputs) of each layer, in the order of the parameters: weight, then bias."""
NUM_WEIGHTS: Final = sum(outputs * (inputs + 1) for outputs, inputs in LAYERS)

CAUSE_WEIGHT: Final = 0.2
"""Of the cause's cross-entropy in a row's loss."""
LEAST_HAZARD: Final = 1e-7
"""Added to the probability of the failure that was seen, under the logarithm."""

MASKED: Final = (
    "charge_cycle_count",
    "days_since_manufacture",
    "avg_charge_time",
    "charge_capacity_remaining",
    "health_margin_design",
)
"""Features the network does not see: the first two identify laboratory protocols, the third the
charger, the last two the maker's rating. Each has a scale-free twin in the specification, and
without them cells of other laboratories are judged better (docs/adr)."""


def scaling() -> dict[str, NDArray[np.float32]]:
    """Return how raw values are brought to about [-1, 1], by public ranges alone.

    Returns:
        low, high: valid range; log_scale: scale of the symlog, 0 = linear; center, half_width:
        of the transformed range; seen: 1, or 0 for masked features. Each float32, shape
        (n_features,).
    """
    low = np.array([feature.low for feature in FEATURES])
    high = np.array([feature.high for feature in FEATURES])
    scale = np.array([feature.log_scale or 0.0 for feature in FEATURES])

    def view(values: NDArray[np.float64]) -> NDArray[np.float64]:
        logged = np.sign(values) * np.log1p(np.abs(values) / np.where(scale > 0, scale, 1.0))
        return np.where(scale > 0, logged, values)

    center, half_width = (view(low) + view(high)) / 2, (view(high) - view(low)) / 2
    seen = np.array([feature.name not in MASKED for feature in FEATURES])
    named = {
        "low": low,
        "high": high,
        "log_scale": scale,
        "center": center,
        "half_width": half_width,
        "seen": seen,
    }
    return {name: values.astype(np.float32) for name, values in named.items()}
