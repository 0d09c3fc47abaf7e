"""Whatever a scheduler asks for, in whatever streams: no policy's promise is ever broken."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from privacy import CountAnswer, CountChannel, Participation, RecordPolicy, StreamPolicy, policy_for
from privacy.accountant import device_epsilon, gaussian_delta, mu_of_device
from privacy.budget import OwnLimits, StepOffer, count_refusal, step_refusal
from privacy.device_history import count_history_of, history_of

RECORD = RecordPolicy(
    noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5, least_rows=180
)
SHARE = 0.8


def policy(name, *, epsilon, k, b, sigma_factor, answers):
    """A policy whose noise is what it needs, or more of it than that."""
    privacy = policy_for(
        epsilon=epsilon,
        delta=1e-8,
        max_participations=k,
        clipping_norm=0.3,
        min_separation=b,
        min_cohort_size=10,
        update_share=SHARE,
    )
    privacy = replace(privacy, noise_multiplier=privacy.noise_multiplier * sigma_factor)
    least = math.sqrt(answers / privacy.mu_squared_for_counts + 1)
    return StreamPolicy(
        stream=name,
        num_rounds=12,
        cohort_size=20,
        privacy=privacy,
        record=RECORD,
        channels=(CountChannel(name="c", noise_multiplier=least * 1.001, max_answers=answers),),
    )


POLICIES = st.builds(
    policy,
    st.just("s"),
    epsilon=st.sampled_from([0.5, 2.0, 8.0]),
    k=st.integers(1, 5),
    b=st.integers(1, 3),
    sigma_factor=st.sampled_from([1.0, 1.5]),
    answers=st.integers(1, 3),
)
ASKED = st.tuples(st.integers(0, 2), st.integers(0, 13), st.booleans(), st.integers(8, 21))


def participation(policy, index):
    privacy = policy.privacy
    return Participation(
        stream=policy.stream,
        index=index,
        noise_multiplier=privacy.noise_multiplier,
        clipping_norm=privacy.clipping_norm,
        cohort_size=policy.cohort_size,
        policy_digest=policy.digest,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        update_share=privacy.update_share,
        max_participations=privacy.max_participations,
    )


def answer(policy, index):
    return CountAnswer(
        channel="c",
        index=index,
        noise_multiplier=policy.channels[0].noise_multiplier,
        policy_digest=policy.digest,
        epsilon=policy.privacy.epsilon,
        delta=policy.privacy.delta,
        update_share=policy.privacy.update_share,
    )


def may_take_part(policies, events, policy, index, cohort_size):
    """The rules of a participation, told anew: by the sets of what was done, without sums."""
    taken = [event for event in events if isinstance(event, Participation)]
    here = [event.index for event in taken if event.stream == policy.stream]
    met = [one for one in policies if any(e.policy_digest == one.digest for e in events)]
    trained = {event.policy_digest for event in taken} | {policy.digest}
    k = min(one.privacy.max_participations for one in policies if one.digest in trained)
    spent = [*(event.noise_multiplier for event in taken), policy.privacy.noise_multiplier]
    mu = math.sqrt(sum(sigma**-2 for sigma in spent))
    counts = [event for event in events if isinstance(event, CountAnswer)]
    return (
        cohort_size == policy.cohort_size
        and index < policy.num_rounds
        and all(index - before >= policy.privacy.min_separation for before in here)
        and len(taken) < k
        and all(
            mu**2 <= one.privacy.update_share * one.privacy.mu_squared_in_all * (1 + 1e-9)
            for one in [*met, policy]
        )
        and all(
            mu**2 + mu_of_device(counts) ** 2 <= one.privacy.mu_squared_in_all * (1 + 1e-9)
            for one in [*met, policy]
        )
    )


@given(st.lists(POLICIES, min_size=3, max_size=3), st.lists(ASKED, max_size=25))
def test_no_schedule_breaks_the_promise_of_any_policy(made, asked):
    policies = [replace(one, stream=f"s{place}") for place, one in enumerate(made)]
    events = []
    for place, index, is_count, cohort_size in asked:
        chosen = policies[place]
        if is_count:
            past = count_history_of(events, channel="c", policy_digest=chosen.digest)
            if count_refusal(chosen, channel="c", index=index, history=past) is None:
                events.append(answer(chosen, index))
            continue
        offer = StepOffer(
            stream=chosen.stream,
            index=index,
            clipping_norm=0.3,
            cohort_size=cohort_size,
            record=RECORD,
        )
        past = history_of(events, stream=chosen.stream)
        refusal = step_refusal(chosen, offer=offer, history=past)
        assert (refusal is None) == may_take_part(policies, events, chosen, index, cohort_size)
        if refusal is None:
            events.append(participation(chosen, index))
    for one in policies:
        if any(event.policy_digest == one.digest for event in events):
            promised = one.privacy
            epsilon = device_epsilon(events, delta=promised.delta)
            assert epsilon <= promised.epsilon * (1 + 1e-6)
    taken = [event for event in events if isinstance(event, Participation)]
    assert all(len(taken) <= event.max_participations for event in taken)


@given(POLICIES, st.integers(0, 4), st.floats(0.05, 3.0))
def test_own_limit_holds_whatever_the_policy_allows(made, k, epsilon):
    policy = replace(made, stream="s")
    own = OwnLimits(max_participations=k, max_epsilon=epsilon)
    events = []
    for index in range(12):
        offer = StepOffer(stream="s", index=index, clipping_norm=0.3, cohort_size=20, record=RECORD)
        past = history_of(events, stream="s")
        if step_refusal(policy, offer=offer, history=past, own=own) is None:
            events.append(participation(policy, index))
    assert len(events) <= k
    mu = math.sqrt(len(events)) / policy.privacy.noise_multiplier
    assert not events or gaussian_delta(mu=mu, epsilon=epsilon) <= 1e-8 * (1 + 1e-6)
