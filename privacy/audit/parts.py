"""The parts of an aggregation that privacy rests on, each replaceable by a broken one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..budget import ParticipationHistory
from ..clipping import UpdateGrid
from ..noise import ReleaseNoise
from ..policy import StreamPolicy


class Clip(Protocol):
    """Bounds one device's update, as `privacy.clip_update` does."""

    def __call__(self, update: NDArray[np.float64], *, clipping_norm: float) -> NDArray[np.float64]:
        """Return the bounded update, float64 of the same shape."""


class Admit(Protocol):
    """Decides whether a device may take part in a step."""

    def __call__(self, policy: StreamPolicy, history: ParticipationHistory, index: int) -> bool:
        """Return True if it may."""


class Release(Protocol):
    """Turns a sum into what a step releases."""

    def __call__(
        self,
        total: NDArray[np.int64],
        *,
        noise: NDArray[np.float64],
        num_invited: int,
        num_replied: int,
        grid: UpdateGrid,
    ) -> NDArray[np.float64]:
        """Return the released mean, float64, shape (n_weights,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationParts:
    """One aggregation, part by part; the honest one holds the parts that production runs.

    Attributes:
        clip: bounds one device's update.
        weigh: how often an update counts, by the number of the device's training rows.
        admit: whether a device may take part in a step; server's and device's rule together.
        open_noise: opens the noise of a new stream.
        release: noise and division.
        claim: μ that is claimed for a stream.
    """

    clip: Clip
    weigh: Callable[[int], int]
    admit: Admit
    open_noise: Callable[[StreamPolicy], ReleaseNoise]
    release: Release
    claim: Callable[[StreamPolicy], float]
