"""Blocks of simulated devices trained together in batched matrix products."""

from .cohort_block import CohortBlock
from .fast_noise import FastSeededNoise
from .training import CohortTraining

__all__ = ["CohortBlock", "CohortTraining", "FastSeededNoise"]
