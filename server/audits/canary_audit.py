"""What canaries in real streams show, held against what is claimed.

`honest_parts` names the parts that production runs; an audit of it says something about them, and
an audit with one part replaced says whether the audit would have seen the defect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from privacy import OperatingSystemNoise, RecordPolicy, StreamPolicy
from privacy.accountant import gaussian_epsilon
from privacy.audit.bounds import mu_lower_bound
from privacy.audit.canaries import (
    canary_scores,
    correlation_bound,
    greatest_correlation,
    residuals,
)
from privacy.audit.one_run import one_run_bound
from privacy.banded_factor import band_coefficients
from privacy.policy import policy_for

from .canary_streams import num_beyond_rules, run_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from privacy import NoiseSource
    from privacy.audit.bounds import MuBound
    from privacy.audit.one_run import OneRunBound
    from privacy.audit.parts import AggregationParts

    from .canary_streams import AuditedStream

ALPHA: Final = 1e-3
"""Probability with which a bound on μ or ε may lie above the truth."""
NOISE_ALPHA: Final = 1e-6
"""Probability with which the noise of an honest stream may look reused, or too small."""
DELTA: Final = 1e-5
"""δ at which the one-run audit and the policies of an audit are stated."""
NUM_STREAMS: Final = 2
"""Streams over which the canaries are spread, each with a home and a key of its own."""

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
        beyond_rules: participations to which the home let a canary be invited against the rules.
        broken_off: why a stream ended before its last step; empty where none did.
    """

    claim: float
    bound: MuBound
    one_run: OneRunBound
    claimed_epsilon: float
    correlation: float
    correlation_bound: float
    noise_ratio: float
    noise_ratio_bound: float
    beyond_rules: int
    broken_off: str

    @property
    def excess(self) -> float:
        """Lower bound over claim; above 1 the claim is refuted."""
        return self.bound.mu / self.claim

    @property
    def reuse(self) -> float:
        """Correlation over its bound; above 1 noise was used twice."""
        return self.correlation / self.correlation_bound


def audited_policy(
    mu: float,
    *,
    cohort_size: int,
    num_rounds: int = 24,
    max_participations: int = 4,
    separation: int = 3,
    target_quantile: float | None = None,
) -> StreamPolicy:
    """Return a policy that claims μ, with bands as wide as the separation.

    Args:
        mu: μ of one device over all its participations.
        cohort_size: n.
        num_rounds: T; more than k·b, so that a cap that is ignored shows.
        max_participations: k.
        separation: b, and p.
        target_quantile: γ of a clipping norm that adapts; None keeps C.
    """
    privacy = policy_for(
        epsilon=gaussian_epsilon(mu=mu, delta=DELTA),
        delta=DELTA,
        max_participations=max_participations,
        clipping_norm=0.3,
        min_separation=separation,
        min_cohort_size=cohort_size,
        bands=separation,
        target_quantile=target_quantile,
    )
    return StreamPolicy(
        stream="audit",
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        privacy=privacy,
        record=NO_RECORD_NOISE,
    )


def audit_stream(
    policy: StreamPolicy,
    parts: AggregationParts,
    *,
    canaries: int,
    coins: NoiseSource | None = None,
) -> CanaryFinding:
    """Run canaries under a policy and bound what they show.

    Args:
        policy: its cohort is replaced by that of an audit.
        parts: real or broken.
        canaries: number of canaries over all streams.
        coins: of the canaries; the operating system's entropy unless given.
    """
    coins = coins or OperatingSystemNoise()
    width = canaries // NUM_STREAMS
    streams = [
        run_stream(
            replace(policy, stream=f"{policy.stream}-{number}"),
            parts,
            canaries=width,
            coins=coins,
        )
        for number in range(NUM_STREAMS)
    ]
    runs = [stream.run for stream in streams]
    factor = band_coefficients(policy.privacy.bands)
    scores = np.concatenate([canary_scores(run, factor) for run in runs])
    included = np.concatenate([run.included for run in runs])
    noise = np.concatenate([residuals(run, factor) for run in runs] + _forgotten(streams, factor))
    claim = min([parts.claim(policy), *(s.claim for s in streams if not s.broken_off)])
    deviations = -NormalDist().inv_cdf(NOISE_ALPHA)
    return CanaryFinding(
        claim=claim,
        bound=mu_lower_bound(scores, included, alpha=ALPHA),
        one_run=one_run_bound(scores, included, delta=DELTA, alpha=ALPHA),
        claimed_epsilon=gaussian_epsilon(mu=claim, delta=DELTA),
        correlation=greatest_correlation(noise) if len(noise) > 1 else 0.0,
        correlation_bound=correlation_bound(rows=max(2, len(noise)), size=width, alpha=NOISE_ALPHA),
        noise_ratio=_root_mean_square(noise) / policy.privacy.noise_multiplier,
        noise_ratio_bound=1 - deviations / math.sqrt(2 * max(1, noise.size)),
        beyond_rules=max(num_beyond_rules(policy, stream.invited) for stream in streams),
        broken_off=next((s.broken_off for s in streams if s.broken_off), ""),
    )


def _forgotten(
    streams: Sequence[AuditedStream], factor: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Return the noise of the steps that were played twice, as they were released at first."""
    return [
        residuals(stream.forgotten, factor)[stream.put_back_to :]
        for stream in streams
        if stream.forgotten is not None
    ]


def _root_mean_square(noise: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(noise**2))) if noise.size else 0.0
