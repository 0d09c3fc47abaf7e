"""A privacy home that releases steps and counts without a stream's files, over two devices."""

from datetime import UTC, datetime

from privacy import CorrelatedRelease, CountRelease
from privacy.accountant import mu_for
from privacy.discrete_accounting import mu_squared_of_count
from server.privacy_home.counted_answers import series_of
from server.privacy_home.participation_counts import AnswerCost, StepCost, StreamRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIGMA, DELTA, POLICY = 4.0, 1e-6, "ab" * 32
DEVICES = ["one", "two"]
LIMITS = {"epsilon": 8.0, "delta": DELTA, "update_share": 0.5, "max_participations": 10}
STRICT = {"epsilon": 3.0, "delta": DELTA, "update_share": 0.5, "max_participations": 2}
UNSAID = dict.fromkeys(LIMITS)


def step_cost(limits):
    """What a step costs under a policy."""
    if limits["epsilon"] is None:
        return StepCost(mu_squared=SIGMA**-2)
    whole = mu_for(epsilon=limits["epsilon"], delta=limits["delta"]) ** 2
    return StepCost(
        mu_squared=SIGMA**-2,
        max_participations=limits["max_participations"],
        mu_squared_limit=limits["update_share"] * whole,
        mu_squared_in_all=whole,
    )


def take_steps(home, stream, num_steps, limits=LIMITS):
    """Open a stream, and invite both devices to each of its first steps."""
    home.open_stream(stream, StreamRecord(policy_digest=POLICY, anchor="", max_participations=10))
    for index in range(num_steps):
        take_step(home, stream, index, limits)


def take_step(home, stream, index, limits=LIMITS):
    """Invite both devices to a step and charge it."""
    home.invite(stream, index, device_ids=DEVICES, choose=lambda _: [0, 1], cost=step_cost(limits))
    home.commit(stream, index, digest="cd" * 32, noise_only=False)
    event = CorrelatedRelease(
        stream=stream,
        index=index,
        noise_multiplier=SIGMA,
        clipping_norm=0.3,
        cohort_size=2,
        bands=1,
        min_separation=1,
        most_participations=index + 1,
        policy_digest=POLICY,
        **limits,
    )
    home.charge(event, kind="stream", at=NOW)


def ask(home, index, *, limits=LIMITS, most=10, held_out=False):
    """Count both devices for a release of counts, and charge it; at most so many for a device."""
    cost = mu_squared_of_count(SIGMA)
    answer = AnswerCost(mu_squared=cost, mu_squared_limit=most * cost * 1.0001, held_out=held_out)
    most = home.charge_answers(series_of(POLICY, "metrics"), index, DEVICES, cost=answer)
    event = CountRelease(
        channel="metrics",
        index=index,
        noise_multiplier=SIGMA,
        sensitivity=1.0,
        cohort_size=2,
        most_answers=most,
        policy_digest=POLICY,
        held_out=held_out,
        **limits,
    )
    home.charge(event, kind="stream", at=NOW)
