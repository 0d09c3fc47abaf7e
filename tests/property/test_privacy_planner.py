"""Plans: every policy holds its ε at any schedule, and a larger fleet is never planned worse."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privacy import RecordPolicy, StreamPolicy, gaussian_epsilon
from privacy.banded_factor import factor_matrix, sensitivity
from privacy.discrete_accounting import mu_squared_of_count
from privacy.planner import PlanRequest, TooFewDevicesError, plan_for
from server.engine.cohorts import CohortHistory, invitation_order, select_cohort
from server.engine.cohorts import Schedule as PublicSchedule
from tests.support.examples import examples

RECORD = RecordPolicy(
    noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5, least_rows=180
)


def request(**fields):
    usual = {
        "devices": 10_000,
        "epsilon": 2.0,
        "delta": 1e-8,
        "years": 2.0,
        "weights": 2500,
        "clipping_norm": 0.3,
        "record": RECORD,
    }
    return PlanRequest(**(usual | fields))


requests = st.builds(
    request,
    devices=st.integers(200, 200_000),
    epsilon=st.floats(0.1, 20),
    delta=st.sampled_from([1e-6, 1e-8, 1e-10]),
    years=st.floats(0.1, 4),
    rounds_a_week=st.sampled_from([0.25, 1.0, 2.0]),
    most_a_year=st.sampled_from([1.0, 6.0, 12.0, 26.0]),
    dropout=st.floats(0, 0.9),
    weights=st.integers(1, 5000),
    held_out_share=st.sampled_from([0.0, 0.2, 0.5]),
)


def planned(asked):
    try:
        return plan_for(asked)
    except TooFewDevicesError:
        assume(False)


@settings(max_examples=examples(25), deadline=None)
@given(requests, st.data())
def test_a_plan_keeps_its_policy_and_its_epsilon_at_any_schedule(asked, data):
    plan = planned(asked)
    chosen, policy = plan.schedule, plan.policy(stream="s")

    assert StreamPolicy.from_json(policy.to_json()) == policy
    assert chosen.participations <= asked.most_participations
    assert asked.num_rounds * chosen.cohort_size <= (chosen.participations * asked.training_devices)
    assert chosen.cohort_size * chosen.separation <= asked.training_devices
    assert chosen.bands <= chosen.separation

    rounds = _adversarial_rounds(data, chosen, asked.num_rounds)
    factor = factor_matrix(asked.num_rounds, chosen.bands)
    of_updates = (sensitivity(factor, rounds) / chosen.noise_multiplier) ** 2
    for held_out, updates in ((False, of_updates), (True, 0.0)):
        of_counts = math.fsum(
            channel.max_answers * mu_squared_of_count(channel.noise_multiplier)
            for channel in plan.channels
            if channel.held_out is held_out
        )
        spent = gaussian_epsilon(mu=math.sqrt(updates + of_counts), delta=asked.delta)
        assert spent <= asked.epsilon
        assert spent <= plan.epsilon * (1 + 1e-9)
    assert plan.epsilon <= asked.epsilon


def _adversarial_rounds(data, chosen, num_rounds):
    """Any k rounds at least b apart: what a scheduler may do that devices do not refuse."""
    rounds, first = [], 0
    slack = num_rounds - 1
    while len(rounds) < chosen.participations and first <= slack:
        index = data.draw(st.integers(first, min(slack, first + chosen.separation)))
        rounds.append(index)
        first = index + chosen.separation
    return rounds


@settings(max_examples=examples(25), deadline=None)
@given(requests, st.integers(1, 5000))
def test_a_larger_fleet_is_never_planned_worse(asked, more):
    small = planned(asked)
    large = plan_for(
        request(
            **{name: getattr(asked, name) for name in asked.__slots__}
            | {"devices": asked.devices + more}
        )
    )

    assert large.schedule.error <= small.schedule.error
    assert large.signal_to_noise >= small.signal_to_noise


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(200, 2000), st.sampled_from([0.5, 2.0]), st.sampled_from([1.0, 12.0]))
def test_the_public_schedule_carries_a_plan_out(devices, years, most_a_year):
    asked = request(devices=devices, years=years, most_a_year=most_a_year, weights=10, epsilon=8.0)
    plan = planned(asked)
    chosen = plan.schedule
    ids = [f"d{number}" for number in range(asked.training_devices)]
    order = invitation_order(ids, stream="s")
    schedule = PublicSchedule(
        population_size=len(ids),
        cohort_size=chosen.cohort_size,
        num_rounds=asked.num_rounds,
    )
    history = CohortHistory.empty(len(ids))

    for index in range(asked.num_rounds):
        cohort = select_cohort(
            order,
            schedule=schedule,
            history=history,
            index=index,
            max_participations=chosen.participations,
            min_separation=chosen.separation,
        )
        assert len(cohort) == chosen.cohort_size
        history = history.after(cohort, index=index)
    assert history.most_participations <= chosen.participations


@pytest.mark.parametrize("epsilon", [0.2, 2.0])
def test_the_least_number_of_devices_that_is_told_is_the_least(epsilon):
    with pytest.raises(TooFewDevicesError) as refused:
        plan_for(request(devices=20, epsilon=epsilon))
    least = refused.value.least_devices

    assert f"{least:,}" in str(refused.value)
    assert plan_for(request(devices=least, epsilon=epsilon)).signal_to_noise >= 1.0
    with pytest.raises(TooFewDevicesError):
        plan_for(request(devices=least - 1, epsilon=epsilon))
