"""The final outputs in torch: the reference for the ONNX graph."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..hazard_bins import EDGES_DAYS, WIDTHS_DAYS
from ..prediction import ACTION_EDGES_DAYS, HORIZON_DAYS, MAX_DAYS
from .network import cumulative_hazards

if TYPE_CHECKING:
    from ..calibration import Calibration
    from .network import HazardNetwork

QUANTILES = (0.1, 0.5, 0.9)


def bins_until(days: float) -> int:
    """Return how many hazard bins end at or before `days`, which must be an edge."""
    return EDGES_DAYS.index(int(days))


@torch.no_grad()
def final_outputs(
    network: HazardNetwork, calibration: Calibration, features: Tensor
) -> dict[str, Tensor]:
    """Compute what the bundle's graph gives out, by name, in float64 as the graph does.

    Returns:
        float32: failure_probability_30d (n,); days_to_failure (n, 3), p10, p50, p90;
        action_probabilities (n, 4), that the failure day lies in each action's band;
        cause_probabilities (n, 5).
    """
    logits, causes = copy.deepcopy(network).double()(features.double())
    hazards = cumulative_hazards(calibration.scale * logits + calibration.shift)
    total = torch.cumsum(hazards, dim=1)
    soon = total[:, bins_until(HORIZON_DAYS) - 1]
    at_edges = torch.stack([total[:, bins_until(edge) - 1] for edge in ACTION_EDGES_DAYS], dim=1)
    survival = torch.exp(-at_edges)
    whole = torch.ones(len(features), 1, dtype=hazards.dtype)
    steps = torch.cat([whole, survival, torch.zeros_like(whole)], dim=1)
    wanted = -torch.log1p(-torch.tensor(QUANTILES, dtype=hazards.dtype))
    before = total - hazards
    share = (wanted[None, :, None] - before[:, None, :]) / hazards[:, None, :]
    widths = torch.tensor(WIDTHS_DAYS, dtype=hazards.dtype)
    days = (share.clamp(0, 1) * widths).sum(dim=2)
    beyond = (wanted[None, :] - total[:, -1:]).clamp(min=0)
    days = days + beyond * float(widths[-1]) / hazards[:, -1:]
    outputs = {
        "failure_probability_30d": 1 - torch.exp(-soon),
        "days_to_failure": days.clamp(max=MAX_DAYS),
        "action_probabilities": steps[:, :-1] - steps[:, 1:],
        "cause_probabilities": torch.softmax(causes, dim=1),
    }
    return {name: values.float() for name, values in outputs.items()}


def numpy_outputs(
    network: HazardNetwork, calibration: Calibration, features: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `final_outputs` for and as NumPy arrays."""
    outputs = final_outputs(network, calibration, torch.from_numpy(np.ascontiguousarray(features)))
    return {name: tensor.numpy() for name, tensor in outputs.items()}
