"""Confidence bounds of the audit against mpmath, published figures and closed forms."""

import math
from statistics import NormalDist

import mpmath
import numpy as np
import pytest

from privacy.audit.bounds import (
    incomplete_beta,
    least_detectable_mu,
    mu_lower_bound,
    mu_of_rates,
    typical_mu_bound,
    upper_rate,
)

NORMAL = NormalDist()


def exact_tail(rate, *, successes, trials):
    """P[B ≤ x] of a binomial, with 40 digits."""
    with mpmath.workdps(40):
        p = mpmath.mpf(rate)
        terms = (
            mpmath.binomial(trials, i) * p**i * (1 - p) ** (trials - i)
            for i in range(successes + 1)
        )
        return float(mpmath.fsum(terms))


@pytest.mark.parametrize("a", [0.5, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("b", [0.5, 2.0, 57.0])
@pytest.mark.parametrize("x", [0.0, 1e-6, 0.1, 0.5, 0.93, 1.0])
def test_incomplete_beta_is_that_of_mpmath(a, b, x):
    expected = float(mpmath.betainc(a, b, 0, x, regularized=True))

    assert incomplete_beta(x, a=a, b=b) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("successes", "trials", "alpha"),
    [(0, 1, 0.05), (3, 10, 0.025), (57, 2500, 5e-4), (771, 2500, 5e-4), (900, 1000, 1e-9)],
)
def test_clopper_and_pearsons_bound_leaves_exactly_alpha_in_the_tail(successes, trials, alpha):
    bound = upper_rate(successes, trials=trials, alpha=alpha)

    tail = exact_tail(bound, successes=successes, trials=trials)
    assert tail == pytest.approx(alpha, rel=1e-9)


def test_clopper_and_pearsons_bound_has_its_published_figures():
    assert upper_rate(5, trials=10, alpha=0.025) == pytest.approx(0.8129, abs=5e-5)
    assert upper_rate(0, trials=100, alpha=0.05) == pytest.approx(1 - 0.05**0.01, rel=1e-9)
    assert upper_rate(7, trials=7, alpha=0.05) == 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"successes": 2, "trials": 1, "alpha": 0.1},
        {"successes": -1, "trials": 1, "alpha": 0.1},
        {"successes": 0, "trials": 0, "alpha": 0.1},
        {"successes": 0, "trials": 1, "alpha": 0.0},
    ],
)
def test_bound_of_a_rate_refuses_what_is_no_experiment(arguments):
    successes = arguments.pop("successes")

    with pytest.raises(ValueError, match="must lie in"):
        upper_rate(successes, **arguments)


def test_incomplete_beta_refuses_what_has_no_value():
    with pytest.raises(ValueError, match=r"got x=1\.5"):
        incomplete_beta(1.5, a=1, b=1)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 1.0])
def test_mu_of_exact_rates_is_mu_at_every_threshold(mu, threshold):
    found = mu_of_rates(
        false_positive=NORMAL.cdf(-threshold), false_negative=NORMAL.cdf(threshold - mu)
    )

    assert found == pytest.approx(mu, rel=1e-9)


def test_rates_of_a_guess_show_nothing_and_rates_of_certainty_show_everything():
    assert mu_of_rates(false_positive=0.5, false_negative=0.5) == 0.0
    assert mu_of_rates(false_positive=0.7, false_negative=0.9) == 0.0
    assert mu_of_rates(false_positive=0.0, false_negative=0.1) == math.inf


def coins_and_scores(mu, *, canaries, seed):
    generator = np.random.default_rng(seed)
    included = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * included, included


@pytest.mark.parametrize("mu", [1.0, 2.0, 4.0])
def test_bound_lies_below_the_truth_and_near_it(mu):
    ratios = [
        mu_lower_bound(*coins_and_scores(mu, canaries=10_000, seed=seed), alpha=1e-3).mu / mu
        for seed in range(15)
    ]

    assert max(ratios) <= 1.0
    assert np.median(ratios) >= 0.75
    typical = typical_mu_bound(mu, canaries=10_000, alpha=1e-3) / mu
    assert np.median(ratios) == pytest.approx(typical, abs=0.06)


def test_bound_of_canaries_that_leave_no_trace_is_zero():
    scores, included = coins_and_scores(0.0, canaries=2_000, seed=1)

    assert mu_lower_bound(scores, included, alpha=1e-3).mu == 0.0


def test_threshold_does_not_look_at_the_half_that_it_is_judged_on():
    scores, included = coins_and_scores(2.0, canaries=2_000, seed=2)
    others = np.concatenate([scores[:1000], np.full(1000, 99.0)])

    first = mu_lower_bound(scores, included, alpha=1e-3)
    second = mu_lower_bound(others, included, alpha=1e-3)

    assert first.threshold == second.threshold
    assert first.false_positives != second.false_positives
    assert first.included + first.excluded == 1000


def test_bound_needs_canaries_of_both_kinds():
    with pytest.raises(ValueError, match="both kinds"):
        mu_lower_bound(np.zeros(10), np.zeros(10, dtype=bool), alpha=0.1)


def test_least_violation_that_is_seen_falls_with_the_claim_and_with_more_canaries():
    at_production = least_detectable_mu(0.3475, canaries=10_000, alpha=1e-3) / 0.3475
    at_four = least_detectable_mu(4.0, canaries=10_000, alpha=1e-3) / 4.0
    with_more = least_detectable_mu(0.3475, canaries=100_000, alpha=1e-3) / 0.3475

    assert at_production == pytest.approx(1.485, abs=0.01)
    assert at_four < 1.15
    assert with_more < 1.2
