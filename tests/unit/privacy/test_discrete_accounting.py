"""The charge for discrete Gaussian noise against exact sums and dp-accounting: never under."""

import math
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from privacy.accountant import gaussian_delta, gaussian_epsilon
from privacy.discrete_accounting import (
    count_noise_multiplier_for,
    lattice_slack,
    mu_squared_of_count,
    mu_with_slack,
)

DELTA = 1e-8


@cache
def law_of_sum(sigma, answers):
    """Of the noises of several answers, by convolution of positive numbers, without its last 1e-18.

    What is cut off is added to every δ.
    """
    points = np.arange(-int(14 * sigma) - 10, int(14 * sigma) + 11)
    one = np.exp(-(points.astype(np.float64) ** 2) / (2 * sigma * sigma))
    one, total = one / one.sum(), np.ones(1)
    for _ in range(answers):
        total = np.convolve(total, one)
        total = total[total > 1e-20]
    return np.arange(len(total)) - len(total) // 2, total


def exact_delta(epsilon, *, sigma, shift, answers, gaussian_mu=0.0):
    """δ(ε) of several answers, each moved by `shift` in one coordinate, beside Gaussian releases.

    The loss of all answers is (shift·S + answers·shift²/2)/σ² with S the sum of their noises, a
    convolution of positive numbers; what Gaussian releases add is δ_μ(ε − loss) on average.
    """
    sums, total = law_of_sum(sigma, answers)
    losses = (shift * sums + answers * shift * shift / 2) / (sigma * sigma)
    if gaussian_mu == 0.0:
        return float(np.sum(total * np.maximum(0.0, 1.0 - np.exp(epsilon - losses))))
    return sum(
        weight * any_delta(gaussian_mu, epsilon - loss)
        for weight, loss in zip(total.tolist(), losses.tolist(), strict=True)
        if weight > 1e-16
    )


def any_delta(mu, epsilon):
    """δ of a μ-GDP mechanism for any real ε; below 0 by δ(−ε) = 1 − e^(−ε)(1 − δ(ε))."""
    if epsilon >= 0:
        return gaussian_delta(mu=mu, epsilon=epsilon)
    mirrored = gaussian_delta(mu=mu, epsilon=-epsilon)
    return 1.0 - math.exp(epsilon) * (1.0 - mirrored)


def exact_epsilon(**mechanism):
    low, high = 0.0, 1.0
    while exact_delta(high, **mechanism) > DELTA:
        high *= 2
    for _ in range(22):
        middle = (low + high) / 2
        low, high = (low, middle) if exact_delta(middle, **mechanism) <= DELTA else (middle, high)
    return high


def charged_mu(sigma, sensitivity, answers, gaussian_mu=0.0):
    multiplier = sigma / sensitivity
    mu = math.sqrt(answers * mu_squared_of_count(multiplier) + gaussian_mu**2)
    return mu_with_slack(mu, slack=answers * lattice_slack(multiplier))


@pytest.mark.parametrize("answers", [1, 2, 24])
@pytest.mark.parametrize(("sigma", "sensitivity"), [(1.5, 1), (3.0, 1), (7.5, 2), (33.6, 1)])
def test_charge_is_never_below_the_exact_sum(sigma, sensitivity, answers):
    exact = exact_epsilon(sigma=sigma, shift=sensitivity, answers=answers)
    charged = gaussian_epsilon(mu=charged_mu(sigma, sensitivity, answers), delta=DELTA)
    assert charged >= exact


def test_the_naive_charge_is_below_the_exact_sum():
    # The reason for all this: where ε falls between two points of the lattice, 1/σ² under-counts.
    sigma, epsilon = 3.0, 10 / 9
    exact = exact_delta(epsilon, sigma=sigma, shift=1, answers=1)
    assert gaussian_delta(mu=1 / sigma, epsilon=epsilon) < exact * (1 - 1e-3)
    assert gaussian_delta(mu=charged_mu(sigma, 1, 1), epsilon=epsilon) > exact


