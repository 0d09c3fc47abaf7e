"""The audit of the real aggregation code: what it reveals, held against what is claimed.

Everything is drawn from the operating system's entropy, as in production: nothing that a repeated
seed could hide is hidden, and each run of the audit is a new one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from models.wire.rounds import LocalRecipe
from privacy import OperatingSystemNoise, StreamPolicy, UpdateGrid, clip_update
from privacy.audit.bounds import least_detectable_mu
from privacy.audit.findings import AuditCheck, Held
from privacy.policy import policy_for

from ..engine.aggregation import CohortSum, mean_update
from .canary_audit import (
    ALPHA,
    NO_RECORD_NOISE,
    CanaryFinding,
    audit_stream,
    audited_policy,
)
from .canary_streams import honest_parts, num_beyond_rules, steps_by_device, steps_by_schedule
from .count_audit import ANSWERS, audit_counts, audited_channel
from .inversion_audit import Protection, Victims, recovered_records
from .planted_homes import PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HOSTILE_SIZES: Final = (1e-300, 1e-3, 1.0, 1.0 + 1e-12, 1e6, 1e300, np.inf, np.nan)
NUM_RECORDS: Final = 100
LEAST_RECOVERED: Final = 95
MOST_RECOVERED: Final = 1
LEAST_POWER: Final = 0.6
"""Least ratio of a bound to an honest claim in one audit; typical is 0.8 to 0.9."""
LARGEST_UNSEEN: Final = 2.0
"""Half the noise, the commonest mistake, must be seen at production's σ too."""

