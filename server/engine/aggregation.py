"""From replies to one mean update: each reply is judged alone, sums are exact, n is fixed before.

A reply that is missing, late or refused is a zero update. The divisor is the number of invited
devices, never the number that answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.wire.rounds import Contribution, RoundTask
    from privacy import UpdateGrid
    from privacy.clipping import StepGrid


class ReplyRefusal(StrEnum):
    """Why a reply counts as zero."""

    FAILED = "failed"
    MALFORMED = "malformed"
    UNASKED = "unasked"
    DUPLICATE = "duplicate"
    LATE = "late"
    WRONG_STREAM = "wrong_stream"
    WRONG_STEP = "wrong_step"
    WRONG_SHAPE = "wrong_shape"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    TOO_MANY_DEVICES = "too_many_devices"
    BEYOND_BOUND = "beyond_bound"


def reply_refusal(
    total: NDArray[np.generic],
    contribution: Contribution,
    *,
    task: RoundTask,
    num_weights: int,
    grid: StepGrid,
) -> ReplyRefusal | None:
    """Judge one reply against the task it answers.

    A block of m devices can move the sum by at most m·C in norm, so a hostile node can do no more
    than the devices that were invited behind it.

    Args:
        total: the reply's array, as it came.
        contribution: what the reply says beside it.
        task: what the node was asked.
        num_weights: of the model.
        grid: of the stream.

    Returns:
        Why not, or None if it may be added.
    """
    if contribution.stream != task.stream:
        return ReplyRefusal.WRONG_STREAM
    if contribution.index != task.index:
        return ReplyRefusal.WRONG_STEP
    if not 0 <= contribution.num_devices <= len(task.device_ids):
        return ReplyRefusal.TOO_MANY_DEVICES
    if total.dtype != np.int64:
        return ReplyRefusal.WRONG_TYPE if _is_finite(total) else ReplyRefusal.NOT_FINITE
    if total.shape != (grid.size(num_weights),):
        return ReplyRefusal.WRONG_SHAPE
    if not grid.sum_is_possible(total.astype(np.int64), num_devices=contribution.num_devices):
        return ReplyRefusal.BEYOND_BOUND
    return None


def _is_finite(total: NDArray[np.generic]) -> bool:
    """Whether an array that is no sum of integers holds numbers at least."""
    return total.dtype.kind not in "fc" or bool(np.isfinite(total).all())


@dataclass(slots=True)
class CohortSum:
    """The running sum of one step; its memory does not depend on the cohort.

    Attributes:
        total: int64, shape (n_weights,), on the grid.
        num_replied: devices whose updates are in it.
        refused: how many replies were refused, by reason.
    """

    total: NDArray[np.int64]
    num_replied: int
    refused: dict[ReplyRefusal, int]

    @staticmethod
    def empty(size: int) -> CohortSum:
        """Return the sum of nothing, with so many entries."""
        return CohortSum(total=np.zeros(size, np.int64), num_replied=0, refused={})

    def add(self, total: NDArray[np.int64], *, num_devices: int) -> None:
        """Add one reply that was found good."""
        self.total += total
        self.num_replied += num_devices

    def refuse(self, reason: ReplyRefusal) -> None:
        """Count one reply as zero."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def mean_update(
    total: NDArray[np.int64],
    *,
    noise: NDArray[np.float64],
    num_invited: int,
    grid: UpdateGrid,
) -> NDArray[np.float64]:
    """Release (Σ u_i + z) / n.

    Args:
        total: Σ u_i on the grid, int64, shape (n_weights,).
        noise: z in the update's unit, float64, shape (n_weights,), std σC.
        num_invited: n, fixed before any device answered.
        grid: of the stream.

    Returns:
        float64, shape (n_weights,).
    """
    return grid.restore(total + grid.round_noise(noise)) / num_invited
