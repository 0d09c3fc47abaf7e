"""Canaries through the real aggregation: clip, grid, sum, admission, stream noise, division.

`honest_parts` names the parts that production runs; an audit of it says something about them, and
an audit with one part replaced says whether the audit would have seen the defect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from privacy import (
    CorrelatedRelease,
    OperatingSystemNoise,
    RecordPolicy,
    StreamPolicy,
    UpdateGrid,
    clip_update,
)
from privacy.accountant import gaussian_epsilon, mu_of_releases
from privacy.audit.bounds import mu_lower_bound
from privacy.audit.canaries import (
    CanaryRun,
    canary_scores,
    correlation_bound,
    greatest_correlation,
    residuals,
)
from privacy.audit.one_run import one_run_bound
from privacy.audit.parts import AggregationParts
from privacy.banded_factor import band_coefficients
from privacy.budget import ParticipationHistory, StepOffer, step_refusal
from privacy.policy import policy_for
from privacy.streams import CorrelatedNoise, new_stream_key

from ..aggregation import CohortSum, mean_update
from ..cohorts import CohortHistory, Schedule, select_cohort

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from privacy import NoiseSource, ReleaseNoise
    from privacy.audit.bounds import MuBound
    from privacy.audit.one_run import OneRunBound

ALPHA: Final = 1e-3
"""Probability with which a bound on μ or ε may lie above the truth."""
NOISE_ALPHA: Final = 1e-6
"""Probability with which the noise of an honest stream may look reused, or too small."""
DELTA: Final = 1e-5
"""δ at which the one-run audit and the policies of an audit are stated."""
MOST_STREAMS: Final = 10
"""Streams over which the canaries are spread at most, each with a key of its own."""
MOST_STEPS: Final = 2_000
"""Steps of all streams together whose noise is compared pair by pair, unless one has more."""
CANARY_LENGTH: Final = 10.0
"""Length of a canary's update in C before it is clipped."""
CANARY_ROWS: Final = 365
"""Training rows of a canary, the most that a device can have in a year."""

