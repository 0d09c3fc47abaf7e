"""Record-level accounting against the policy's figure and Opacus' second opinion."""

import pytest
from opacus.accountants import PRVAccountant

from privacy import RecordLevelSteps, UnsupportedEventError
from privacy.record_accountant import RecordAccountant
from tests.unit.privacy.test_accountant import release


def steps(count, *, sigma=1.0, rate=0.1):
    return RecordLevelSteps(
        noise_multiplier=sigma, max_grad_norm=1.0, sampling_rate=rate, steps=count
    )


def test_default_policy_costs_seven_point_seven_over_its_life():
    accountant = RecordAccountant([steps(5) for _ in range(24)])
    assert accountant.epsilon(delta=1e-5) == pytest.approx(7.7, abs=0.05)


def test_epsilon_agrees_with_opacus_prv():
    second_opinion = PRVAccountant()
    for _ in range(50):
        second_opinion.step(noise_multiplier=1.0, sample_rate=0.1)
    epsilon = RecordAccountant([steps(50)]).epsilon(delta=1e-5)
    assert epsilon == pytest.approx(second_opinion.get_epsilon(delta=1e-5), rel=0.01)


def test_one_accountant_for_life_adds_up_over_rounds():
    accountant = RecordAccountant()
    accountant.add(steps(5, sigma=4.0))
    first_round = accountant.epsilon(delta=1e-5)
    accountant.add(steps(5, sigma=4.0))
    assert accountant.epsilon(delta=1e-5) > first_round


def test_different_recipes_compose():
    alone = RecordAccountant([steps(5, sigma=4.0)]).epsilon(delta=1e-5)
    mixed = RecordAccountant([steps(5, sigma=4.0), steps(5, sigma=6.0)]).epsilon(delta=1e-5)
    assert alone < mixed


def test_a_delta_that_whole_rows_could_meet_is_refused():
    with pytest.raises(ValueError, match="delta must lie in"):
        RecordAccountant([steps(5)]).epsilon(delta=2e-3)


def test_a_release_is_not_accounted_at_record_level():
    with pytest.raises(UnsupportedEventError):
        RecordAccountant([release()])
