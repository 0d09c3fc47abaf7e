"""A plan that is carried out: the policy that `fedcell privacy plan --out` wrote becomes a run's.

Its constants are the run's, to the last digit: σ, k, b, p and the channels of counts are not worked
out anew. Only the stream's name may change, where it was used before.
"""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from models.held_out_devices import HELD_OUT_SHARE
from privacy import StreamPolicy
from privacy.ledger import entries_of_stream
from privacy.policy import GREATEST_DELTA, GREATEST_EPSILON

from ..engine.rounds import RoundsError
from ..streams.stream_terms import StreamTerms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..engine.rounds import RoundsConfig
    from ..privacy_home.privacy_ledger import PrivacyHome


class PlanError(RoundsError):
    """A plan cannot be carried out as it is; nothing was asked of any device."""

    exit_code = 3


class PlanContradictedError(RoundsError):
    """What the plan fixes was also said otherwise."""

    exit_code = 2


def read_plan(path: Path) -> StreamPolicy:
    """Read the unsigned policy that a plan wrote.

    Raises:
        PlanError: the file cannot be read, holds none, or one that devices refuse.
    """
    remedy = "name the file that fedcell privacy plan --out wrote"
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise PlanError(f"{path}: holds no policy of a stream; {remedy}")
        plan = StreamPolicy.from_json(value)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise PlanError(f"{path}: holds no policy of a stream ({error}); {remedy}") from error
    for name, most in (("delta", GREATEST_DELTA), ("epsilon", GREATEST_EPSILON)):
        value = getattr(plan.privacy, name)
        if value > most:
            raise PlanError(
                f"{path}: {name} is {value:g}, and devices refuse more than {most:g}; make "
                "another plan"
            )
    return plan


def constants_of(plan: StreamPolicy) -> dict[str, float]:
    """Return what a plan fixes, by the keys of a run's configuration."""
    return {
        "rounds": plan.num_rounds,
        "cohort": plan.cohort_size,
        "epsilon": plan.privacy.epsilon,
        "delta": plan.privacy.delta,
        "update-share": plan.privacy.update_share,
        "max-participations": plan.privacy.max_participations,
        "max-devices-per-owner": plan.max_devices_per_owner,
        "clipping-norm": plan.privacy.first_norm,
        "clipping-quantile": plan.privacy.target_quantile or 0.0,
        "min-replies": plan.min_replies,
        "local-steps": plan.record.steps,
        "sampling-rate": plan.record.sampling_rate,
        "record-noise": plan.record.noise_multiplier,
    }


def require_agreement(
    plan: StreamPolicy, said: Mapping[str, float], *, spelt: Mapping[str, str] | None = None
) -> None:
    """Refuse values beside a plan that are not the plan's.

    Args:
        plan: the policy.
        said: by the keys of `constants_of`.
        spelt: how the operator wrote a key, where it is another word.

    Raises:
        PlanContradictedError: one differs.
    """
    planned = constants_of(plan)
    for name, value in said.items():
        if not math.isclose(value, planned[name], rel_tol=1e-12):
            word = (spelt or {}).get(name, name)
            raise PlanContradictedError(
                f"{word} is {value:g}, and the plan says {planned[name]:g}; leave {word} out, or "
                "make another plan"
            )


def config_under(plan: StreamPolicy, config: RoundsConfig) -> RoundsConfig:
    """Return a run's configuration with the plan's constants in place of its own."""
    privacy, record = plan.privacy, plan.record
    return replace(
        config,
        stream=plan.stream,
        num_rounds=plan.num_rounds,
        cohort_size=plan.cohort_size,
        clipping_norm=privacy.first_norm,
        target_quantile=privacy.target_quantile,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        noise="correlated",
        update_share=privacy.update_share,
        max_participations=privacy.max_participations,
        max_devices_per_owner=plan.max_devices_per_owner,
        min_replies=plan.min_replies,
        recipe=replace(
            config.recipe,
            steps=record.steps,
            sampling_rate=record.sampling_rate,
            least_rows=record.least_rows,
            record_noise_multiplier=record.noise_multiplier,
            record_max_grad_norm=record.max_grad_norm,
        ),
    )


def require_fleet(plan: StreamPolicy, population_size: int) -> None:
    """Refuse a fleet over which the plan's schedule cannot be kept: T·n ≤ k·N and n·b ≤ N.

    Args:
        plan: the policy.
        population_size: N, enrolled devices that train.

    Raises:
        PlanError: too few devices train.
    """
    rounds, cohort, privacy = plan.num_rounds, plan.cohort_size, plan.privacy
    most, apart = privacy.max_participations, privacy.min_separation
    least = max(cohort * min(apart, rounds), math.ceil(rounds * cohort / most))
    if population_size >= least:
        return
    enough = math.floor(population_size / (1 - HELD_OUT_SHARE))
    raise PlanError(
        f"the plan ({rounds} rounds of {cohort:,}, at most {most} a device, {apart} apart) takes "
        f"{least:,} devices that train, and {population_size:,} are enrolled; make one for them: "
        f"fedcell privacy plan --devices {enough}"
    )


def terms_under(plan: StreamPolicy, *, stream: str, population_size: int) -> StreamTerms:
    """Return the constants of a stream that carries a plan out.

    Raises:
        PlanError: too few devices train.
    """
    require_fleet(plan, population_size)
    return StreamTerms.under(replace(plan, stream=stream))


def stream_name(plan: StreamPolicy, home: PrivacyHome) -> str:
    """Return the plan's stream, or a new name where the home knows that one already."""
    opened, _ = home.stream(plan.stream)
    is_used = opened is not None or bool(entries_of_stream(home.entries, plan.stream))
    return f"run-{secrets.token_hex(8)}" if is_used else plan.stream


def require_same_plan(plan: StreamPolicy, resumed: StreamPolicy | None) -> None:
    """Refuse to go on with a run under another plan than its own.

    Raises:
        PlanContradictedError: it was planned otherwise.
    """
    if resumed is None or replace(plan, stream=resumed.stream) != resumed:
        raise PlanContradictedError(
            "the run that is to go on was planned otherwise; leave the plan out, or start a new run"
        )
