"""Bands: the only form in which a figure of one device leaves it.

Lower edges belong to the band they open: 7.0 days is `7_to_30`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from enum import StrEnum
from typing import TypeVar

from ..prediction import ACTION_EDGES_DAYS

PROBABILITY_EDGES = (0.01, 0.05, 0.2, 0.5, 0.8)
HEALTH_EDGES = (0.7, 0.8, 0.9)
DAYS_EDGES = ACTION_EDGES_DAYS


class ProbabilityBand(StrEnum):
    """Probability of a failure within 30 days, percent."""

    UNDER_1 = "under_1_pct"
    FROM_1_TO_5 = "1_to_5_pct"
    FROM_5_TO_20 = "5_to_20_pct"
    FROM_20_TO_50 = "20_to_50_pct"
    FROM_50_TO_80 = "50_to_80_pct"
    FROM_80 = "80_pct_or_more"


class HealthBand(StrEnum):
    """Current capacity, percent of design capacity."""

    UNDER_70 = "under_70_pct"
    FROM_70_TO_80 = "70_to_80_pct"
    FROM_80_TO_90 = "80_to_90_pct"
    FROM_90 = "90_pct_or_more"


class DaysBand(StrEnum):
    """Estimated days to failure (median); the edges of A1's actions."""

    UNDER_7 = "under_7"
    FROM_7_TO_30 = "7_to_30"
    FROM_30_TO_90 = "30_to_90"
    FROM_90 = "90_or_more"


_Band = TypeVar("_Band", ProbabilityBand, HealthBand, DaysBand)


def probability_band(failure_probability_30d: float) -> ProbabilityBand:
    """Return the band of a probability between 0 and 1."""
    return _band(ProbabilityBand, PROBABILITY_EDGES, failure_probability_30d, high=1.0)


def health_band(state_of_health: float) -> HealthBand:
    """Return the band of a state of health (fraction of design capacity; may exceed 1)."""
    return _band(HealthBand, HEALTH_EDGES, state_of_health, high=math.inf)


def days_band(days_to_failure_p50: float) -> DaysBand:
    """Return the band of an estimate in days."""
    return _band(DaysBand, DAYS_EDGES, days_to_failure_p50, high=math.inf)


def least_days(band: DaysBand) -> float:
    """Return the lower edge of a band, days."""
    return (0.0, *DAYS_EDGES)[tuple(DaysBand).index(band)]


def _band(bands: type[_Band], edges: tuple[float, ...], value: float, *, high: float) -> _Band:
    if not 0.0 <= value <= high:
        raise ValueError(f"a figure for {bands.__name__} must lie in 0 to {high}, got {value}")
    return tuple(bands)[bisect_right(edges, value)]