@pytest.mark.parametrize(("sigma", "answers"), [(25.0, 1), (33.6, 24), (25.0, 8)])
def test_charge_is_within_a_thousandth_of_exact_at_the_noise_of_production(sigma, answers):
    exact = exact_epsilon(sigma=sigma, shift=1, answers=answers)
    charged = gaussian_epsilon(mu=charged_mu(sigma, 1, answers), delta=DELTA)
    assert exact <= charged <= exact * 1.001


@pytest.mark.slow
@pytest.mark.parametrize("answers", [4, 24])
def test_charge_beside_updates_is_within_a_thousandth_and_never_below(answers):
    updates = math.sqrt(24) / 14.1
    multiplier = count_noise_multiplier_for(mu_squared=0.15 / 0.85 * updates**2, answers=answers)
    exact = exact_epsilon(sigma=multiplier, shift=1, answers=answers, gaussian_mu=updates)
    charged = gaussian_epsilon(mu=charged_mu(multiplier, 1, answers, updates), delta=DELTA)
    assert exact <= charged <= exact * 1.001


@pytest.mark.parametrize(
    ("sigma", "sensitivity", "answers"), [(6.0, 1, 8), (33.6, 1, 24), (40, 2, 5)]
)
def test_charge_is_not_below_what_dp_accounting_cannot_rule_out(sigma, sensitivity, answers):
    optimistic = pld.from_discrete_gaussian_mechanism(
        sigma, sensitivity, pessimistic_estimate=False, value_discretization_interval=1e-4
    ).self_compose(answers)
    pessimistic = pld.from_discrete_gaussian_mechanism(
        sigma, sensitivity, value_discretization_interval=1e-4
    ).self_compose(answers)
    charged = gaussian_epsilon(mu=charged_mu(sigma, sensitivity, answers), delta=DELTA)
    assert charged >= optimistic.get_epsilon_for_delta(DELTA)
    assert charged <= pessimistic.get_epsilon_for_delta(DELTA) * (1 + 2 * sensitivity**2 / sigma**2)


def test_several_coordinates_moved_by_one_cost_no_more_than_one_moved_as_far():
    # ‖(1, 1, 1, 1)‖ = ‖(2, 0, 0, 0)‖: four sums of one coordinate each, the losses add up.
    spread = exact_epsilon(sigma=7.5, shift=1, answers=4 * 6)
    charged = gaussian_epsilon(mu=charged_mu(7.5, 2, 6), delta=DELTA)
    assert charged >= spread


@pytest.mark.slow
@pytest.mark.parametrize("multiplier", [1.05, 1.3, 2.0, 5.0, 33.6])
def test_slack_bounds_the_ratio_to_the_post_processed_gaussian(multiplier):
    # P[Y = y]/N_Z(y) with 50 digits: the integral of the derivation, by the trapezoid rule, which
    # converges faster than any power here.
    with mpmath.workdps(30):
        sigma2 = mpmath.mpf(multiplier) ** 2
        tau2 = sigma2 - 1
        theta = lambda x: sum(mpmath.exp(-((n - x) ** 2) / 2) for n in range(-11, 12))  # noqa: E731
        total = sum(mpmath.exp(-(n * n) / (2 * sigma2)) for n in range(-300, 301))
        grid = [mpmath.mpf(n) / 8 for n in range(-8 * 8, 8 * 8 + 1)]
        ratios = []
        for y in (0, 1):
            center, spread2 = y * tau2 / sigma2, tau2 / sigma2
            weights = [mpmath.exp(-(u * u) / (2 * spread2)) for u in grid]
            values = [1 / theta((center + u) % 1) for u in grid]
            mean = mpmath.fdot(weights, values) / mpmath.fsum(weights)
            surrogate = mpmath.exp(-(y * y) / (2 * sigma2)) / mpmath.sqrt(sigma2) * mean
            exact = mpmath.exp(-(y * y) / (2 * sigma2)) / total
            ratios.append(abs(mpmath.log(surrogate / exact)))
        assert max(ratios) <= lattice_slack(multiplier) * (1 + 1e-9)


