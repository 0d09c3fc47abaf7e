"""Policy: may this device take part, and may this round run?

Decisions only, from facts that are passed in: the policy of a stream, and what one device's ledger
or the server's count says about its past. The device and the server decide by the same functions;
each uses the larger count of the two.
"""

from dataclasses import dataclass
from enum import StrEnum

from .accountant import mu_of_participations
from .errors import BudgetExceededError
from .policy import PrivacyPolicy


class Refusal(StrEnum):
    """Why a participation or a round is refused."""

    RETIRED = "retired"
    TOO_SOON = "too_soon"
    INDEX_USED = "index_used"
    BUDGET_SPENT = "budget_spent"
    COHORT_TOO_SMALL = "cohort_too_small"


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
