"""Defects of noise, sum and claim, each a small substitution, that an audit must catch.

Each is a mistake that was made somewhere: a standard deviation read as a variance, a clipping that
a refactoring lost, a weighted mean, Flower's division by who answered, a backup played back, an
accountant that assumes what does not happen. Defects of who is invited lie in the privacy home.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..accountant import mu_of_participations
from ..events import EntryKind
from ..noise import ReleaseNoise
from ..policy import StreamPolicy
from .parts import AggregationParts, ReleasingStream

ROWS_OF_AN_UPDATE: Final = 100
"""Rows that a weighted mean counts as one."""


@dataclass(frozen=True, slots=True)
class ScaledNoise:
    """The noise of a stream, times a factor; calls itself what it is not."""

    real: ReleaseNoise
    factor: float

    @property
    def mechanism(self) -> str:
        """As of the real noise."""
        return self.real.mechanism

    @property
    def noise_multiplier(self) -> float:
        """As of the real noise."""
        return self.real.noise_multiplier

    @property
    def entry_kind(self) -> EntryKind:
        """As of the real noise."""
        return self.real.entry_kind

    def noise(self, index: int, size: int) -> NDArray[np.float64]:
        """The real noise of the step, times the factor."""
        return self.factor * self.real.noise(index, size)


class RestoredNoise:
    """The noise of a stream whose checkpoint is restored every few steps, as from a backup.

    Args:
        real: the stream's noise.
        every: steps after which the first of them is played again.
    """

    def __init__(self, real: ReleaseNoise, *, every: int) -> None:
        self._real, self._every = real, every
        self._given: list[NDArray[np.float64]] = []

    @property
    def mechanism(self) -> str:
        """As of the real noise."""
        return self._real.mechanism

    @property
    def noise_multiplier(self) -> float:
        """As of the real noise."""
        return self._real.noise_multiplier

    @property
    def entry_kind(self) -> EntryKind:
        """As of the real noise."""
        return self._real.entry_kind

    def noise(self, index: int, size: int) -> NDArray[np.float64]:
        """Noise of the step's place after the last restoring."""
        while len(self._given) <= index % self._every:
            self._given.append(self._real.noise(len(self._given), size))
        return self._given[index % self._every]


def half_the_noise(parts: AggregationParts) -> AggregationParts:
    """σ/2 where σ is claimed."""
    return replace(
        parts, open_noise=lambda policy: ScaledNoise(parts.open_noise(policy), factor=0.5)
    )


def no_clipping(parts: AggregationParts) -> AggregationParts:
    """An update goes into the sum as long as it came."""

    def untouched(update: NDArray[np.float64], *, clipping_norm: float) -> NDArray[np.float64]:
        del clipping_norm
        return update

    return replace(parts, clip=untouched)


def data_dependent_weights(parts: AggregationParts) -> AggregationParts:
    """An update counts by the device's number of rows, as in a weighted mean."""
    return replace(parts, weigh=lambda num_rows: max(1, num_rows // ROWS_OF_AN_UPDATE))


def dropout_without_compensation(parts: AggregationParts) -> AggregationParts:
    """The sum is divided by who answered, the noise by who was invited."""

    def release(
        stream: ReleasingStream, *, num_invited: int, num_replied: int
    ) -> NDArray[np.float64]:
        share, real = num_replied / num_invited, stream.noise
        stream.noise = ScaledNoise(real, factor=share)
        try:
            mean = parts.release(stream, num_invited=num_invited, num_replied=num_replied)
        finally:
            stream.noise = real
        return mean / share

    return replace(parts, release=release)


def reused_noise(parts: AggregationParts) -> AggregationParts:
    """After half of the steps the noise begins anew, with other updates under it."""
    return replace(
        parts,
        open_noise=lambda policy: RestoredNoise(
            parts.open_noise(policy), every=policy.num_rounds // 2
        ),
    )


def put_back_folder(parts: AggregationParts) -> AggregationParts:
    """Folder and home are put back, and noise belongs to a sum alone, not to its one commit.

    Where both lives commit an equal sum (zeros: devices refuse what they debited), both noises are
    one, and the recursion of correlated noise lays open how earlier steps differ.
    """
    return replace(parts, is_put_back=True, draw_nonce=lambda: "")


def fixed_schedule_claimed_as_poisson(parts: AggregationParts) -> AggregationParts:
    """The claim assumes amplification by Poisson sampling; the schedule is fixed.

    The claim that such an accountant would make of k of T steps: μ = q √(T (e^{1/σ²} − 1)) with
    q = k/T (Bu, Dong, Long, Su 2020, "Deep learning with Gaussian differential privacy").
    """

    def claim(policy: StreamPolicy) -> float:
        rate = policy.privacy.max_participations / policy.num_rounds
        per_step = mu_of_participations(
            noise_multiplier=policy.privacy.noise_multiplier, participations=1
        )
        return rate * math.sqrt(policy.num_rounds * math.expm1(per_step**2))

    return replace(parts, claim=claim)


DEFECTS: Final[dict[str, Callable[[AggregationParts], AggregationParts]]] = {
    "half the noise": half_the_noise,
    "no clipping": no_clipping,
    "data-dependent weights": data_dependent_weights,
    "dropout without compensation": dropout_without_compensation,
    "reused noise": reused_noise,
    "folder put back": put_back_folder,
    "fixed schedule claimed as Poisson": fixed_schedule_claimed_as_poisson,
}
"""Every planted defect of noise, sum and claim by name, in the order of a report."""
