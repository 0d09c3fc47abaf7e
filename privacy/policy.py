"""The policy of a stream: the constants that its privacy figures rest on.

A policy travels signed, as canonical JSON; its digest names it. Whoever holds it can derive every
figure that is claimed from it. Changing a constant opens a new stream with a new policy.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .accountant import (
    gaussian_epsilon,
    mu_for,
    mu_of_participations,
    mu_squared_of_step,
    noise_multiplier_for,
)
from .adaptive_clipping import BITS_SHARE, REACH, AdaptiveClipping
from .canonical_json import canonical_json
from .discrete_accounting import mu_squared_of_count
from .policy_bounds import checked

SCHEMA_VERSION: Final = 1
GREATEST_DELTA: Final = 1e-5
"""Greatest δ of a policy that is made or obeyed today: with probability δ nothing is promised."""
GREATEST_EPSILON: Final = 20.0
"""Greatest ε of a policy that is planned, run with devices or obeyed by them: above it, whoever
guesses whether a device took part is all but certain to be right, and nothing is promised."""
GREATEST_STEPS: Final = 10_000
"""Most steps of training on a device that one participation may ask for."""
LEAST_COHORT_SHARE: Final = 0.8
"""Share of a cohort's n places that must have a device for a round to run, unless a policy says
otherwise. The divisor stays n: a place whose device has spent its life is left empty."""
USUAL_DELTA: Final = 1e-8
"""δ of the default policy. A device tells what it spent at this δ or a smaller one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPolicy:
    """The constants of a stream; changing one opens a new stream.

    Attributes:
        epsilon: ε_release of one device, over all that its history counts.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use; the rest is for everything else.
        noise_multiplier: σ, standard deviation of the noise on the sum over C.
        clipping_norm: C, bound on the ℓ2 norm of what one device sends: 1 where the norm adapts.
        max_participations: k, after which a device never contributes again.
        min_separation: b, least difference of index between two participations of a device.
        min_cohort_size: Least number of invited devices, of n places; a smaller round does not run.
        bands: p, bands of the noise's factor, at most b; 1 is independent noise.
        adaptive_clipping: How C_t moves, where devices send g/C_t and a bit; None for a fixed C.
    """

    epsilon: float
    delta: float
    update_share: float
    noise_multiplier: float
    clipping_norm: float
    max_participations: int
    min_separation: int
    min_cohort_size: int
    bands: int = 1
    adaptive_clipping: AdaptiveClipping | None = None

    def __post_init__(self) -> None:
        """Refuse constants that promise more than they keep."""
        if self.max_participations < 1:
            raise ValueError(
                f"max_participations must be at least 1, got {self.max_participations}"
            )
        if self.min_separation < 1:
            raise ValueError(f"min_separation must be at least 1, got {self.min_separation}")
        if self.min_cohort_size < 1:
            raise ValueError(f"min_cohort_size must be at least 1, got {self.min_cohort_size}")
        if not 1 <= self.bands <= self.min_separation:
            raise ValueError(
                f"bands must lie in 1..{self.min_separation} (the separation), got {self.bands}"
            )
        if not self.clipping_norm > 0:
            raise ValueError(f"clipping_norm must be greater than 0, got {self.clipping_norm}")
        if self.adaptive_clipping is not None and self.clipping_norm != 1.0:
            raise ValueError(
                f"clipping_norm must be 1 where the norm adapts, got {self.clipping_norm}"
            )
        least = noise_multiplier_for(
            epsilon=self.epsilon,
            delta=self.delta,
            participations=self.max_participations,
            share=self.update_share,
        )
        both = self.step_mu_squared**-0.5 if self.noise_multiplier > 0 else self.noise_multiplier
        if not both >= least * (1 - 1e-9):
            with_bits = "" if self.adaptive_clipping is None else " (with the noise on bits)"
            raise ValueError(
                f"noise_multiplier{with_bits} must be at least {least:.6g} for epsilon "
                f"{self.epsilon:g} at delta {self.delta:g} over {self.max_participations} "
                f"participations, got {both:.6g}"
            )

    @property
    def clip_noise_multiplier(self) -> float | None:
        """σ_b, noise on the sum of bits over their sensitivity ½; None for a fixed norm."""
        return None if self.adaptive_clipping is None else self.adaptive_clipping.noise_multiplier

    @property
    def step_mu_squared(self) -> float:
        """μ² of one participation: 1/σ², and 1/σ_b² where the norm adapts."""
        return mu_squared_of_step(
            noise_multiplier=self.noise_multiplier,
            clip_noise_multiplier=self.clip_noise_multiplier,
        )

    @property
    def first_norm(self) -> float:
        """C of a stream's first step."""
        adaptive = self.adaptive_clipping
        return self.clipping_norm if adaptive is None else adaptive.initial_norm

    @property
    def target_quantile(self) -> float | None:
        """γ, which the clipping norm follows; None for a fixed one."""
        return None if self.adaptive_clipping is None else self.adaptive_clipping.target_quantile

    def bears_norm(self, clipping_norm: float) -> bool:
        """Whether a step may be asked for at a norm: C itself, or any within the bounds of C_t."""
        if self.adaptive_clipping is None:
            return clipping_norm == self.clipping_norm
        return self.adaptive_clipping.bears(clipping_norm)

    @property
    def mu_squared_limit(self) -> float:
        """Part of μ² that one device's updates may use."""
        return float(self.update_share * mu_for(epsilon=self.epsilon, delta=self.delta) ** 2)

    @property
    def mu_squared_in_all(self) -> float:
        """μ²_max(ε, δ): what one device may spend in all; a held-out one, on counts alone."""
        return float(mu_for(epsilon=self.epsilon, delta=self.delta) ** 2)

    @property
    def mu_squared_for_counts(self) -> float:
        """Part of μ² that everything else of one device may use: metrics, counts, drift."""
        return float((1 - self.update_share) * mu_for(epsilon=self.epsilon, delta=self.delta) ** 2)

    def epsilon_after(self, participations: int) -> float:
        """ε at the policy's δ of a device that took part so many times."""
        mu = mu_of_participations(
            noise_multiplier=self.noise_multiplier,
            participations=participations,
            clip_noise_multiplier=self.clip_noise_multiplier,
        )
        return gaussian_epsilon(mu=mu, delta=self.delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChannel:
    """One kind of counts that devices answer in private: metrics, similar devices, drift.

    Attributes:
        name: Of the channel, such as `metrics`.
        noise_multiplier: σ over the ℓ2 sensitivity of one answer.
        max_answers: Most releases to which one device may ever answer.
        held_out: True where only devices that never train are asked, out of their whole μ²;
            False where only the others are, out of what updates leave.
    """

    name: str
    noise_multiplier: float
    max_answers: int
    held_out: bool = False

    def __post_init__(self) -> None:
        """Refuse a channel that promises nothing."""
        if not self.name:
            raise ValueError("name must not be empty")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ValueError(
                f"noise_multiplier must be finite and greater than 0, got {self.noise_multiplier}"
            )
        if self.max_answers < 1:
            raise ValueError(f"max_answers must be at least 1, got {self.max_answers}")

    @property
    def mu_squared(self) -> float:
        """The most that one device spends on this channel; infinite where σ is at most 1."""
        return self.max_answers * mu_squared_of_count(self.noise_multiplier)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPolicy:
    """Record-level DP-SGD on the device, as the stream prescribes it; every number is public.

    Attributes:
        noise_multiplier: σ_r over the per-row clipping norm; 0 switches it off.
        max_grad_norm: Bound on the ℓ2 norm of one row's gradient.
        sampling_rate: Probability with which each row enters a step.
        steps: Steps of one participation.
        least_rows: A device with fewer rows sends zeros.
    """

    noise_multiplier: float
    max_grad_norm: float
    sampling_rate: float
    steps: int
    least_rows: int

    def __post_init__(self) -> None:
        """Refuse constants that no device can train by."""
        if not self.noise_multiplier >= 0:
            raise ValueError(f"noise_multiplier must be at least 0, got {self.noise_multiplier}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be greater than 0, got {self.max_grad_norm}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate must lie in (0, 1], got {self.sampling_rate}")
        if not 1 <= self.steps <= GREATEST_STEPS:
            raise ValueError(f"steps must lie in 1..{GREATEST_STEPS}, got {self.steps}")


class RecordRecipe(Protocol):
    """What a recipe for the training on a device says of the training on rows."""

    @property
    def record_noise_multiplier(self) -> float:
        """σ_r."""

    @property
    def record_max_grad_norm(self) -> float:
        """Bound on the norm of one row's gradient."""

    @property
    def sampling_rate(self) -> float:
        """Probability with which each row enters a step."""

    @property
    def steps(self) -> int:
        """Steps of one participation."""

    @property
    def least_rows(self) -> int:
        """Rows below which a device sends zeros."""


def record_policy(recipe: RecordRecipe) -> RecordPolicy:
    """Return what a recipe says of the training on rows, as a policy says it."""
    return RecordPolicy(
        noise_multiplier=recipe.record_noise_multiplier,
        max_grad_norm=recipe.record_max_grad_norm,
        sampling_rate=recipe.sampling_rate,
        steps=recipe.steps,
        least_rows=recipe.least_rows,
    )


def least_cohort(cohort_size: int) -> int:
    """Return how many of n places must have a device, unless a policy says otherwise."""
    return max(1, math.ceil(LEAST_COHORT_SHARE * cohort_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """All constants of one stream of releases, as they are signed.

    Attributes:
        stream: Identifier of the stream; never used twice.
        num_rounds: T, number of steps that the stream has at most.
        cohort_size: n, devices invited to a step and divisor of its sum.
        privacy: ε, δ, σ, C, k, b, p, the least cohort and the share of updates.
        record: Of the training on each device.
        channels: Counts that may be asked of devices, out of what updates leave of the budget.
        max_devices_per_owner: Most devices of one owner in the stream, for whom μ grows alike.
        min_replies: Least devices that must answer a step; with fewer it is released as noise
            alone, and marked. Policies that say nothing of it have 1.
    """

    stream: str
    num_rounds: int
    cohort_size: int
    privacy: PrivacyPolicy
    record: RecordPolicy
    channels: tuple[CountChannel, ...] = ()
    max_devices_per_owner: int = 5
    min_replies: int = 1

    def __post_init__(self) -> None:
        """Refuse constants that contradict each other."""
        if not self.stream:
            raise ValueError("stream must not be empty")
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")
        if self.cohort_size < self.privacy.min_cohort_size:
            raise ValueError(
                f"cohort_size must be at least {self.privacy.min_cohort_size} (the policy's "
                f"least), got {self.cohort_size}"
            )
        if not 1 <= self.min_replies <= self.cohort_size:
            raise ValueError(
                f"min_replies must lie in 1..{self.cohort_size} (the cohort), "
                f"got {self.min_replies}"
            )
        if self.max_devices_per_owner < 1:
            raise ValueError(
                f"max_devices_per_owner must be at least 1, got {self.max_devices_per_owner}"
            )
        if len({channel.name for channel in self.channels}) != len(self.channels):
            raise ValueError("channels must not name one twice")
        for held_out, limit, whose in (
            (False, self.privacy.mu_squared_for_counts, "what updates leave"),
            (True, self.privacy.mu_squared_in_all, "of devices that never train"),
        ):
            spent = sum(c.mu_squared for c in self.channels if c.held_out is held_out)
            if spent > limit * (1 + 1e-9):
                raise ValueError(
                    f"channels may spend mu squared {limit:.6g} ({whose}), got {spent:.6g}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a JSON object."""
        fields = dataclasses.asdict(self)
        if self.privacy.adaptive_clipping is None:
            del fields["privacy"]["adaptive_clipping"]
        if self.min_replies == 1:
            del fields["min_replies"]
        fields["channels"] = [dataclasses.asdict(channel) for channel in self.channels]
        return {"schema_version": SCHEMA_VERSION, **fields}

    def to_bytes(self) -> bytes:
        """Return the bytes that are signed: canonical JSON."""
        return canonical_json(self.to_json()).encode("ascii")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal: the name under which ledgers hold it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "StreamPolicy":
        """Read a policy; an unknown constant is refused, for it may carry a figure.

        Raises:
            ValueError: A constant is missing, unknown, of the wrong type or out of bounds.
        """
        fields = dict(value)
        version = fields.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {version!r}")
        try:
            fields["privacy"] = _privacy_of(fields["privacy"])
            fields["record"] = RecordPolicy(**checked(RecordPolicy, fields["record"]))
            channels = fields.get("channels", ())
            fields["channels"] = tuple(
                CountChannel(**checked(CountChannel, channel)) for channel in channels
            )
            return StreamPolicy(**checked(StreamPolicy, fields))
        except (KeyError, TypeError, ArithmeticError) as error:
            raise ValueError(f"not a policy of a stream: {error}") from None


def policy_for(
    *,
    epsilon: float,
    delta: float,
    max_participations: int,
    clipping_norm: float,
    min_separation: int = 1,
    min_cohort_size: int = 1,
    update_share: float = 1.0,
    bands: int = 1,
    target_quantile: float | None = None,
) -> PrivacyPolicy:
    """The policy with the least σ that keeps (ε, δ) over k participations.

    Args:
        epsilon: ε_release of one device, over all that its history counts.
        delta: Its δ, at most 1e-5.
        max_participations: k.
        clipping_norm: C, or C_0 where the norm adapts.
        min_separation: b.
        min_cohort_size: Least number of invited devices.
        update_share: Part of μ² that updates may use, in (0, 1].
        bands: p, at most b; 1 is independent noise.
        target_quantile: γ, share of the updates that shall not be clipped, where the norm adapts:
            its bits then use `BITS_SHARE` of what updates may use. None fixes C.

    Returns:
        The policy.

    Raises:
        ValueError: An argument is out of bounds.
    """
    if not 0.0 < delta <= GREATEST_DELTA:
        raise ValueError(f"delta must lie in (0, {GREATEST_DELTA:g}], got {delta:g}")
    adaptive, share = None, update_share
    if target_quantile is not None:
        share = update_share * (1 - BITS_SHARE)
        adaptive = AdaptiveClipping(
            initial_norm=clipping_norm,
            noise_multiplier=noise_multiplier_for(
                epsilon=epsilon,
                delta=delta,
                participations=max_participations,
                share=update_share * BITS_SHARE,
            ),
            least_norm=clipping_norm / REACH,
            greatest_norm=clipping_norm * REACH,
            target_quantile=target_quantile,
        )
    sigma = noise_multiplier_for(
        epsilon=epsilon, delta=delta, participations=max_participations, share=share
    )
    return PrivacyPolicy(
        epsilon=epsilon,
        delta=delta,
        update_share=update_share,
        noise_multiplier=sigma,
        clipping_norm=clipping_norm if adaptive is None else 1.0,
        max_participations=max_participations,
        min_separation=min_separation,
        min_cohort_size=min_cohort_size,
        bands=bands,
        adaptive_clipping=adaptive,
    )


def _privacy_of(fields: Mapping[str, Any]) -> PrivacyPolicy:
    adaptive = checked(PrivacyPolicy, fields).get("adaptive_clipping")
    made = None if adaptive is None else AdaptiveClipping(**checked(AdaptiveClipping, adaptive))
    return PrivacyPolicy(**{**checked(PrivacyPolicy, fields), "adaptive_clipping": made})
