"""The exact Gaussian accountant against published figures, mpmath and dp-accounting."""

import math

import dp_accounting
import mpmath
import pytest
from dp_accounting.pld import PLDAccountant

from privacy import (
    CorrelatedRelease,
    CountAnswer,
    CountRelease,
    GaussianRelease,
    Participation,
    PublicData,
    RecordLevelSteps,
    UnsupportedEventError,
)
from privacy.accountant import (
    device_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    mu_for,
    mu_of_device,
    mu_of_releases,
    mu_squared_of_step,
    noise_multiplier_for,
    part_of_ledger,
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
    accountant = PLDAccountant(value_discretization_interval=1e-3)
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


def correlated(index=0, **changed):
    fields = {
        "stream": "s",
        "index": index,
        "noise_multiplier": 10.0,
        "clipping_norm": 0.3,
        "cohort_size": 100,
        "bands": 2,
        "min_separation": 2,
        "most_participations": 1,
        "policy_digest": "d",
    }
    return CorrelatedRelease(**(fields | changed))


def counted(index=0, **changed):
    fields = {
        "channel": "metrics",
        "index": index,
        "noise_multiplier": 20.0,
        "sensitivity": 1.0,
        "cohort_size": 100,
        "most_answers": 1,
        "policy_digest": "d",
    }
    return CountRelease(**(fields | changed))


def took_part(index=0, **changed):
    fields = {
        "stream": "s",
        "index": index,
        "noise_multiplier": 10.0,
        "clipping_norm": 0.3,
        "cohort_size": 100,
        "policy_digest": "d",
    }
    return Participation(**(fields | changed))


def answered(index=0, **changed):
    fields = {"channel": "metrics", "index": index, "noise_multiplier": 20.0, "policy_digest": "d"}
    return CountAnswer(**(fields | changed))


def test_correlated_releases_count_the_device_that_was_invited_most():
    events = [correlated(0), correlated(1), correlated(2, most_participations=2)]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(2) / 10, rel=1e-12)


def test_an_aborted_round_stays_charged():
    events = [correlated(0, noise_only=True)]
    assert mu_of_releases(events) == pytest.approx(0.1, rel=1e-12)


def test_bits_that_steer_the_norm_cost_one_over_their_noise_squared():
    # σ_b = 20 in units of ½: standard deviation 10 on the sum of bits, 1/(2·10)² a participation.
    assert mu_squared_of_step(noise_multiplier=10, clip_noise_multiplier=20) == pytest.approx(
        1 / 100 + 1 / (2 * 10) ** 2
    )
    events = [correlated(0, clip_noise_multiplier=20.0)]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(1 / 100 + 1 / 400), rel=1e-12)
    assert mu_of_device([took_part(clip_noise_multiplier=20.0)]) == mu_of_releases(events)
    assert mu_squared_of_step(noise_multiplier=0.0) == math.inf


def test_counts_add_to_updates_under_one_figure():
    events = [correlated(0), counted(0), counted(1, most_answers=2)]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(1 / 100 + 2 / 399), rel=1e-12)
    own = [took_part(0), answered(0), answered(1)]
    assert mu_of_device(own) == pytest.approx(mu_of_releases(events), rel=1e-12)
    assert device_epsilon(own, delta=1e-8) == pytest.approx(
        gaussian_epsilon(mu=math.sqrt(1 / 100 + 2 / 399), delta=1e-8), rel=1e-9
    )


def test_channels_of_different_policies_are_different_channels():
    events = [counted(0), counted(0, policy_digest="other", noise_multiplier=5.0)]
    assert mu_of_releases(events) == pytest.approx(math.sqrt(1 / 399 + 1 / 24), rel=1e-12)


def test_what_one_device_was_charged_most_is_taken_where_it_is_stated_last():
    apart = [
        correlated(0, most_mu_squared=0.01),
        correlated(0, stream="t", noise_multiplier=5.0, most_mu_squared=0.04),
    ]
    assert mu_of_releases(apart) == pytest.approx(0.2, rel=1e-9)
    unstated = [*apart, correlated(1, stream="t", noise_multiplier=5.0)]
    assert mu_of_releases(unstated) == pytest.approx(math.sqrt(0.01 + 0.04), rel=1e-12)


