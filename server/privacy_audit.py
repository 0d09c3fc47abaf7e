"""The audit of the real aggregation code: what it reveals, held against what is claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from privacy import UpdateGrid, clip_update
from privacy.audit.findings import AuditCheck, Held

from .aggregation import CohortSum, mean_update

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HOSTILE_SIZES = (1e-300, 1e-3, 1.0, 1.0 + 1e-12, 1e6, 1e300, np.inf, np.nan)


def sensitivity_check(*, clipping_norm: float = 0.3, num_weights: int = 2_000) -> AuditCheck:
    """Move one device between its worst updates and absence, and measure what it moves.

    The device's update goes through clipping, grid, sum and division, and the divisor must not
    follow it. What is compared are two releases without noise.
    """
    grid = UpdateGrid(clipping_norm=clipping_norm)
    shape = np.linspace(-1.0, 1.0, num_weights)
    background = grid.quantise(clip_update(shape[::-1] * 7, clipping_norm=clipping_norm))
    without = _released([background], grid=grid, num_invited=2)
    moved = [
        np.linalg.norm(
            _released(
                [background, grid.quantise(clip_update(shape * size, clipping_norm=clipping_norm))],
                grid=grid,
                num_invited=2,
            )
            - without
        )
        for size in _HOSTILE_SIZES
    ]
    return AuditCheck(
        name="sensitivity of a release",
        value=float(max(moved)) * 2 / clipping_norm,
        bound=1.0,
        held=Held.AT_MOST,
        note="most that one device moves the sum, in C: tiny, long, infinite and NaN updates",
    )


def run_audit() -> tuple[AuditCheck, ...]:
    """Run every check."""
    return (sensitivity_check(),)


def _released(
    updates: list[NDArray[np.int64]], *, grid: UpdateGrid, num_invited: int
) -> NDArray[np.float64]:
    cohort_sum = CohortSum.empty(len(updates[0]))
    for update in updates:
        cohort_sum.add(update, num_devices=1)
    silence = np.zeros(len(updates[0]))
    return mean_update(cohort_sum.total, noise=silence, num_invited=num_invited, grid=grid)
