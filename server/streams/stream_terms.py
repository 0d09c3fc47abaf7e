"""What is fixed for all steps of a stream: its constants, what a step costs, what is stored of it.

Three kinds of noise: correlated under a signed policy, which alone can be released; independent
Gaussian and none, both for comparison.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from privacy import CorrelatedRelease, GaussianRelease, IndependentGaussian, WithoutNoise
from privacy.streams import CorrelatedNoise, new_stream_key

from ..privacy_home.participation_counts import StepCost

if TYPE_CHECKING:
    from privacy import EntryKind, NoiseSource, PrivacyPolicy, ReleaseNoise, StreamPolicy
    from privacy.adaptive_clipping import AdaptiveClipping


class StreamKeys(Protocol):
    """Where the keys of streams come from, and the noise under them."""

    def new_key(self, policy: StreamPolicy) -> bytes:
        """Make the key of a new stream."""

    def noise(
        self, key: bytes, policy: StreamPolicy, *, next_index: int, size: int
    ) -> CorrelatedNoise:
        """Return the noise of a stream as it stands before step `next_index`."""


def bind_noise(noise: ReleaseNoise, index: int, digest: str) -> None:
    """Bind the noise of a step to the sum that it is to meet; independent noise needs no binding.

    Args:
        noise: of the stream.
        index: of the step.
        digest: of the committed sum, hexadecimal.
    """
    if isinstance(noise, CorrelatedNoise):
        noise.bind(index, bytes.fromhex(digest))


class OperatingSystemKeys:
    """Keys from the operating system's entropy: what every production path uses."""

    def new_key(self, policy: StreamPolicy) -> bytes:  # noqa: ARG002 - entropy knows no policy
        """Make a key of 256 bits."""
        return new_stream_key()

    def noise(
        self, key: bytes, policy: StreamPolicy, *, next_index: int, size: int
    ) -> CorrelatedNoise:
        """Return the noise of a stream as it stands before step `next_index`."""
        return CorrelatedNoise.resumed(key, policy, next_index, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """The constants of one stream.

    Attributes:
        stream: its name, never used twice.
        num_rounds: T, most steps.
        cohort_size: n, places of each step; the divisor.
        clipping_norm: C, bound on what one device sends: 1 where the norm adapts.
        privacy: σ, k, b and the budget; None without noise.
        policy: that devices are shown, where the noise is correlated; None for a comparison.
    """

    stream: str
    num_rounds: int
    cohort_size: int
    clipping_norm: float
    privacy: PrivacyPolicy | None
    policy: StreamPolicy | None

    @staticmethod
    def under(policy: StreamPolicy) -> StreamTerms:
        """Return the constants of a stream whose policy is known."""
        return StreamTerms(
            stream=policy.stream,
            num_rounds=policy.num_rounds,
            cohort_size=policy.cohort_size,
            clipping_norm=policy.privacy.clipping_norm,
            privacy=policy.privacy,
            policy=policy,
        )

    @property
    def is_comparison(self) -> bool:
        """Whether nothing of it is ever released."""
        return self.policy is None

    @property
    def policy_digest(self) -> str:
        """Of the policy; empty for a comparison."""
        return "" if self.policy is None else self.policy.digest

    @property
    def adaptive(self) -> AdaptiveClipping | None:
        """How the clipping norm moves; None where it is fixed."""
        return None if self.policy is None else self.policy.privacy.adaptive_clipping

    @property
    def least_invited(self) -> int:
        """Fewest of the n places of a step that must have a device; a comparison fills all."""
        return self.cohort_size if self.privacy is None else self.privacy.min_cohort_size

    @property
    def has_norm_bit(self) -> bool:
        """Whether devices send g/C_t and a bit."""
        return self.adaptive is not None

    @property
    def first_norm(self) -> float:
        """C of the first step."""
        return self.clipping_norm if self.adaptive is None else self.adaptive.initial_norm

    def size(self, num_weights: int) -> int:
        """Number of entries of a step's sum: the weights, and that of the bits."""
        return num_weights + self.has_norm_bit

    @property
    def cost(self) -> StepCost:
        """What an invitation to one step costs a device, and how far it may go in its life."""
        if self.privacy is None:
            return StepCost(mu_squared=math.inf)
        return StepCost(
            mu_squared=self.privacy.step_mu_squared,
            max_participations=self.privacy.max_participations,
            mu_squared_limit=self.privacy.mu_squared_limit,
            mu_squared_in_all=self.privacy.mu_squared_in_all,
            min_separation=self.privacy.min_separation,
        )

    def comparison_noise(self, source: NoiseSource) -> ReleaseNoise:
        """Return what a comparison adds: independent Gaussian under a budget, else nothing."""
        if self.privacy is None:
            return WithoutNoise()
        return IndependentGaussian(
            source,
            noise_multiplier=self.privacy.noise_multiplier,
            clipping_norm=self.clipping_norm,
        )

    def entry_kind(self, noise: ReleaseNoise) -> EntryKind:
        """How entries of its steps are stamped; a comparison is never a basis for a release."""
        if self.is_comparison and noise.entry_kind == "stream":
            return "comparison"
        return noise.entry_kind

    def event(
        self, index: int, *, noise: ReleaseNoise, most_participations: int, noise_only: bool
    ) -> CorrelatedRelease | GaussianRelease:
        """Return what the ledger holds of a step."""
        if self.policy is None:
            return GaussianRelease(
                stream=self.stream,
                index=index,
                mechanism=noise.mechanism,
                noise_multiplier=noise.noise_multiplier,
                clipping_norm=self.clipping_norm,
                cohort_size=self.cohort_size,
                most_participations=most_participations,
            )
        return CorrelatedRelease(
            stream=self.stream,
            index=index,
            noise_multiplier=noise.noise_multiplier,
            clipping_norm=self.clipping_norm,
            cohort_size=self.cohort_size,
            bands=self.policy.privacy.bands,
            min_separation=self.policy.privacy.min_separation,
            most_participations=most_participations,
            policy_digest=self.policy.digest,
            noise_only=noise_only,
            clip_noise_multiplier=self.policy.privacy.clip_noise_multiplier,
            epsilon=self.policy.privacy.epsilon,
            delta=self.policy.privacy.delta,
            update_share=self.policy.privacy.update_share,
            max_participations=self.policy.privacy.max_participations,
        )
