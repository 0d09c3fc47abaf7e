"""The audit with one run, against binomials, mpmath and mechanisms of known ε."""

import math

import mpmath
import numpy as np
import pytest

from privacy.audit.one_run import one_run_bound, one_run_p_value


def exact_p_value(*, canaries, guesses, right, epsilon, delta):
    """Steinke, Nasr, Jagielski 2023, theorem 5.2, with 40 digits."""
    with mpmath.workdps(40):
        q = 1 / (1 + mpmath.exp(-mpmath.mpf(epsilon)))
        mass = [
            mpmath.binomial(guesses, v) * q**v * (1 - q) ** (guesses - v)
            for v in range(guesses + 1)
        ]
        slopes = [mpmath.fsum(mass[right - i : right]) / i for i in range(1, right + 1)]
        term = 2 * canaries * mpmath.mpf(delta) * max([mpmath.mpf(0), *slopes])
        return float(min(mpmath.mpf(1), mpmath.fsum(mass[right:]) + term))


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(("guesses", "right"), [(1, 1), (40, 33), (200, 0), (200, 150)])
def test_p_value_is_that_of_the_theorem(guesses, right, epsilon, delta):
    facts = {"canaries": 400, "guesses": guesses, "right": right}

    found = one_run_p_value(**facts, epsilon=epsilon, delta=delta)

    expected = exact_p_value(**facts, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(expected, rel=1e-9)


def test_p_value_refuses_more_right_guesses_than_guesses():
    with pytest.raises(ValueError, match="need 0 ≤ right"):
        one_run_p_value(canaries=10, guesses=5, right=6, epsilon=1.0, delta=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bound_on_randomised_response_stays_below_its_epsilon_and_near_it(epsilon):
    generator = np.random.default_rng(3)
    bounds = []
    for _ in range(10):
        included = generator.random(10_000) < 0.5
        truth_told = generator.random(10_000) < 1 / (1 + math.exp(-epsilon))
        scores = np.where(truth_told, included, ~included) + 0.001 * generator.random(10_000)
        bounds.append(one_run_bound(scores, included, delta=0.0, alpha=1e-3).epsilon)

    assert max(bounds) <= epsilon
    assert np.median(bounds) >= 0.7 * epsilon


def test_bound_is_zero_where_scores_say_nothing():
    generator = np.random.default_rng(4)
    included = generator.random(2_000) < 0.5

    bound = one_run_bound(generator.normal(size=2_000), included, delta=1e-5, alpha=1e-3)

    assert bound.epsilon == 0.0
    assert bound.canaries == 1_000
