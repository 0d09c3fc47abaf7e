"""The parts of an aggregation that privacy rests on, each replaceable by a broken one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..noise import ReleaseNoise
from ..policy import StreamPolicy


class Clip(Protocol):
    """Bounds one device's update, as `privacy.clip_update` does."""

    def __call__(self, update: NDArray[np.float64], *, clipping_norm: float) -> NDArray[np.float64]:
        """Return the bounded update, float64 of the same shape."""


class ReleasingStream(Protocol):
    """What a release is made of: the stream at work, its sum committed and charged.

    Attributes:
        noise: Of the next step.
    """

    noise: ReleaseNoise

    def release(self) -> NDArray[np.float64]:
        """Return the released mean, float64, shape (n_weights,)."""


class Release(Protocol):
    """Turns the committed sum of a step into what the step releases."""

    def __call__(
        self, stream: ReleasingStream, *, num_invited: int, num_replied: int
    ) -> NDArray[np.float64]:
        """Return the released mean, float64, shape (n_weights,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationParts:
    """One aggregation, part by part; the honest one holds the parts that production runs.

    Attributes:
        clip: bounds one device's update.
        weigh: how often an update counts, by the number of the device's training rows.
        open_noise: opens the noise of a new stream.
        release: noise and division.
        counted: what happens to a privacy home, named by its folder, once it has counted a cohort.
        claim: μ that is claimed for a stream.
        draw_nonce: what makes the commit of a sum another than all others.
        is_put_back: whether the stream's folder and its home are put back in place between two
            steps, as from a hot backup, so that the steps since are played a second time.
    """

    clip: Clip
    weigh: Callable[[int], int]
    open_noise: Callable[[StreamPolicy], ReleaseNoise]
    release: Release
    counted: Callable[[Path], None]
    claim: Callable[[StreamPolicy], float]
    draw_nonce: Callable[[], str]
    is_put_back: bool = False
