"""Sums of devices' answers to a count, with noise: what is released, and how releases are pooled.

Each answer is a vector of whole numbers whose ℓ2 norm is at most S = √`sensitivity_squared`, from
the public question. The sum over a cohort is exact; every coordinate gets discrete Gaussian noise
of variance σ²S² (Canonne, Kamath, Steinke 2020), where σ is the channel's `noise_multiplier`.
Replacing one device's answer by zeros moves the sum by at most S; what that costs is derived at
`privacy.discrete_accounting`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .discrete_gaussian import discrete_gaussian
from .events import CountRelease
from .noise import NoiseSource
from .policy import CountChannel, PrivacyPolicy

_GRID: Final = 256
"""σ²S² is rounded up to a multiple of 1/256: noise at least as promised, quick whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedCounts:
    """Counts as they leave the aggregation: nothing below holds what devices answered.

    Attributes:
        counts: float64, shape (m,), sums with noise; below 0 where noise outweighs them.
        noise_variance: of each.
        cohort_size: devices asked, in all releases together.
        releases: how many releases are added up here; a device may be in each of them.
    """

    counts: NDArray[np.float64]
    noise_variance: float
    cohort_size: int
    releases: int = 1


def noise_variance(channel: CountChannel, *, sensitivity_squared: int) -> Fraction:
    """σ²S², rounded up to the grid of the noise."""
    exact = Fraction(channel.noise_multiplier) ** 2 * sensitivity_squared
    return Fraction(-(-exact * _GRID // 1), _GRID)


def sum_is_possible(
    total: NDArray[np.int64], *, num_devices: int, sensitivity_squared: int
) -> bool:
    """Whether a sum can come from that many answers of zeros and at most S² ones.

    Then no m devices behind one node move the release by more than m answers do.

    Args:
        total: int64, shape (m,).
        num_devices: in the sum.
        sensitivity_squared: S².
    """
    if len(total) == 0:
        return num_devices >= 0
    if int(total.min()) < 0 or int(total.max()) > num_devices:
        return False
    return int(total.sum(dtype=object)) <= num_devices * sensitivity_squared


def count_release(
    channel: CountChannel,
    *,
    index: int,
    sensitivity_squared: int,
    cohort_size: int,
    most_answers: int,
    policy_digest: str,
    privacy: PrivacyPolicy | None = None,
) -> CountRelease:
    """The ledger's event of a release: make it durable, then draw the noise.

    Args:
        channel: Of the policy.
        index: Which release of the channel.
        sensitivity_squared: S² of the question.
        cohort_size: Devices asked.
        most_answers: Greatest number of releases that any one device was asked for.
        policy_digest: Of the signed policy.
        privacy: Its limits, for the ledger to keep; None where nothing is kept.

    Raises:
        ValueError: A device would have been asked more often than the channel allows.
    """
    if most_answers > channel.max_answers:
        raise ValueError(
            f"channel {channel.name!r} may ask a device {channel.max_answers} times, "
            f"this would be its {most_answers}th"
        )
    return CountRelease(
        channel=channel.name,
        index=index,
        noise_multiplier=channel.noise_multiplier,
        sensitivity=float(np.sqrt(sensitivity_squared)),
        cohort_size=cohort_size,
        most_answers=most_answers,
        policy_digest=policy_digest,
        held_out=channel.held_out,
        epsilon=None if privacy is None else privacy.epsilon,
        delta=None if privacy is None else privacy.delta,
        update_share=None if privacy is None else privacy.update_share,
        max_participations=None if privacy is None else privacy.max_participations,
    )


def noised(
    total: NDArray[np.int64],
    channel: CountChannel,
    *,
    sensitivity_squared: int,
    cohort_size: int,
    source: NoiseSource,
) -> NoisedCounts:
    """Draw the noise of one release and add it; once for each total, after the ledger's entry.

    Args:
        total: exact sum of the answers, int64, shape (m,).
        channel: of the policy.
        sensitivity_squared: S² of the question.
        cohort_size: devices asked.
        source: of the noise.
    """
    variance = noise_variance(channel, sensitivity_squared=sensitivity_squared)
    noise = discrete_gaussian(variance, len(total), source)
    return NoisedCounts(
        counts=(total + noise).astype(np.float64),
        noise_variance=float(variance),
        cohort_size=cohort_size,
    )


def pooled(releases: Sequence[NoisedCounts]) -> NoisedCounts:
    """Add releases of one question at several moments up; counts and noise add up alike.

    Raises:
        ValueError: There is none, or they do not have one shape.
    """
    if not releases or len({one.counts.shape for one in releases}) != 1:
        raise ValueError("releases must be at least one, all of one shape")
    return NoisedCounts(
        counts=np.sum([one.counts for one in releases], axis=0),
        noise_variance=sum(one.noise_variance for one in releases),
        cohort_size=sum(one.cohort_size for one in releases),
        releases=sum(one.releases for one in releases),
    )