@pytest.mark.parametrize("mu", [0.05, 0.377, 1.0, 4.0])
@pytest.mark.parametrize("slack", [1e-14, 1e-8, 1e-5])
def test_raised_mu_covers_the_factor_at_every_epsilon(mu, slack):
    raised = mu_with_slack(mu, slack=slack)
    with mpmath.workdps(50):

        def delta_of(mean, epsilon):
            upper = mpmath.ncdf(-epsilon / mean + mean / 2)
            return upper - mpmath.e**epsilon * mpmath.ncdf(-epsilon / mean - mean / 2)

        for epsilon in (0.0, mu / 7, mu, mu * mu / 2 + 3 * mu, mu * mu / 2 + 9 * mu):
            shifted = mpmath.mpf(epsilon) - 2 * mpmath.mpf(slack)
            needed = mpmath.e ** mpmath.mpf(slack) * delta_of(mpmath.mpf(mu), shifted)
            assert (
                needed
                <= delta_of(mpmath.mpf(raised), mpmath.mpf(epsilon)) * (1 + mpmath.mpf(10) ** -9)
                or raised == mu
            )


def test_slack_of_production_is_below_rounding():
    assert 24 * lattice_slack(33.6) < 1e-14
    assert mu_with_slack(0.377, slack=24 * lattice_slack(33.6)) == pytest.approx(0.377, rel=1e-13)


def test_noise_as_small_as_the_sensitivity_is_charged_without_bound():
    assert mu_squared_of_count(1.0) == math.inf
    assert mu_squared_of_count(0.3) == math.inf
    assert lattice_slack(1.0) == math.inf
    assert mu_squared_of_count(2.0) == pytest.approx(1 / 3)
    assert mu_with_slack(100.0, slack=1e-16) == math.inf
    assert mu_with_slack(100.0, slack=0.0) == 100.0


@pytest.mark.parametrize("answers", [1, 8, 24])
def test_least_noise_multiplier_spends_the_budget_and_no_more(answers):
    multiplier = count_noise_multiplier_for(mu_squared=0.0213, answers=answers)
    assert answers * mu_squared_of_count(multiplier) <= 0.0213
    assert answers * mu_squared_of_count(multiplier) == pytest.approx(0.0213, rel=1e-9)
    for bad in ({"mu_squared": 0.0, "answers": 1}, {"mu_squared": 1.0, "answers": 0}):
        with pytest.raises(ValueError, match="must be"):
            count_noise_multiplier_for(**bad)


def test_the_sampler_and_the_charge_speak_of_the_same_law():
    # Canonne, Kamath, Steinke 2020, theorem 7, with the exact law of the sampler at σ² = 9/4.
    variance, epsilon = Fraction(9, 4), 1.25
    with mpmath.workdps(40):
        law = {x: mpmath.exp(mpmath.mpf(-x * x) / (2 * mpmath.mpf(9) / 4)) for x in range(-60, 61)}
        total = mpmath.fsum(law.values())
        above = [x for x in law if x > epsilon * float(variance) - 0.5]
        twice = [x for x in law if x > epsilon * float(variance) + 0.5]
        upper = mpmath.fsum(law[x] for x in above) / total
        lower = mpmath.fsum(law[x] for x in twice) / total
        theorem = float(upper - mpmath.e**epsilon * lower)
    assert exact_delta(epsilon, sigma=1.5, shift=1, answers=1) == pytest.approx(theorem, rel=1e-12)
    mu = charged_mu(1.5, 1, 1)
    assert gaussian_delta(mu=mu, epsilon=epsilon) >= theorem
