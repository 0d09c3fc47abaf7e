"""Calibration of the hazards: one scale and one shift of the logits, in the graph.

h_j = softplus(scale · z_j + shift + ln(width_j · base rate)): because it acts on the hazards, the
30-day probability, the quantiles of days and the confidence stay consistent with each other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Scale and shift of the hazard logits; the identity by default."""

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a scale that would turn the ranking round."""
        if not self.scale > 0:
            message = f"scale must be above 0, got {self.scale}"
            raise ValueError(message)
