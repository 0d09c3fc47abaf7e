"""The exact Gaussian accountant against published figures, mpmath and dp-accounting."""

import math

import dp_accounting
import mpmath
import pytest
from dp_accounting.pld import PLDAccountant

from privacy import GaussianRelease, PublicData, RecordLevelSteps, UnsupportedEventError
from privacy.accountant import (
    gaussian_delta,
    gaussian_epsilon,
    mu_for,
    mu_of_releases,
    noise_multiplier_for,
    release_epsilon,
)


def exact_delta(mu, epsilon):
    """Balle and Wang 2018, theorem 8, with 60 digits."""
    with mpmath.workdps(60):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        upper = mpmath.ncdf(-epsilon / mu + mu / 2)
        lower = mpmath.e**epsilon * mpmath.ncdf(-epsilon / mu - mu / 2)
        return float(upper - lower)


def release(index=0, *, stream="s", sigma=10.0, most=1, clipping_norm=1.0):
    return GaussianRelease(
        stream=stream,
        index=index,
        mechanism="independent_gaussian",
        noise_multiplier=sigma,
        clipping_norm=clipping_norm,
        cohort_size=100,
        most_participations=most,
    )


@pytest.mark.parametrize(
    ("delta", "epsilon", "participations", "sigma"),
    [
        (1e-6, 1, 10, 13.36),
        (1e-6, 2, 10, 7.05),
        (1e-6, 3, 10, 4.88),
        (1e-6, 8, 10, 2.06),
        (1e-6, 2, 24, 10.93),
        (1e-8, 1, 10, 16.13),
        (1e-8, 2, 10, 8.39),
        (1e-8, 3, 10, 5.75),
        (1e-8, 8, 10, 2.37),
        (1e-8, 2, 24, 13.0),
        (1e-10, 1, 10, 18.56),
        (1e-10, 2, 10, 9.57),
        (1e-10, 3, 10, 6.52),
        (1e-10, 8, 10, 2.64),
        (1e-10, 2, 24, 14.82),
    ],
)
def test_noise_multiplier_matches_the_published_table(delta, epsilon, participations, sigma):
    computed = noise_multiplier_for(epsilon=epsilon, delta=delta, participations=participations)
    assert computed == pytest.approx(sigma, abs=0.006)


def test_default_policy_gives_updates_85_percent_of_mu_squared():
    assert mu_for(epsilon=2, delta=1e-8) ** 2 == pytest.approx(0.1421, abs=5e-5)
    sigma = noise_multiplier_for(epsilon=2, delta=1e-8, participations=24, share=0.85)
    assert sigma == pytest.approx(14.10, abs=0.005)


@pytest.mark.parametrize("mu", [1e-3, 0.05, 0.3769, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0, 12.0])
def test_delta_matches_sixty_digits_far_into_the_tail(mu, ratio):
    epsilon = mu * mu / 2 + ratio * mu
    exact = exact_delta(mu, epsilon)
    assert gaussian_delta(mu=mu, epsilon=epsilon) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("sigma", "participations"), [(8.39, 10), (13.0, 24), (2.0, 3), (0.5, 1)])
def test_epsilon_agrees_with_privacy_loss_distributions_and_lies_a_hair_below(
    sigma, participations
):
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(sigma), participations)
    upper_bound = accountant.get_epsilon(1e-8)

    epsilon = gaussian_epsilon(mu=math.sqrt(participations) / sigma, delta=1e-8)

    assert epsilon <= upper_bound
    assert epsilon == pytest.approx(upper_bound, rel=1e-4)


def test_epsilon_of_a_mechanism_without_noise_is_infinite():
    assert gaussian_epsilon(mu=math.inf, delta=1e-8) == math.inf
    assert release_epsilon([release(sigma=0.0)], delta=1e-8) == math.inf


def test_epsilon_of_nothing_released_is_zero():
    assert release_epsilon([], delta=1e-8) == 0.0
    assert release_epsilon([PublicData(sources=("made up",))], delta=1e-8) == 0.0


def test_releases_count_the_device_that_was_invited_most():
    events = [release(0, most=1), release(1, most=1), release(2, most=2)]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(2) / 10)


def test_streams_add_up():
    events = [
        release(0, stream="a", sigma=10.0, most=1),
        release(0, stream="b", sigma=5.0, most=1),
        release(1, stream="b", sigma=5.0, most=2),
    ]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(1 / 100 + 2 / 25))


def test_a_constant_changed_within_a_stream_is_refused():
    with pytest.raises(ValueError, match="changed its clipping_norm at step 1"):
        mu_of_releases([release(0), release(1, clipping_norm=0.5)])


def test_record_level_steps_are_never_merged_with_releases():
    steps = RecordLevelSteps(noise_multiplier=1, max_grad_norm=1, sampling_rate=0.1, steps=5)
    with pytest.raises(UnsupportedEventError):
        mu_of_releases([steps])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epsilon": 2, "delta": 0.0, "participations": 1}, "delta"),
        ({"epsilon": 2, "delta": 1.0, "participations": 1}, "delta"),
        ({"epsilon": 0, "delta": 1e-6, "participations": 1}, "epsilon"),
        ({"epsilon": math.inf, "delta": 1e-6, "participations": 1}, "epsilon"),
        ({"epsilon": 2, "delta": 1e-6, "participations": 0}, "participations"),
        ({"epsilon": 2, "delta": 1e-6, "participations": 1, "share": 0.0}, "share"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        noise_multiplier_for(**arguments)
