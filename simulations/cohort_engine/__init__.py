"""Blocks of simulated devices trained together in batched matrix products."""

from .cohort_block import CohortBlock
from .fast_noise import FastSeededNoise
from .processes import CohortProcesses
from .training import CohortTraining

__all__ = ["CohortBlock", "CohortProcesses", "CohortTraining", "FastSeededNoise"]
