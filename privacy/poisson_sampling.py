"""Poisson sampling of training rows, with a public rate and a public number of steps.

Each row enters each step independently with the same probability, which is what the record-level
accountant assumes. Fixed-size batches, shuffled epochs and a rate derived from the private number
of rows would not be covered by its figure, so they are not offered.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .noise import NoiseSource


def poisson_batches(
    num_rows: int, *, sampling_rate: float, steps: int, source: NoiseSource
) -> Iterator[NDArray[np.int64]]:
    """Draw the rows of each step.

    Args:
        num_rows: Number of training rows; private, so nothing else may depend on it.
        sampling_rate: Probability that a row enters a step, in (0, 1].
        steps: Number of steps.
        source: Where the coins come from.

    Yields:
        int64, shape (batch,): ascending row numbers; a batch may be empty.

    Raises:
        ValueError: A parameter is out of bounds.
    """
    if not 0.0 < sampling_rate <= 1.0:
        raise ValueError(f"sampling_rate must lie in (0, 1], got {sampling_rate}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for _ in range(steps):
        yield np.flatnonzero(source.uniform(num_rows) < sampling_rate)
