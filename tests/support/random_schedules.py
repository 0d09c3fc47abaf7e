"""Random histories of a fleet: aborted rounds, restarts, retries, new streams, new policies.

The decisions are those of the product (`privacy.budget`, `privacy.device_history`), the ledgers
hold what the product would write, and beside them stands what ran: which device took part in which
steps of which stream, the raw material of an oracle.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import mpmath

from privacy import CorrelatedRelease, Participation, PrivacyPolicy, policy_for
from privacy.budget import participation_refusal
from privacy.device_history import history_of

DELTA = 1e-8


@dataclass
class Fleet:
    """What ledgers say, and what ran.

    Attributes:
        releases: the server's ledger.
        devices: each device's own ledger.
        steps: participations of each device in each stream, by (stream, device).
        policies: of each stream.
        lengths: steps that each stream had.
    """

    releases: list[CorrelatedRelease] = field(default_factory=list)
    devices: list[list[Participation]] = field(default_factory=list)
    steps: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    policies: dict[str, PrivacyPolicy] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)


def random_fleet(seed: int) -> Fleet:
    """Run a fleet of a few devices through one to four streams under an arbitrary scheduler."""
    chance = random.Random(seed)
    fleet = Fleet(devices=[[] for _ in range(chance.randint(1, 5))])
    policy = _random_policy(chance)
    for number in range(chance.randint(1, 4)):
        if chance.random() < 0.4:
            policy = _random_policy(chance)
        _run_stream(fleet, f"stream {number}", policy, chance)
    return fleet


def _random_policy(chance: random.Random) -> PrivacyPolicy:
    separation = chance.randint(1, 8)
    return policy_for(
        epsilon=chance.choice([1.0, 2.0, 3.0, 8.0]),
        delta=DELTA,
        max_participations=chance.choice([1, 2, 5, 10, 24]),
        clipping_norm=0.3,
        min_separation=separation,
        update_share=0.85,
        bands=chance.randint(1, separation),
    )


def _run_stream(fleet: Fleet, stream: str, policy: PrivacyPolicy, chance: random.Random) -> None:
    """Any device may be asked at any step, twice, too early, or again after a restart."""
    fleet.policies[stream] = policy
    asked_with = chance.random()
    for index in range(chance.randint(1, 60)):
        asked = [one for one in range(len(fleet.devices)) if chance.random() < asked_with]
        if chance.random() < 0.3:
            asked += asked
        if chance.random() < 0.1:
            asked = list(range(len(fleet.devices)))
        for device in asked:
            _ask(fleet, device, stream, index, policy)
        if chance.random() < 0.2 and index > 0:
            # After a restart the step before is offered again: nobody may answer it twice.
            for device in asked:
                _ask(fleet, device, stream, index - 1, policy)
        fleet.releases.append(
            _release(fleet, stream, index, policy, noise_only=chance.random() < 0.15)
        )
        fleet.lengths[stream] = index + 1


def _ask(fleet: Fleet, device: int, stream: str, index: int, policy: PrivacyPolicy) -> None:
    ledger = fleet.devices[device]
    history = history_of(ledger, stream=stream)
    if participation_refusal(policy, history=history, index=index) is not None:
        return
    ledger.append(
        Participation(
            stream=stream,
            index=index,
            noise_multiplier=policy.noise_multiplier,
            clipping_norm=policy.clipping_norm,
            cohort_size=100,
            policy_digest=stream,
            epsilon=policy.epsilon,
            delta=policy.delta,
            update_share=policy.update_share,
            max_participations=policy.max_participations,
        )
    )
    fleet.steps.setdefault((stream, device), []).append(index)


def _release(
    fleet: Fleet, stream: str, index: int, policy: PrivacyPolicy, *, noise_only: bool
) -> CorrelatedRelease:
    counts = [len(steps) for (name, _), steps in fleet.steps.items() if name == stream]
    spent = [sum(one.noise_multiplier**-2 for one in ledger) for ledger in fleet.devices]
    return CorrelatedRelease(
        stream=stream,
        index=index,
        noise_multiplier=policy.noise_multiplier,
        clipping_norm=policy.clipping_norm,
        cohort_size=100,
        bands=policy.bands,
        min_separation=policy.min_separation,
        most_participations=max(counts, default=0),
        policy_digest=stream,
        noise_only=noise_only,
        most_mu_squared=max(spent),
    )


def exact_mu_squared(fleet: Fleet, device: int, *, ends_now: bool) -> mpmath.mpf:
    """μ² of a device from the explicit factors of what ran, in exact arithmetic of mpmath.

    Args:
        fleet: what ran.
        device: which one.
        ends_now: whether the factors end with the last step that ran, or go on until every column
            that was begun is whole, as they do when the streams go on.
    """
    total = mpmath.mpf(0)
    for stream, policy in fleet.policies.items():
        length = fleet.lengths[stream] if ends_now else fleet.lengths[stream] + policy.bands
        total += explicit_norm_squared(
            fleet.steps.get((stream, device), []), bands=policy.bands, length=length
        ) / (mpmath.mpf(policy.noise_multiplier) ** 2)
    return total


def explicit_norm_squared(steps: list[int], *, bands: int, length: int) -> mpmath.mpf:
    """‖Σ_{i∈P} C_i‖² of the banded square root: its columns are positive, so this is the worst."""
    raw = [mpmath.mpf(1)]
    for lag in range(1, bands):
        raw.append(raw[-1] * (2 * lag - 1) / (2 * lag))
    norm_squared = mpmath.fsum(value * value for value in raw)
    rows = [mpmath.mpf(0)] * length
    for step in steps:
        for lag, value in enumerate(raw):
            if step + lag < length:
                rows[step + lag] += value
    return mpmath.fsum(value * value for value in rows) / norm_squared


def exact_epsilon(mu_squared: mpmath.mpf) -> mpmath.mpf:
    """Least ε ≥ 0 with δ(ε) ≤ 1e-8, a hair below (Balle and Wang 2018, theorem 8)."""
    if mu_squared == 0:
        return mpmath.mpf(0)
    mu = mpmath.sqrt(mu_squared)

    def slope_at(epsilon: mpmath.mpf) -> mpmath.mpf:
        return mpmath.exp(epsilon) * mpmath.ncdf(-epsilon / mu - mu / 2)

    def delta_at(epsilon: mpmath.mpf) -> mpmath.mpf:
        return mpmath.ncdf(-epsilon / mu + mu / 2) - slope_at(epsilon)

    def exceeds(epsilon: mpmath.mpf) -> bool:
        return bool(delta_at(epsilon) > DELTA)

    low, high = mpmath.mpf(0), mpmath.mpf(1)
    while exceeds(high):
        low, high = high, 2 * high
    while high - low > high * mpmath.mpf(10) ** -4:
        middle = (low + high) / 2
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    # δ is convex and falls, so Newton's steps from below stay below the root.
    for _ in range(3):
        low += (delta_at(low) - DELTA) / slope_at(low)
    return low
