"""Recipes of rounds: how devices train and how the server steps, from where the rounds start."""

from __future__ import annotations

from models.wire.rounds import LocalRecipe
from server.server_optimizer import ServerRecipe

from .rounds import RoundsPlan

WARM_CLIPPING_NORM = 0.1
COLD_CLIPPING_NORM = 1.0


def plan_for(
    *,
    num_rounds: int,
    cohort_size: int | None,
    epsilon: float | None,
    delta: float,
    is_record_private: bool,
    is_warm: bool,
    clipping_norm: float | None = None,
    seed: int | None = None,
) -> RoundsPlan:
    """Return the plan of a run.

    A start from trained weights needs small steps in the direction that devices agree on (plain
    averaging, a norm below what they send); random weights need Adam to get going at all.

    Args:
        num_rounds: T.
        cohort_size: n; None invites all.
        epsilon: ε_release; None for a comparison without noise.
        delta: its δ.
        is_record_private: record-level DP-SGD on the devices.
        is_warm: whether the rounds start from trained weights.
        clipping_norm: C; None takes the recipe's.
        seed: None draws from the operating system's entropy.
    """
    record_noise = 2.0 if is_record_private else 0.0
    recipe = LocalRecipe(
        steps=2,
        sampling_rate=0.5,
        expected_batch_size=160,
        learning_rate=0.5,
        record_noise_multiplier=record_noise,
    )
    if is_warm:
        server = ServerRecipe(optimizer="fedavg", learning_rate=3.0, final_rate=0.3)
        norm = WARM_CLIPPING_NORM
    else:
        server = ServerRecipe(optimizer="fedadam", learning_rate=0.06, tau=1e-6, final_rate=0.02)
        norm = COLD_CLIPPING_NORM
    return RoundsPlan(
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        epsilon=epsilon,
        delta=delta,
        clipping_norm=clipping_norm or norm,
        recipe=recipe,
        server=server,
        seed=seed,
    )
