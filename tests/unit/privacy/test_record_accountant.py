"""Record-level accounting: the policy's figure, composition and statement."""

import pytest

from privacy import (
    CountAnswer,
    Participation,
    RecordLevelSteps,
    UnsupportedEventError,
    gaussian_epsilon,
)
from privacy.record_accountant import RecordAccountant
from tests.unit.privacy.test_accountant import release


def steps(count, *, sigma=1.0, rate=0.1):
    return RecordLevelSteps(
        noise_multiplier=sigma, max_grad_norm=1.0, sampling_rate=rate, steps=count
    )


@pytest.fixture(scope="module")
def default_policy():
    """Five steps in each of 24 participations."""
    return RecordAccountant([steps(5) for _ in range(24)]).statement(delta=1e-5)


@pytest.mark.slow
def test_default_policy_costs_seven_point_seven_over_its_life(default_policy):
    assert default_policy.epsilon == pytest.approx(7.7, abs=0.05)


@pytest.mark.slow
def test_steps_on_all_rows_are_the_plain_gaussian_mechanism():
    epsilon = RecordAccountant([steps(9, sigma=3.0, rate=1.0)]).epsilon(delta=1e-5)
    exact = gaussian_epsilon(mu=1.0, delta=1e-5)
    assert exact <= epsilon <= exact * 1.001


def test_a_mechanism_that_gives_no_upper_bound_is_refused():
    with pytest.raises(ValueError, match="no upper bound"):
        RecordAccountant(mechanism="gdp")
    with pytest.raises(ValueError, match="must be pld"):
        RecordAccountant(mechanism="rdp")


def test_one_accountant_for_life_adds_up_over_rounds():
    accountant = RecordAccountant()
    accountant.add(steps(5, sigma=8.0))
    first_round = accountant.epsilon(delta=1e-5)
    accountant.add(steps(5, sigma=8.0))
    assert accountant.epsilon(delta=1e-5) > first_round


def test_different_recipes_compose():
    alone = RecordAccountant([steps(5, sigma=8.0)]).epsilon(delta=1e-5)
    mixed = RecordAccountant([steps(5, sigma=8.0), steps(5, sigma=9.0)]).epsilon(delta=1e-5)
    assert alone < mixed


def test_a_delta_that_whole_rows_could_meet_is_refused():
    with pytest.raises(ValueError, match="delta must lie in"):
        RecordAccountant([steps(5)]).epsilon(delta=2e-3)


def test_a_release_is_not_accounted_at_record_level():
    with pytest.raises(UnsupportedEventError):
        RecordAccountant([release()])


def test_steps_of_a_whole_device_ledger_are_composed_whatever_their_stream():
    taken = [
        Participation(
            stream=stream,
            index=0,
            noise_multiplier=8.39,
            clipping_norm=1.0,
            cohort_size=500,
            policy_digest="0" * 64,
        )
        for stream in ("first", "second")
    ]
    answer = CountAnswer(channel="metrics", index=0, noise_multiplier=30.0, policy_digest="0" * 64)
    ledger = [taken[0], steps(5, sigma=8.0), answer, taken[1], steps(5, sigma=8.0)]
    assert RecordAccountant.of_ledger(ledger).epsilon(delta=1e-5) == pytest.approx(
        RecordAccountant([steps(10, sigma=8.0)]).epsilon(delta=1e-5)
    )
    with pytest.raises(UnsupportedEventError):
        RecordAccountant.of_ledger([release()])


def test_a_device_that_never_trained_has_spent_nothing():
    assert RecordAccountant().epsilon(delta=1e-5) == 0.0


@pytest.mark.slow
def test_statement_says_what_the_figure_protects_and_what_not(default_policy):
    first, protects, *others = default_policy.to_text().splitlines()
    assert first == "ε_record = 7.7 at δ = 1e-05"
    assert protects.startswith("protects: one training row (one device and day)")
    for wanted in ("not a reading", "not a day", "not a failure", "fewer rows", "ε_release"):
        assert any(line.startswith("not") and wanted in line for line in others)
    assert any(line.startswith("assumes: ") and "Poisson" in line for line in others)
