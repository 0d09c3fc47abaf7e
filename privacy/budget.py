"""Policy: may this device take part, and may this round run?

Decisions only, from facts that are passed in: the policy of a stream, and what one device's ledger
or the server's count says about its past. The device and the server decide by the same functions;
each uses the larger count of the two.
"""

from dataclasses import dataclass
from enum import StrEnum

from .accountant import gaussian_epsilon, mu_for, mu_of_participations, noise_multiplier_for
from .errors import BudgetExceededError


class Refusal(StrEnum):
    """Why a participation or a round is refused."""

    RETIRED = "retired"
    TOO_SOON = "too_soon"
    INDEX_USED = "index_used"
    BUDGET_SPENT = "budget_spent"
    COHORT_TOO_SMALL = "cohort_too_small"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPolicy:
    """The constants of a stream; changing one opens a new stream.

    Attributes:
        epsilon: ε_release of one device, over all that its history counts.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use; the rest is for everything else.
        noise_multiplier: σ, standard deviation of the noise on the sum over C.
        clipping_norm: C, bound on the ℓ2 norm of one device's update.
        max_participations: k, after which a device never contributes again.
        min_separation: b, least difference of index between two participations of a device.
        min_cohort_size: Least number of invited devices; a smaller round does not run.
    """

    epsilon: float
    delta: float
    update_share: float
    noise_multiplier: float
    clipping_norm: float
    max_participations: int
    min_separation: int
    min_cohort_size: int

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
        if not self.clipping_norm > 0:
            raise ValueError(f"clipping_norm must be greater than 0, got {self.clipping_norm}")
        least = noise_multiplier_for(
            epsilon=self.epsilon,
            delta=self.delta,
            participations=self.max_participations,
            share=self.update_share,
        )
        if self.noise_multiplier < least * (1 - 1e-9):
            raise ValueError(
                f"noise_multiplier must be at least {least:.6g} for epsilon {self.epsilon:g} "
                f"at delta {self.delta:g} over {self.max_participations} participations, "
                f"got {self.noise_multiplier:.6g}"
            )

    @property
    def mu_squared_limit(self) -> float:
        """Part of μ² that one device's updates may use."""
        return float(self.update_share * mu_for(epsilon=self.epsilon, delta=self.delta) ** 2)

    def epsilon_after(self, participations: int) -> float:
        """ε at the policy's δ of a device that took part so many times."""
        mu = mu_of_participations(
            noise_multiplier=self.noise_multiplier, participations=participations
        )
        return gaussian_epsilon(mu=mu, delta=self.delta)


@dataclass(frozen=True, slots=True)
class ParticipationHistory:
    """What one device has taken part in, in one stream and in all.

    Attributes:
        participations: Number of steps of this stream to which it was invited.
        last_index: Index of the last of them, or None.
        mu_squared: Σ 1/σ_j² over all streams that are counted, this one included.
    """

    participations: int = 0
    last_index: int | None = None
    mu_squared: float = 0.0

    def after(self, index: int, *, noise_multiplier: float) -> "ParticipationHistory":
        """The history once the device was invited to step `index` under σ."""
        spent = mu_of_participations(noise_multiplier=noise_multiplier, participations=1) ** 2
        return ParticipationHistory(
            participations=self.participations + 1,
            last_index=index,
            mu_squared=self.mu_squared + spent,
        )


def policy_for(
    *,
    epsilon: float,
    delta: float,
    max_participations: int,
    clipping_norm: float,
    min_separation: int = 1,
    min_cohort_size: int = 1,
    update_share: float = 1.0,
) -> PrivacyPolicy:
    """The policy with the least σ that keeps (ε, δ) over k participations.

    Args:
        epsilon: ε_release of one device, over all that its history counts.
        delta: Its δ.
        max_participations: k.
        clipping_norm: C.
        min_separation: b.
        min_cohort_size: Least number of invited devices.
        update_share: Part of μ² that updates may use, in (0, 1].

    Returns:
        The policy.

    Raises:
        ValueError: An argument is out of bounds.
    """
    sigma = noise_multiplier_for(
        epsilon=epsilon, delta=delta, participations=max_participations, share=update_share
    )
    return PrivacyPolicy(
        epsilon=epsilon,
        delta=delta,
        update_share=update_share,
        noise_multiplier=sigma,
        clipping_norm=clipping_norm,
        max_participations=max_participations,
        min_separation=min_separation,
        min_cohort_size=min_cohort_size,
    )


def participation_refusal(
    policy: PrivacyPolicy, *, history: ParticipationHistory, index: int
) -> Refusal | None:
    """Decide whether a device may take part in step `index`.

    Args:
        policy: The constants of the stream.
        history: What the device has taken part in.
        index: The step it is invited to.

    Returns:
        Why not, or None if it may.
    """
    if history.last_index is not None and index <= history.last_index:
        return Refusal.INDEX_USED
    if history.participations >= policy.max_participations:
        return Refusal.RETIRED
    if history.last_index is not None and index - history.last_index < policy.min_separation:
        return Refusal.TOO_SOON
    step = mu_of_participations(noise_multiplier=policy.noise_multiplier, participations=1) ** 2
    if history.mu_squared + step > policy.mu_squared_limit * (1 + 1e-9):
        return Refusal.BUDGET_SPENT
    return None


def require_participation(
    policy: PrivacyPolicy, *, history: ParticipationHistory, index: int
) -> None:
    """Raise unless a device may take part in step `index`.

    Raises:
        BudgetExceededError: With the rule that refuses and its figures.
    """
    refusal = participation_refusal(policy, history=history, index=index)
    if refusal is None:
        return
    last_index = -1 if history.last_index is None else history.last_index
    step = mu_of_participations(noise_multiplier=policy.noise_multiplier, participations=1) ** 2
    spent, requested, limit = {
        Refusal.INDEX_USED: (last_index, index, last_index + 1),
        Refusal.RETIRED: (history.participations, 1, policy.max_participations),
        Refusal.TOO_SOON: (last_index, index, last_index + policy.min_separation),
        Refusal.BUDGET_SPENT: (history.mu_squared, step, policy.mu_squared_limit),
        Refusal.COHORT_TOO_SMALL: (0, 0, policy.min_cohort_size),
    }[refusal]
    raise BudgetExceededError(reason=refusal, spent=spent, requested=requested, limit=limit)


def require_cohort(policy: PrivacyPolicy, *, cohort_size: int) -> None:
    """Raise unless a round with so many invited devices may run.

    Raises:
        BudgetExceededError: The cohort is smaller than the policy's least.
    """
    if cohort_size < policy.min_cohort_size:
        raise BudgetExceededError(
            reason=Refusal.COHORT_TOO_SMALL,
            spent=0,
            requested=cohort_size,
            limit=policy.min_cohort_size,
        )
