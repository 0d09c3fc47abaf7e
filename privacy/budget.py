"""Policy: may this device take part, and may this round run?

Decisions only, from facts that are passed in: the policy of a stream, and what one device's ledger
or the server's count says about its past. The device and the server decide by the same functions;
each uses the larger count of the two.

A device that has taken part under several policies keeps the least limit of all of them: it never
contributes more often than the least k, neither its updates nor its counts spend more of μ² than
the least of the shares, and both together never more than the least μ²_max. The last is not implied
by the others: counts that were answered under a generous policy may be more than the share of a
strict one that comes later. So each policy's promise holds for the device's whole life.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .accountant import gaussian_epsilon, mu_squared_of_step
from .discrete_accounting import mu_squared_of_count
from .policy import USUAL_DELTA, PrivacyPolicy, RecordPolicy, StreamPolicy

MU_ROUNDING: Final = 1e-9
"""Relative amount by which a sum of squares may pass its limit: k additions round."""


class Refusal(StrEnum):
    """Why a participation, an answer or a round is refused."""

    RETIRED = "retired"
    TOO_SOON = "too_soon"
    INDEX_USED = "index_used"
    BUDGET_SPENT = "budget_spent"
    COHORT_TOO_SMALL = "cohort_too_small"
    STREAM_ENDED = "stream_ended"
    OWN_LIMIT = "own_limit"
    TASK_DIFFERS = "task_differs"
    NORM_OUT_OF_BOUNDS = "norm_out_of_bounds"
    CHANNEL_UNKNOWN = "channel_unknown"
    HELD_OUT = "held_out"
    NOT_HELD_OUT = "not_held_out"
    POLICY_MISSING = "policy_missing"
    POLICY_KEY_UNKNOWN = "policy_key_unknown"
    POLICY_NOT_SIGNED = "policy_not_signed"
    POLICY_UNREADABLE = "policy_unreadable"
    POLICY_CHANGED = "policy_changed"
    TOO_MANY_BANDS = "too_many_bands"
    DELTA_TOO_GREAT = "delta_too_great"
    EPSILON_TOO_GREAT = "epsilon_too_great"
    LEDGER_MISSING = "ledger_missing"
    LEDGER_BROKEN = "ledger_broken"
    LEDGER_BEHIND = "ledger_behind"
    LEDGER_FOREIGN = "ledger_foreign"
    LEDGER_ELSEWHERE = "ledger_elsewhere"
    LEDGER_UNWRITABLE = "ledger_unwritable"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class ParticipationHistory:
    """What one device has taken part in, in one stream and in all.

    Attributes:
        participations: Number of steps of this stream to which it was invited.
        last_index: Index of the last of them, or None.
        mu_squared: Σ 1/σ_j² over all streams that are counted, this one included.
        elsewhere: Number of steps of other streams.
        max_participations: Least k of the policies so far, or None.
        mu_squared_limit: Least part of μ² for updates of the policies so far, or None.
        policy_digest: Of the policy that this stream had before, or None.
        is_held_out: Whether it has answered as a device that never trains.
        counts_mu_squared: What its answers to counts have spent beside that.
        mu_squared_in_all: Least μ²_max of the policies so far, or None.
    """

    participations: int = 0
    last_index: int | None = None
    mu_squared: float = 0.0
    elsewhere: int = 0
    max_participations: int | None = None
    mu_squared_limit: float | None = None
    policy_digest: str | None = None
    is_held_out: bool = False
    counts_mu_squared: float = 0.0
    mu_squared_in_all: float | None = None

    def after(
        self, index: int, *, noise_multiplier: float, clip_noise_multiplier: float | None = None
    ) -> "ParticipationHistory":
        """The history once the device was invited to step `index` under σ (and σ_b)."""
        spent = participation_cost(noise_multiplier, clip_noise_multiplier=clip_noise_multiplier)
        return replace(
            self,
            participations=self.participations + 1,
            last_index=index,
            mu_squared=self.mu_squared + spent,
        )


@dataclass(frozen=True, slots=True)
class CountHistory:
    """What one device has answered in counts.

    Attributes:
        answers: Number of answers to this channel under this policy.
        last_index: Index of the last of them, or None.
        mu_squared: Σ 1/σ_j² over all channels and policies.
        mu_squared_limit: Least part of μ² for counts of the policies so far, or None.
        mu_squared_in_all: Least μ²_max of the policies so far, or None.
        is_held_out: Whether it has answered as a device that never trains.
        is_in_training: Whether it has taken part in a round, or answered as one that may.
        updates_mu_squared: What its participations have spent beside that.
    """

    answers: int = 0
    last_index: int | None = None
    mu_squared: float = 0.0
    mu_squared_limit: float | None = None
    mu_squared_in_all: float | None = None
    is_held_out: bool = False
    is_in_training: bool = False
    updates_mu_squared: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOffer:
    """What a task says of the step that it asks for.

    Attributes:
        stream: Of the step.
        index: Of the step.
        clipping_norm: C, or C_t where it adapts.
        cohort_size: n, number of devices invited.
        record: How each device trains on its rows.
        has_norm_bit: Whether devices send g/C_t and a bit, for a norm that adapts.
    """

    stream: str
    index: int
    clipping_norm: float
    cohort_size: int
    record: RecordPolicy
    has_norm_bit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLimits:
    """What a device allows of itself, below any policy.

    Attributes:
        max_participations: Most participations in its life, or None.
        max_epsilon: Greatest ε of all that it gives, updates and counts, or None; at 1e-8 or the
            policy's δ, whichever is less, so that no policy widens it by its δ.
        min_cohort_size: Least number of devices in a step's cohort.
    """

    max_participations: int | None = None
    max_epsilon: float | None = None
    min_cohort_size: int = 1


def participation_cost(
    noise_multiplier: float, *, clip_noise_multiplier: float | None = None
) -> float:
    """μ² of one participation: 1/σ², and 1/σ_b² for the bit that steers the clipping norm.

    Args:
        noise_multiplier: σ over C; the full C is charged, whatever the update's norm was.
        clip_noise_multiplier: σ_b in units of the bit's sensitivity ½, or None without the bit.
    """
    return mu_squared_of_step(
        noise_multiplier=noise_multiplier, clip_noise_multiplier=clip_noise_multiplier
    )


def participation_refusal(
    policy: PrivacyPolicy,
    *,
    history: ParticipationHistory,
    index: int,
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
    if history.participations + history.elsewhere >= most_participations(policy, history=history):
        return Refusal.RETIRED
    if history.last_index is not None and index - history.last_index < policy.min_separation:
        return Refusal.TOO_SOON
    step = policy.step_mu_squared
    if _exceeds(history.mu_squared + step, update_limit(policy, history=history)):
        return Refusal.BUDGET_SPENT
    in_all = _least(policy.mu_squared_in_all, history.mu_squared_in_all)
    if _exceeds(history.mu_squared + history.counts_mu_squared + step, in_all):
        return Refusal.BUDGET_SPENT
    return None


def step_refusal(
    policy: StreamPolicy,
    *,
    offer: StepOffer,
    history: ParticipationHistory,
    own: OwnLimits | None = None,
) -> Refusal | None:
    """Decide whether a device may answer a task under a policy whose signature holds.

    Args:
        policy: As it was signed.
        offer: What the task says; every constant must be the policy's.
        history: From the device's ledger, as `privacy.device_history` reads it.
        own: The device's own limits, or None.

    Returns:
        Why not, or None if it may.
    """
    privacy = policy.privacy
    if history.policy_digest not in {None, policy.digest}:
        return Refusal.POLICY_CHANGED
    if history.is_held_out:
        return Refusal.HELD_OUT
    if offer.cohort_size < privacy.min_cohort_size:
        return Refusal.COHORT_TOO_SMALL
    said = (offer.stream, offer.cohort_size, offer.record, offer.has_norm_bit)
    has_norm_bit = privacy.adaptive_clipping is not None
    if said != (policy.stream, policy.cohort_size, policy.record, has_norm_bit):
        return Refusal.TASK_DIFFERS
    if not privacy.bears_norm(offer.clipping_norm):
        return Refusal.NORM_OUT_OF_BOUNDS if has_norm_bit else Refusal.TASK_DIFFERS
    if offer.index >= policy.num_rounds:
        return Refusal.STREAM_ENDED
    refusal = participation_refusal(privacy, history=history, index=offer.index)
    if refusal is not None or own is None:
        return refusal
    taken = history.participations + history.elsewhere
    if own.max_participations is not None and taken >= own.max_participations:
        return Refusal.OWN_LIMIT
    in_all = history.mu_squared + history.counts_mu_squared + privacy.step_mu_squared
    return _own_refusal(policy, own=own, mu_squared=in_all)


def count_refusal(
    policy: StreamPolicy,
    *,
    channel: str,
    index: int,
    history: CountHistory,
    own: OwnLimits | None = None,
) -> Refusal | None:
    """Decide whether a device may answer release `index` of a channel of counts.

    Args:
        policy: As it was signed; names the channel.
        channel: Which counts.
        index: The release that is asked for.
        history: From the device's ledger, as `privacy.device_history` reads it.
        own: The device's own limits, or None; that on participations does not bear on counts.

    Returns:
        Why not, or None if it may.
    """
    found = next((one for one in policy.channels if one.name == channel), None)
    if found is None:
        return Refusal.CHANNEL_UNKNOWN
    if found.held_out and history.is_in_training:
        return Refusal.NOT_HELD_OUT
    if not found.held_out and history.is_held_out:
        return Refusal.HELD_OUT
    if history.last_index is not None and index <= history.last_index:
        return Refusal.INDEX_USED
    if history.answers >= found.max_answers:
        return Refusal.RETIRED
    cost = mu_squared_of_count(found.noise_multiplier)
    limit = count_limit(policy.privacy, history=history, held_out=found.held_out)
    if _exceeds(history.mu_squared + cost, limit):
        return Refusal.BUDGET_SPENT
    in_all = _least(policy.privacy.mu_squared_in_all, history.mu_squared_in_all)
    spent = history.mu_squared + history.updates_mu_squared + cost
    if _exceeds(spent, in_all):
        return Refusal.BUDGET_SPENT
    return None if own is None else _own_refusal(policy, own=own, mu_squared=spent)


def most_participations(policy: PrivacyPolicy, *, history: ParticipationHistory) -> int:
    """The least k of this policy and all before it."""
    before = history.max_participations
    return policy.max_participations if before is None else min(policy.max_participations, before)


def update_limit(policy: PrivacyPolicy, *, history: ParticipationHistory) -> float:
    """The least part of μ² for updates of this policy and all before it."""
    return _least(policy.mu_squared_limit, history.mu_squared_limit)


def count_limit(policy: PrivacyPolicy, *, history: CountHistory, held_out: bool) -> float:
    """The least part of μ² for counts of this policy and all before it.

    Args:
        policy: The constants of the stream.
        history: What the device has answered.
        held_out: Whether it never trains, and may spend its whole μ² on counts.
    """
    if held_out:
        return _least(policy.mu_squared_in_all, history.mu_squared_in_all)
    return _least(policy.mu_squared_for_counts, history.mu_squared_limit)


def _least(limit: float, before: float | None) -> float:
    return limit if before is None else min(limit, before)


def _exceeds(mu_squared: float, limit: float) -> bool:
    return mu_squared > limit * (1 + MU_ROUNDING)


def _own_refusal(policy: StreamPolicy, *, own: OwnLimits, mu_squared: float) -> Refusal | None:
    if policy.cohort_size < own.min_cohort_size:
        return Refusal.OWN_LIMIT
    if own.max_epsilon is None:
        return None
    delta = min(policy.privacy.delta, USUAL_DELTA)
    epsilon = gaussian_epsilon(mu=math.sqrt(mu_squared), delta=delta)
    return Refusal.OWN_LIMIT if epsilon > own.max_epsilon else None