NO_RECORD_NOISE: Final = RecordPolicy(
    noise_multiplier=0.0, max_grad_norm=1.0, sampling_rate=1.0, steps=1, least_rows=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryFinding:
    """What canaries show of one mechanism.

    Attributes:
        claim: μ that is claimed.
        bound: lower bound on μ by Dirac canaries.
        one_run: lower bound on ε by the coins of one run.
        claimed_epsilon: ε that the claim comes to at the δ of `one_run`.
        correlation: greatest |cosine| between the noise of two steps, of one stream or two.
        correlation_bound: what independent noise stays below.
        noise_ratio: standard deviation of the noise over the claimed one.
        noise_ratio_bound: what the claimed noise stays above.
    """

    claim: float
    bound: MuBound
    one_run: OneRunBound
    claimed_epsilon: float
    correlation: float
    correlation_bound: float
    noise_ratio: float
    noise_ratio_bound: float

    @property
    def excess(self) -> float:
        """Lower bound over claim; above 1 the claim is refuted."""
        return self.bound.mu / self.claim

    @property
    def reuse(self) -> float:
        """Correlation over its bound; above 1 noise was used twice."""
        return self.correlation / self.correlation_bound


def honest_parts() -> AggregationParts:
    """Return the parts that production runs."""
    return AggregationParts(
        clip=clip_update,
        weigh=lambda _num_rows: 1,
        admit=_admit,
        open_noise=_open_noise,
        release=_release,
        claim=_claim,
    )


def audited_policy(
    mu: float,
    *,
    cohort_size: int,
    num_rounds: int = 24,
    max_participations: int = 4,
    separation: int = 3,
) -> StreamPolicy:
    """Return a policy that claims μ, with bands as wide as the separation.

    Args:
        mu: μ of one device over all its participations.
        cohort_size: n.
        num_rounds: T; more than k·b, so that a cap that is ignored shows.
        max_participations: k.
        separation: b, and p.
    """
    privacy = policy_for(
        epsilon=gaussian_epsilon(mu=mu, delta=DELTA),
        delta=DELTA,
        max_participations=max_participations,
        clipping_norm=0.3,
        min_separation=separation,
        min_cohort_size=cohort_size,
        bands=separation,
    )
    return StreamPolicy(
        stream="audit",
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        privacy=privacy,
        record=NO_RECORD_NOISE,
    )


def run_stream(
    policy: StreamPolicy, parts: AggregationParts, *, canaries: int, coins: NoiseSource
) -> CanaryRun:
    """Run one stream to its end, with a canary on each coordinate and a hostile scheduler.

    The scheduler offers every step to every canary; server and device admit what their rules allow.
    A canary whose coin says "out" sends zeros. Of the invited devices, half never answer.

    Args:
        policy: of the stream; its cohort is twice the canaries.
        parts: real or broken.
        canaries: number of canaries, and width of the stream.
        coins: of the canaries.
    """
    grid = UpdateGrid(clipping_norm=policy.privacy.clipping_norm)
    included = coins.uniform(canaries) < 0.5
    updates = [_canary_update(int(j), canaries, parts, grid) for j in np.flatnonzero(included)]
    noise = parts.open_noise(policy)
    history = ParticipationHistory()
    releases = np.empty((policy.num_rounds, canaries))
    admitted = np.zeros(policy.num_rounds, dtype=bool)
    for index in range(policy.num_rounds):
        admitted[index] = parts.admit(policy, history, index)
        cohort_sum = CohortSum.empty(canaries)
        if admitted[index]:
            history = history.after(index, noise_multiplier=policy.privacy.noise_multiplier)
            for update in updates:
                cohort_sum.add(update, num_devices=1)
        mean = parts.release(
            cohort_sum.total,
            noise=noise.noise(index, canaries),
            num_invited=policy.cohort_size,
            num_replied=canaries,
            grid=grid,
        )
        releases[index] = mean * policy.cohort_size / grid.clipping_norm
    return CanaryRun(releases=releases, included=included, admitted=admitted)


def audit_stream(
    policy: StreamPolicy,
    parts: AggregationParts,
    *,
    canaries: int,
    coins: NoiseSource | None = None,
) -> CanaryFinding:
    """Run canaries under a policy and bound what they show.

    Args:
        policy: its cohort size is replaced by one that fits the canaries.
        parts: real or broken.
        canaries: number of canaries over all streams.
        coins: of the canaries; the operating system's entropy unless given.
    """
    coins = coins or OperatingSystemNoise()
    num_streams = max(1, min(MOST_STREAMS, MOST_STEPS // policy.num_rounds))
    width = canaries // num_streams
    policy = _with_cohort(policy, 2 * width)
    runs = [
        run_stream(
            replace(policy, stream=f"{policy.stream}-{number}"),
            parts,
            canaries=width,
            coins=coins,
        )
        for number in range(num_streams)
    ]
    factor = band_coefficients(policy.privacy.bands)
    scores = np.concatenate([canary_scores(run, factor) for run in runs])
    included = np.concatenate([run.included for run in runs])
    noise = np.concatenate([residuals(run, factor) for run in runs])
    claim = parts.claim(policy)
    deviations = -NormalDist().inv_cdf(NOISE_ALPHA)
    return CanaryFinding(
        claim=claim,
        bound=mu_lower_bound(scores, included, alpha=ALPHA),
        one_run=one_run_bound(scores, included, delta=DELTA, alpha=ALPHA),
        claimed_epsilon=gaussian_epsilon(mu=claim, delta=DELTA),
        correlation=greatest_correlation(noise),
        correlation_bound=correlation_bound(rows=len(noise), size=width, alpha=NOISE_ALPHA),
        noise_ratio=float(np.sqrt(np.mean(noise**2))) / policy.privacy.noise_multiplier,
        noise_ratio_bound=1 - deviations / math.sqrt(2 * noise.size),
    )


def _with_cohort(policy: StreamPolicy, cohort_size: int) -> StreamPolicy:
    privacy = replace(policy.privacy, min_cohort_size=cohort_size)
    return replace(policy, cohort_size=cohort_size, privacy=privacy)


def _canary_update(
    coordinate: int, width: int, parts: AggregationParts, grid: UpdateGrid
) -> NDArray[np.int64]:
    raw = np.zeros(width)
    raw[coordinate] = CANARY_LENGTH * grid.clipping_norm
    clipped = parts.clip(raw, clipping_norm=grid.clipping_norm)
    return grid.quantise(clipped) * parts.weigh(CANARY_ROWS)


def _admit(policy: StreamPolicy, history: ParticipationHistory, index: int) -> bool:
    """Whether both the device's rule and the server's selection let a device take part."""
    offer = StepOffer(
        stream=policy.stream,
        index=index,
        clipping_norm=policy.privacy.clipping_norm,
        cohort_size=policy.cohort_size,
        record=policy.record,
    )
    if step_refusal(policy, offer=offer, history=history) is not None:
        return False
    counted = CohortHistory.empty(1)
    counted.participations[0] = history.participations
    if history.last_index is not None:
        counted.last_index[0] = history.last_index
    selected = select_cohort(
        np.arange(1),
        schedule=Schedule(population_size=1, cohort_size=1, num_rounds=policy.num_rounds),
        history=counted,
        index=index,
        max_participations=policy.privacy.max_participations,
        min_separation=policy.privacy.min_separation,
    )
    return len(selected) == 1


def _open_noise(policy: StreamPolicy) -> ReleaseNoise:
    return CorrelatedNoise(new_stream_key(), policy)


def _release(
    total: NDArray[np.int64],
    *,
    noise: NDArray[np.float64],
    num_invited: int,
    num_replied: int,
    grid: UpdateGrid,
) -> NDArray[np.float64]:
    del num_replied  # who answered decides nothing
    return mean_update(total, noise=noise, num_invited=num_invited, grid=grid)


def _claim(policy: StreamPolicy) -> float:
    """What the accountant derives from the entries of a stream that ran to its end."""
    privacy, digest = policy.privacy, policy.digest
    return mu_of_releases(
        CorrelatedRelease(
            stream=policy.stream,
            index=index,
            noise_multiplier=privacy.noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            cohort_size=policy.cohort_size,
            bands=privacy.bands,
            min_separation=privacy.min_separation,
            most_participations=min(
                index // privacy.min_separation + 1, privacy.max_participations
            ),
            policy_digest=digest,
        )
        for index in range(policy.num_rounds)
    )
