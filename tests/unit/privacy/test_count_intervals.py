"""Intervals of ratios of noised sums, against formulas and by simulation."""

import math

import numpy as np
import pytest

from privacy.count_intervals import (
    PSEUDO_COUNT,
    Estimate,
    bounded_estimate,
    difference_excludes_zero,
    distance_from,
    fieller,
    not_measurable,
    quantile,
    ratio,
    sampling_variance,
    shares,
)


def estimate(value, low, high):
    return Estimate(value=value, low=low, high=high)


def test_quantiles_are_those_of_the_normal_distribution():
    assert quantile(0.95) == pytest.approx(1.959963984540054)
    assert quantile(0.95, comparisons=10) == pytest.approx(2.807033768343811)
    with pytest.raises(ValueError, match="confidence"):
        quantile(1.0)


def test_ends_of_an_interval_are_where_the_difference_is_z_standard_deviations_off():
    found = fieller(
        300.0, 1000.0, variance_above=900.0, variance_below=1600.0, covariance=200.0, z=2.0
    )

    for end in (found.low, found.high):
        spread = math.sqrt(900.0 - 2 * end * 200.0 + end**2 * 1600.0)
        assert abs(300.0 - end * 1000.0) == pytest.approx(2.0 * spread)
    assert found.value == 0.3


def test_a_sum_that_may_be_noise_alone_is_no_denominator():
    found = fieller(30.0, 100.0, variance_above=1.0, variance_below=900.0, covariance=0.0, z=1.96)

    assert not found.is_measurable
    assert (found.low, found.high) == (0.0, 1.0)
    assert "noise" in found.why_not
    below_zero = fieller(3.0, -9.0, variance_above=1.0, variance_below=0.1, covariance=0.0, z=1.96)
    assert not below_zero.is_measurable


def test_an_interval_wider_than_useful_says_so_and_keeps_its_ends():
    wide = bounded_estimate(0.5, 0.3, 0.6)

    assert wide.value is None
    assert (wide.low, wide.high) == (0.3, 0.6)
    assert wide.why_not == "the interval is 0.30 wide, above 0.2"
    assert bounded_estimate(1.1, 0.9, 1.2).value == 1.0
    assert not_measurable("why").why_not == "why"


def test_sampling_variance_is_poisson_and_never_nothing():
    found = sampling_variance(np.array([-5.0, 0.0, 100.0]), repeats=3)

    assert found.tolist() == [3 * PSEUDO_COUNT, 3 * PSEUDO_COUNT, 3 * (100 + PSEUDO_COUNT)]


def test_a_veto_needs_an_interval_of_the_difference_that_excludes_zero():
    good, worse, alike = (
        estimate(0.85, 0.83, 0.87),
        estimate(0.75, 0.72, 0.78),
        estimate(0.83, 0.8, 0.86),
    )

    assert difference_excludes_zero(worse, good)
    assert not difference_excludes_zero(good, worse)
    assert not difference_excludes_zero(alike, good)
    assert not difference_excludes_zero(not_measurable("x"), good)
    assert not difference_excludes_zero(worse, not_measurable("x"))


def test_veto_rule_rarely_fires_on_equal_models():
    """2,000 pairs of equal truth: one-sided 2.5 % at most, + 1 % tolerance (false alarm 2e-3)."""
    rng = np.random.default_rng(4)
    spread, fired = 0.02, 0
    for first, second in rng.normal(0.8, spread, (2000, 2)):
        pair = [estimate(x, x - 1.96 * spread, x + 1.96 * spread) for x in (first, second)]
        fired += difference_excludes_zero(pair[0], pair[1])

    assert fired / 2000 <= 0.035


def test_shares_hold_together_and_noise_alone_is_no_drift():
    """300 releases without drift: the lower end lies above 0 in 5 % + 4 % at most."""
    rng = np.random.default_rng(5)
    reference, noise, alarms = [0.3, 0.3, 0.3, 0.1], 900.0, 0
    for _ in range(300):
        counts = rng.multinomial(8000, reference) + rng.normal(0, math.sqrt(noise), 4)
        found = shares(counts, variance=noise + sampling_variance(counts))
        alarms += distance_from(found, reference).low > 0

    assert alarms / 300 <= 0.09


def test_drift_that_is_there_is_found_with_its_size():
    counts = np.array([4000.0, 2000.0, 1200.0, 800.0])
    found = shares(counts, variance=900.0 + sampling_variance(counts))
    distance = distance_from(found, [0.3, 0.3, 0.3, 0.1])

    assert distance.low > 0.1
    assert distance.low < 0.2 < distance.high
    faint = shares(np.array([9.0, 3.0]), variance=np.array([900.0, 900.0]))
    assert not distance_from(faint, [0.5, 0.5]).is_measurable


def test_a_share_of_counts_is_estimated_with_the_covariance_of_sum_and_part():
    """Against simulation: 4,000 draws, coverage at least 95 % − 1.5 % (false alarm 1e-5)."""
    rng = np.random.default_rng(6)
    true, noise, inside = np.array([150.0, 350.0]), 100.0, 0
    for _ in range(4000):
        counts = true + rng.normal(0, math.sqrt(noise), 2)
        found = ratio(
            counts,
            over=np.array([1.0, 0.0]),
            under=np.ones(2),
            variance=np.full(2, noise),
        )
        inside += found.low <= 0.3 <= found.high

    assert inside / 4000 >= 0.935
