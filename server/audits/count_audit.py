"""Canaries through the real releases of counts: the bound on a reply, discrete noise, accountant.

Each canary answers on a coordinate of its own with as much as a reply of one device may hold, and
with more, which must be refused and so be nothing. Coordinates have independent noise, so that one
release holds as many trials as it has coordinates, as with updates (`privacy.audit.canaries`).
Discrete noise is charged above its cost where it is small, so the bound lies further below the
claim than for updates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from privacy import CountChannel, OperatingSystemNoise
from privacy.accountant import mu_of_releases
from privacy.audit.bounds import mu_lower_bound
from privacy.counts import count_release, noised, sum_is_possible

from .canary_audit import ALPHA

if TYPE_CHECKING:
    from collections.abc import Callable

    from privacy import NoiseSource
    from privacy.audit.bounds import MuBound
    from privacy.counts import NoisedCounts

ANSWERS: Final = 4
"""Releases to which each canary answers."""
SENSITIVITY_SQUARED: Final = 1
"""Bound on the squared norm of an answer; with it a canary may say 1."""
TRIED: Final = (1, 2, 5)
"""What a canary tries to say."""
_POLICY: Final = "0" * 64


def audited_channel(mu: float) -> CountChannel:
    """Return a channel that claims μ over all its answers."""
    noise_multiplier = math.sqrt(1 + ANSWERS / mu**2)
    return CountChannel(name="audit", noise_multiplier=noise_multiplier, max_answers=ANSWERS)


def audit_counts(
    channel: CountChannel,
    *,
    canaries: int,
    release: Callable[..., NoisedCounts] = noised,
    source: NoiseSource | None = None,
) -> tuple[MuBound, float]:
    """Run canaries through the releases of a channel.

    Args:
        channel: of a policy.
        canaries: number of trials.
        release: adds the noise; the real part, or a broken one.
        source: of coins and noise; the operating system's entropy unless given.

    Returns:
        A lower bound on μ, and what the accountant claims of the same releases.
    """
    source = source or OperatingSystemNoise()
    included = source.uniform(canaries) < 0.5
    said = max(answer for answer in TRIED if _is_taken(answer))
    total = included * np.int64(said)
    shown, events = np.zeros(canaries), []
    for index in range(channel.max_answers):
        events.append(
            count_release(
                channel,
                index=index,
                sensitivity_squared=SENSITIVITY_SQUARED,
                cohort_size=canaries,
                most_answers=index + 1,
                policy_digest=_POLICY,
            )
        )
        shown += release(
            total,
            channel,
            sensitivity_squared=SENSITIVITY_SQUARED,
            cohort_size=canaries,
            source=source,
        ).counts
    return mu_lower_bound(shown, included, alpha=ALPHA), mu_of_releases(events)


def _is_taken(answer: int) -> bool:
    """Whether the server takes an answer as one device's."""
    return sum_is_possible(
        np.array([answer], np.int64), num_devices=1, sensitivity_squared=SENSITIVITY_SQUARED
    )
