"""The plan of a run, from what an operator decides and the recipe for where it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from server.engine.rounds import DEVICES_PER_OWNER
from server.engine.training_recipes import (
    FROM_RANDOM_WEIGHTS,
    FROM_RANDOM_WEIGHTS_WITH_NOISE,
    FROM_TRAINED_WEIGHTS,
    TrainingRecipe,
)

from .rounds import DEADLINE_S, RoundsPlan

if TYPE_CHECKING:
    from privacy import StreamPolicy
    from server.engine.group_rule import GroupRuleName
    from server.engine.rounds import NoiseName
    from server.engine.server_optimizer import ServerRecipe


def usual_recipe(*, is_warm: bool, is_noised: bool) -> TrainingRecipe:
    """Return the recipe of rounds by where they start.

    Args:
        is_warm: whether that is from trained weights.
        is_noised: whether releases bear noise.
    """
    if is_warm:
        return FROM_TRAINED_WEIGHTS
    return FROM_RANDOM_WEIGHTS_WITH_NOISE if is_noised else FROM_RANDOM_WEIGHTS


def plan_for(
    *,
    num_rounds: int,
    cohort_size: int | None,
    epsilon: float | None,
    delta: float,
    is_record_private: bool,
    is_warm: bool,
    clipping_norm: float | None = None,
    server: ServerRecipe | None = None,
    seed: int | None = None,
    evaluate_every: int = 1,
    noise: NoiseName = "correlated",
    max_participations: int | None = None,
    max_devices_per_owner: int = DEVICES_PER_OWNER,
    target_quantile: float | None = None,
    min_replies: int = 1,
    patience: int = 0,
    group_rule: GroupRuleName = "none",
    num_groups: int = 8,
    proximal: float = 0.0,
    deadline_s: float = DEADLINE_S,
) -> RoundsPlan:
    """Return the plan of a run.

    Args:
        num_rounds: T.
        cohort_size: n; None invites all.
        epsilon: ε_release; None for a comparison without noise.
        delta: its δ.
        is_record_private: record-level DP-SGD on the devices.
        is_warm: whether the rounds start from trained weights.
        clipping_norm: C, or C_0 where it adapts; None takes the recipe's.
        server: how updates move the weights; None takes the recipe's.
        seed: None draws from the operating system's entropy.
        evaluate_every: rounds between two looks at the held-out part.
        noise: correlated between steps, or independent, for comparison only.
        max_participations: k for life; None takes what the schedule asks of a device.
        max_devices_per_owner: most devices of one owner, where owners are known.
        target_quantile: γ of a clipping norm that adapts; None keeps C.
        min_replies: least devices that must answer a round, else it is noise alone.
        group_rule: median or trimmed mean over groups of nodes, for comparison only.
        num_groups: G, where there is a rule.
        patience: looks at the reference fleet without gain that end the run; 0 never ends it.
        proximal: μ of FedProx, by which devices are held to a round's weights; 0 is without.
        deadline_s: how long a round waits for replies.

    Raises:
        ValueError: a device would step past the weights that it is held to.
    """
    usual = usual_recipe(is_warm=is_warm, is_noised=epsilon is not None)
    local = replace(usual.local, proximal=proximal)
    if not is_record_private:
        local = replace(local, record_noise_multiplier=0.0)
    return RoundsPlan(
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        epsilon=epsilon,
        delta=delta,
        clipping_norm=usual.clipping_norm if clipping_norm is None else clipping_norm,
        recipe=local,
        server=server or usual.server,
        seed=seed,
        evaluate_every=evaluate_every,
        noise=noise,
        max_participations=max_participations,
        max_devices_per_owner=max_devices_per_owner,
        target_quantile=target_quantile,
        min_replies=min_replies,
        patience=patience,
        deadline_s=deadline_s,
        group_rule=group_rule,
        num_groups=num_groups,
    )


def under_policy(plan: RoundsPlan, policy: StreamPolicy) -> RoundsPlan:
    """Return a plan with the constants of a policy in place of its own."""
    return replace(
        plan,
        num_rounds=policy.num_rounds,
        cohort_size=policy.cohort_size,
        epsilon=policy.privacy.epsilon,
        delta=policy.privacy.delta,
        clipping_norm=policy.privacy.first_norm,
        target_quantile=policy.privacy.target_quantile,
        max_participations=policy.privacy.max_participations,
        max_devices_per_owner=policy.max_devices_per_owner,
        min_replies=policy.min_replies,
        policy=policy,
    )