ATTACKED_RECIPE: Final = LocalRecipe(
    learning_rate=100.0, expected_batch_size=1, sampling_rate=1.0, least_rows=1
)
"""One step on one record, so large that clipping always bites: the attacker's best case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditScale:
    """How much of an audit is run.

    Attributes:
        canaries: trials of each mechanism.
        claims: values of μ at which the honest mechanism is audited.
    """

    canaries: int
    claims: tuple[float, ...]


FULL: Final = AuditScale(canaries=10_000, claims=(1.0, 2.0, 4.0))
QUICK: Final = AuditScale(canaries=6_000, claims=(2.0,))


def run_audit(scale: AuditScale = FULL) -> tuple[AuditCheck, ...]:
    """Run every check.

    Args:
        scale: how many canaries, and at which claims.
    """
    return tuple(_all_checks(scale))


def production_policy() -> StreamPolicy:
    """Return the default policy: weekly rounds over two years, 24 participations at most."""
    privacy = policy_for(
        epsilon=2.0,
        delta=1e-8,
        max_participations=24,
        clipping_norm=0.3,
        min_separation=4,
        min_cohort_size=2_000,
        update_share=0.85,
        bands=4,
    )
    return StreamPolicy(
        stream="audit-production",
        num_rounds=104,
        cohort_size=2_500,
        privacy=privacy,
        record=NO_RECORD_NOISE,
    )


def sensitivity_check(*, clipping_norm: float = 0.3, num_weights: int = 2_000) -> AuditCheck:
    """Move one device between its worst updates and absence, and measure what it moves.

    The device's update goes through clipping, grid, sum and division, and the divisor must not
    follow it. What is compared are two releases without noise.
    """
    grid = UpdateGrid(clipping_norm=clipping_norm)
    shape = np.linspace(-1.0, 1.0, num_weights)
    background = grid.quantise(clip_update(shape[::-1] * 7, clipping_norm=clipping_norm))
    without = _released([background], grid=grid, num_invited=2)
    moved = [
        np.linalg.norm(
            _released(
                [background, grid.quantise(clip_update(shape * size, clipping_norm=clipping_norm))],
                grid=grid,
                num_invited=2,
            )
            - without
        )
        for size in HOSTILE_SIZES
    ]
    return AuditCheck(
        name="sensitivity of a release",
        value=float(max(moved)) * 2 / clipping_norm,
        bound=1.0,
        held=Held.AT_MOST,
        note="most that one device moves the sum, in C: tiny, long, infinite and NaN updates",
    )


def _all_checks(scale: AuditScale) -> Iterator[AuditCheck]:
    yield sensitivity_check()
    yield from _rules_checks()
    for claim in scale.claims:
        policy = audited_policy(claim, cohort_size=scale.canaries)
        finding = audit_stream(policy, honest_parts(), canaries=scale.canaries)
        yield from honest_checks(f"μ = {claim:g}", finding)
        yield AuditCheck(
            name=f"power at μ = {claim:g}",
            value=finding.excess,
            bound=LEAST_POWER,
            held=Held.AT_LEAST,
            note="lower bound over claim: what the audit is able to see",
        )
    yield from _production_checks(scale)
    yield _restore_check(scale)
    yield _counts_check()
    yield from _planted_checks(scale)
    yield from _inversion_checks()


def honest_checks(name: str, finding: CanaryFinding) -> Iterator[AuditCheck]:
    """Hold what canaries show of a mechanism that is meant to be sound against its claim.

    Args:
        name: of the mechanism.
        finding: of its audit.
    """
    yield AuditCheck(
        name=f"canaries, {name}",
        value=finding.bound.mu,
        bound=finding.claim,
        held=Held.AT_MOST,
        note=f"lower bound on μ by Clopper and Pearson, wrong with {ALPHA:g} at most",
    )
    yield AuditCheck(
        name=f"one run, {name}",
        value=finding.one_run.epsilon,
        bound=finding.claimed_epsilon,
        held=Held.AT_MOST,
        note=f"lower bound on ε of one device, present or zeros, at δ = {finding.one_run.delta:g}; "
        f"{finding.one_run.right} of {finding.one_run.guesses} coins guessed",
    )
    yield AuditCheck(
        name=f"reused noise, {name}",
        value=finding.correlation,
        bound=finding.correlation_bound,
        held=Held.AT_MOST,
        note="greatest |correlation| between the noise of two steps, whitened",
    )
    yield AuditCheck(
        name=f"noise, {name}",
        value=finding.noise_ratio,
        bound=finding.noise_ratio_bound,
        held=Held.AT_LEAST,
        note="standard deviation over the claimed one",
    )
    yield AuditCheck(
        name=f"invitations, {name}",
        value=finding.beyond_rules,
        bound=0,
        held=Held.AT_MOST,
        note="too close or too many, which the privacy home let a hostile scheduler make",
    )
    yield AuditCheck(
        name=f"streams broken off, {name}",
        value=bool(finding.broken_off),
        bound=0,
        held=Held.AT_MOST,
        note=finding.broken_off or "every step was invited, committed, charged and released",
    )


def _rules_checks() -> Iterator[AuditCheck]:
    """What schedule and device each let through alone; the home is asked with the canaries."""
    policy = audited_policy(2.0, cohort_size=2)
    by_rule = {"the schedule": steps_by_schedule(policy), "the device": steps_by_device(policy)}
    for rule, taken in by_rule.items():
        yield AuditCheck(
            name=f"invitations that {rule} admits",
            value=num_beyond_rules(policy, taken),
            bound=0,
            held=Held.AT_MOST,
            note=f"too close or too many, of {len(taken)} in {policy.num_rounds} offered",
        )


def _production_checks(scale: AuditScale) -> Iterator[AuditCheck]:
    policy = production_policy()
    sigma = policy.privacy.noise_multiplier
    finding = audit_stream(policy, honest_parts(), canaries=scale.canaries)
    yield from honest_checks(f"production, σ = {sigma:.1f}", finding)
    least = least_detectable_mu(finding.claim, canaries=scale.canaries, alpha=ALPHA) / finding.claim
    yield AuditCheck(
        name="smallest violation seen in production",
        value=least,
        bound=LARGEST_UNSEEN,
        held=Held.AT_MOST,
        note=f"true μ over a claim of {finding.claim:.3f}: σ {sigma / least:.1f} for {sigma:.1f}",
    )


def _restore_check(scale: AuditScale) -> AuditCheck:
    finding = audit_stream(
        audited_policy(2.0, cohort_size=scale.canaries),
        replace(honest_parts(), is_put_back=True),
        canaries=scale.canaries,
    )
    return AuditCheck(
        name="reused noise after a restore",
        value=math.inf if finding.broken_off else finding.correlation,
        bound=finding.correlation_bound,
        held=Held.AT_MOST,
        note=finding.broken_off
        or "folder and home put back in place between two steps: both lives, whitened",
    )


def _counts_check() -> AuditCheck:
    bound, claim = audit_counts(audited_channel(1.0), canaries=QUICK.canaries)
    return AuditCheck(
        name="canaries on counts",
        value=bound.mu,
        bound=claim,
        held=Held.AT_MOST,
        note=f"lower bound on μ of {ANSWERS} answers with discrete noise",
    )


def _planted_checks(scale: AuditScale) -> Iterator[AuditCheck]:
    caught = 0
    for name, plant in PLANTED.items():
        finding = audit_stream(
            audited_policy(2.0, cohort_size=scale.canaries),
            plant(honest_parts()),
            canaries=scale.canaries,
        )
        by_canaries = finding.excess > 1.0
        caught += by_canaries or finding.reuse > 1.0
        yield AuditCheck(
            name=f"planted: {name}",
            value=finding.excess if by_canaries else finding.reuse,
            bound=math.nextafter(1.0, 2.0),
            held=Held.AT_LEAST,
            note="caught by canaries: lower bound over claim"
            if by_canaries
            else "caught by the noise: correlation of two steps over its bound",
        )
    yield AuditCheck(
        name="planted defects caught",
        value=caught,
        bound=len(PLANTED),
        held=Held.AT_LEAST,
        note=f"of {len(PLANTED)}",
    )


def _inversion_checks() -> Iterator[AuditCheck]:
    victims = Victims.drawn(NUM_RECORDS, source=OperatingSystemNoise())
    policy = production_policy()
    for protection in Protection:
        recovered = recovered_records(victims, protection, policy=policy, recipe=ATTACKED_RECIPE)
        is_open = protection in {Protection.NONE, Protection.CLIPPING}
        yield AuditCheck(
            name=f"inversion through {protection}",
            value=recovered,
            bound=LEAST_RECOVERED if is_open else MOST_RECOVERED,
            held=Held.AT_LEAST if is_open else Held.AT_MOST,
            note=f"of {NUM_RECORDS} records recovered within 1 %"
            + (", so the attack works" if is_open else ""),
        )


def _released(
    updates: list[NDArray[np.int64]], *, grid: UpdateGrid, num_invited: int
) -> NDArray[np.float64]:
    cohort_sum = CohortSum.empty(len(updates[0]))
    for update in updates:
        cohort_sum.add(update, num_devices=1)
    silence = np.zeros(len(updates[0]))
    return mean_update(cohort_sum.total, noise=silence, num_invited=num_invited, grid=grid)
