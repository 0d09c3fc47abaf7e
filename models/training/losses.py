"""Losses over training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..network_shape import CAUSE_WEIGHT, LEAST_HAZARD
from .network import cumulative_hazards

if TYPE_CHECKING:
    from .network import HazardNetwork

__all__ = ["CAUSE_WEIGHT", "LEAST_HAZARD", "Batch", "batch_loss", "row_losses"]

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""features (n, n_features), exposure (n, n_bins), event_bin (n,) int64, cause (n,) int64."""


def row_losses(hazard_logits: Tensor, cause_logits: Tensor, batch: Batch) -> Tensor:
    """Return each row's negative log-likelihood under censoring, shape (n,).

    −log L = Σ_j exposure_j h_j − [failed in bin e] log(1 − exp(−h_e)), h_j the cumulative hazard of
    bin j (grouped-time proportional hazards, Prentice and Gloeckler 1978, section 2), plus a
    cross-entropy of the cause where it is known.
    """
    _, exposure, event_bin, cause = batch
    hazards = cumulative_hazards(hazard_logits)
    survived = (exposure * hazards).sum(dim=1)
    failed = event_bin >= 0
    at_failure = hazards.gather(1, event_bin.clamp(min=0).unsqueeze(1)).squeeze(1)
    log_failed = torch.log(-torch.expm1(-at_failure) + LEAST_HAZARD)
    loss = survived - torch.where(failed, log_failed, 0.0)
    known = (cause >= 0) & failed
    cause_loss = nn.functional.cross_entropy(cause_logits, cause.clamp(min=0), reduction="none")
    return loss + CAUSE_WEIGHT * torch.where(known, cause_loss, 0.0)


def batch_loss(network: HazardNetwork, batch: Batch) -> Tensor:
    """Return the mean of `row_losses` over a batch."""
    hazard_logits, cause_logits = network(batch[0])
    return row_losses(hazard_logits, cause_logits, batch).mean()
