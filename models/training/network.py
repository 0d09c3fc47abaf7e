"""The battery network: raw features -> hazards over time and causes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..feature_spec import FEATURES
from ..hazard_bins import BASE_RATE_PER_DAY, LEAST_RATE_PER_DAY, NUM_BINS, WIDTHS_DAYS
from ..network_shape import HIDDEN_UNITS, MASKED, scaling
from ..telemetry import CAUSES

__all__ = ["HIDDEN_UNITS", "MASKED", "HazardNetwork", "cumulative_hazards", "scaling"]


class HazardNetwork(nn.Module):
    """Shared trunk over scaled values and missing flags; one head for hazards and causes.

    Scaling by public physical ranges is part of the network: nothing about the data is learnt
    outside the weights, and so outside the private path.
    """

    low: Tensor
    high: Tensor
    log_scale: Tensor
    center: Tensor
    half_width: Tensor
    seen: Tensor

    def __init__(self) -> None:
        """Create the layers with torch's default initialisation; the head starts at zero."""
        super().__init__()
        for name, values in scaling().items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        inputs = 2 * len(FEATURES)
        self.trunk = nn.Sequential(
            nn.Linear(inputs, HIDDEN_UNITS),
            nn.Tanh(),
            nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS),
            nn.Tanh(),
        )
        self.head = nn.Linear(HIDDEN_UNITS, NUM_BINS + len(CAUSES))
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def scaled(self, features: Tensor) -> Tensor:
        """Return values in about [-1, 1] and missing flags, shape (n, 2 n_features)."""
        missing = torch.isnan(features)
        values = torch.where(missing, self.low, features)
        values = torch.minimum(torch.maximum(values, self.low), self.high)
        scale = torch.where(self.log_scale > 0, self.log_scale, 1.0)
        logged = torch.sign(values) * torch.log(1.0 + torch.abs(values) / scale)
        values = torch.where(self.log_scale > 0, logged, values)
        values = (values - self.center) / self.half_width
        values = torch.where(missing, 0.0, values) * self.seen
        flags = missing.to(features.dtype) * self.seen
        return torch.cat([values, flags], dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits.

        Args:
            features: float32, shape (n, n_features), raw values, NaN = missing.

        Returns:
            Hazard logits, shape (n, n_bins), and cause logits, shape (n, n_causes).
        """
        return self.from_scaled(self.scaled(features))

    def from_scaled(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits from what `scaled` returns."""
        logits = self.head(self.trunk(scaled))
        return logits[:, :NUM_BINS], logits[:, NUM_BINS:]


def cumulative_hazards(hazard_logits: Tensor) -> Tensor:
    """Return each bin's cumulative hazard: softplus(logit + ln(width · base rate)) + floor.

    A bin is survived with probability exp(−h). Shape as given, (n, n_bins).
    """
    widths = torch.as_tensor(WIDTHS_DAYS, dtype=hazard_logits.dtype)
    offset = torch.log(widths * BASE_RATE_PER_DAY)
    return nn.functional.softplus(hazard_logits + offset) + LEAST_RATE_PER_DAY * widths
