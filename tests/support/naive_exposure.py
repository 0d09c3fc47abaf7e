"""Exposure to the hazard bins once more, by a loop."""

from __future__ import annotations

from itertools import pairwise

from models.hazard_bins import EDGES_DAYS, NUM_BINS


def naive_exposure(days: float, event: bool) -> tuple[list[float], int]:
    """Return the share of each bin spent at risk, and the bin of the failure or -1."""
    share, event_bin = [0.0] * NUM_BINS, -1
    for number, (low, high) in enumerate(pairwise(EDGES_DAYS)):
        if event and low < days <= high:
            event_bin = number
        elif days > low:
            share[number] = min((days - low) / (high - low), 1.0)
    return share, event_bin
