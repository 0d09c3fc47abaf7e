"""Policy decisions: who may take part, and which rounds may run."""

from dataclasses import replace

import pytest

from privacy import (
    CountAnswer,
    CountChannel,
    Participation,
    PrivacyPolicy,
    PublicData,
    StreamPolicy,
    UnsupportedEventError,
    device_history,
    policy_for,
)
from privacy.budget import (
    ParticipationHistory,
    Refusal,
    participation_cost,
    participation_refusal,
)
from tests.support.stream_policies import stream_policy

POLICY = policy_for(
    epsilon=2.0,
    delta=1e-8,
    max_participations=3,
    clipping_norm=1.0,
    min_separation=4,
    min_cohort_size=100,
)


def history_of(*indices, policy=POLICY):
    history = ParticipationHistory()
    for index in indices:
        history = history.after(index, noise_multiplier=policy.noise_multiplier)
    return history


def test_policy_spends_its_epsilon_exactly_at_the_last_participation():
    assert POLICY.epsilon_after(3) == pytest.approx(2.0, rel=1e-6)
    assert POLICY.epsilon_after(3) <= 2.0 * (1 + 1e-6)
    assert POLICY.epsilon_after(2) < 2.0


@pytest.mark.parametrize(
    ("past", "index", "refusal"),
    [
        ((), 0, None),
        ((0,), 4, None),
        ((0,), 3, Refusal.TOO_SOON),
        ((5,), 5, Refusal.INDEX_USED),
        ((5,), 2, Refusal.INDEX_USED),
        ((0, 4), 8, None),
        ((0, 4, 8), 12, Refusal.RETIRED),
    ],
)
def test_participation_is_decided_by_count_gap_and_index(past, index, refusal):
    assert participation_refusal(POLICY, history=history_of(*past), index=index) == refusal


def test_budget_spent_in_an_earlier_stream_counts():
    history = ParticipationHistory(mu_squared=POLICY.mu_squared_limit)
    assert participation_refusal(POLICY, history=history, index=0) is Refusal.BUDGET_SPENT


def test_policy_that_promises_more_than_its_noise_keeps_is_refused():
    with pytest.raises(ValueError, match="noise_multiplier must be at least"):
        PrivacyPolicy(
            epsilon=2.0,
            delta=1e-8,
            update_share=1.0,
            noise_multiplier=POLICY.noise_multiplier * 0.99,
            clipping_norm=1.0,
            max_participations=3,
            min_separation=1,
            min_cohort_size=1,
        )


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("max_participations", 0, "participations"),
        ("min_separation", 0, "min_separation"),
        ("min_cohort_size", 0, "min_cohort_size"),
        ("clipping_norm", 0, "clipping_norm"),
        ("delta", 0.3, r"delta must lie in \(0, 1e-05\], got 0.3"),
        ("delta", 1.01e-5, "delta"),
        ("delta", 0.0, "delta"),
    ],
)
def test_meaningless_constants_are_refused_by_name(name, value, named):
    constants = {"epsilon": 2.0, "delta": 1e-8, "max_participations": 3, "clipping_norm": 1.0}
    with pytest.raises(ValueError, match=named):
        policy_for(**{**constants, name: value})


def test_policy_of_yesterday_with_a_greater_delta_can_still_be_read():
    value = stream_policy().to_json()
    value["privacy"]["delta"] = 1e-4
    read = StreamPolicy.from_json(value)
    assert read.privacy.delta == 1e-4
    assert StreamPolicy.from_json(read.to_json()) == read


def stream(name, *, epsilon):
    return replace(
        stream_policy(stream=name, epsilon=epsilon),
        channels=(CountChannel(name="c", noise_multiplier=8.0, max_answers=1),),
    )


def test_counts_under_a_generous_policy_may_leave_nothing_for_a_strict_one():
    """The shares alone would let a device spend more than the strict policy promises in all."""
    generous, strict = stream("a", epsilon=2.0), stream_policy(stream="b", epsilon=0.3)
    answer = CountAnswer(
        channel="c",
        index=0,
        noise_multiplier=generous.channels[0].noise_multiplier,
        policy_digest=generous.digest,
        epsilon=2.0,
        delta=1e-8,
        update_share=0.85,
    )
    history = device_history.history_of([answer], stream="b")
    step = participation_cost(strict.privacy.noise_multiplier)
    assert history.mu_squared + step < strict.privacy.mu_squared_limit
    assert history.counts_mu_squared > strict.privacy.mu_squared_in_all
    refusal = participation_refusal(strict.privacy, history=history, index=0)
    assert refusal is Refusal.BUDGET_SPENT


def test_events_that_no_device_debits_decide_nothing():
    with pytest.raises(UnsupportedEventError):
        device_history.history_of([PublicData(sources=("x",))], stream="s")


def test_entries_that_say_no_promise_limit_by_what_they_cost_alone():
    event = Participation(
        stream="s",
        index=0,
        noise_multiplier=10.0,
        clipping_norm=0.3,
        cohort_size=10,
        policy_digest="0" * 64,
    )
    history = device_history.history_of([event], stream="t")
    assert (history.elsewhere, history.mu_squared_limit, history.mu_squared_in_all) == (
        1,
        None,
        None,
    )
    assert history.mu_squared == pytest.approx(0.01)