@pytest.mark.parametrize("stated", [0.0, 0.039])
def test_a_stated_figure_that_the_counts_contradict_is_refused(stated):
    events = [
        correlated(0),
        correlated(0, stream="t", noise_multiplier=5.0, most_mu_squared=stated),
    ]
    with pytest.raises(ValueError, match="does not fit the ledger's counts"):
        mu_of_releases(events)


def test_a_figure_over_a_longer_ledger_does_not_raise_that_of_a_part():
    events = [correlated(0, most_mu_squared=0.3)]
    assert mu_of_releases(part_of_ledger(events)) == pytest.approx(0.1, rel=1e-12)


def test_a_stated_figure_above_what_the_events_add_up_to_is_taken():
    """A device that answered as one that never trains, and was then invited, is neither sum's."""
    events = [counted(0, held_out=True), correlated(0, most_mu_squared=1 / 100 + 1 / 399)]
    assert mu_of_releases(events) ** 2 == pytest.approx(1 / 100 + 1 / 399, rel=1e-9)


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_multiplier": 9.0},
        {"clipping_norm": 0.2},
        {"cohort_size": 99},
        {"bands": 1},
        {"min_separation": 3},
        {"policy_digest": "e"},
        {"clip_noise_multiplier": 30.0},
    ],
)
def test_every_constant_of_a_stream_is_one(changed):
    name = next(iter(changed))
    with pytest.raises(ValueError, match=f"stream 's' changed its {name} at step 1"):
        mu_of_releases([correlated(0), correlated(1, **changed)])
    if name not in {"bands", "min_separation"}:
        with pytest.raises(ValueError, match=f"stream 's' changed its {name} at step 1"):
            mu_of_device([took_part(0), took_part(1, **changed)])


@pytest.mark.parametrize("changed", [{"noise_multiplier": 9.0}, {"sensitivity": 2.0}])
def test_every_constant_of_a_channel_is_one(changed):
    name = next(iter(changed))
    with pytest.raises(ValueError, match=f"channel 'metrics' changed its {name} at step 1"):
        mu_of_releases([counted(0), counted(1, **changed)])


@pytest.mark.parametrize(("index", "named"), [(0, "step 0 after step 0"), (2, "step 2 after")])
def test_a_step_that_is_repeated_or_missing_is_refused(index, named):
    with pytest.raises(ValueError, match=named):
        mu_of_releases([correlated(0), correlated(index)])


def test_a_stream_that_changed_its_mechanism_is_refused():
    with pytest.raises(ValueError, match="stream 's' changed its"):
        mu_of_releases([correlated(0), release(1, clipping_norm=0.3)])


def test_a_device_pays_for_a_step_each_time_its_ledger_holds_it():
    assert mu_of_device([took_part(0), took_part(0)]) == pytest.approx(math.sqrt(2) / 10)


def test_record_level_steps_count_nothing_in_a_device_ledger_and_releases_do_not_belong_there():
    steps = RecordLevelSteps(noise_multiplier=1, max_grad_norm=1, sampling_rate=0.1, steps=5)
    assert mu_of_device([took_part(0), steps]) == mu_of_device([took_part(0)])
    with pytest.raises(UnsupportedEventError):
        mu_of_device([correlated(0)])
    with pytest.raises(UnsupportedEventError):
        mu_of_releases([took_part(0)])


def test_count_noise_that_bounds_nothing_is_charged_without_bound():
    assert mu_of_device([answered(noise_multiplier=1.0)]) == math.inf
    assert mu_of_releases([counted(noise_multiplier=0.5)]) == math.inf


@pytest.mark.parametrize("delta", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0, 8.0])
def test_the_greatest_mu_never_costs_more_than_the_epsilon_it_is_for(epsilon, delta):
    back = gaussian_epsilon(mu=mu_for(epsilon=epsilon, delta=delta), delta=delta)
    assert epsilon * (1 - 2e-9) <= back <= epsilon
