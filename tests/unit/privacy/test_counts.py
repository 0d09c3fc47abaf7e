"""Noised sums of counts: noise as promised, charged before it is drawn, pooled alike."""

import math
from fractions import Fraction

import numpy as np
import pytest

from privacy import CountChannel, OperatingSystemNoise
from privacy.counts import NoisedCounts, count_release, noise_variance, noised, pooled

CHANNEL = CountChannel(name="metrics", noise_multiplier=13.3, max_answers=24, held_out=True)


def test_the_variance_is_exact_and_never_below_what_was_promised():
    for multiplier in (1.0001, 13.3, 27.417552419930814):
        channel = CountChannel(name="x", noise_multiplier=multiplier, max_answers=1)
        for bound in (1, 8):
            exact = Fraction(multiplier) ** 2 * bound
            found = noise_variance(channel, sensitivity_squared=bound)
            assert exact <= found < exact + Fraction(1, 256)
            assert 256 % found.denominator == 0


def test_noise_of_a_release_has_the_promised_spread():
    """400 draws: the sample's standard deviation lies within 5 of its own (false alarm 6e-7)."""
    total = np.zeros(400, np.int64)

    found = noised(
        total, CHANNEL, sensitivity_squared=4, cohort_size=9, source=OperatingSystemNoise()
    )

    std = 2 * 13.3
    assert abs(found.counts.std() - std) < 5 * std / math.sqrt(2 * 400)
    assert found.noise_variance >= std**2
    assert (found.counts == np.round(found.counts)).all()
    assert found.cohort_size == 9


def test_two_releases_of_one_total_differ():
    total = np.arange(50)
    draws = [
        noised(total, CHANNEL, sensitivity_squared=1, cohort_size=9, source=OperatingSystemNoise())
        for _ in range(2)
    ]

    assert (draws[0].counts != draws[1].counts).any()


def test_the_event_of_a_release_carries_what_its_accounting_needs():
    event = count_release(
        CHANNEL,
        index=4,
        sensitivity_squared=9,
        cohort_size=1000,
        most_answers=5,
        policy_digest="ab",
    )

    assert (event.channel, event.sensitivity, event.most_answers) == ("metrics", 3.0, 5)
    assert event.held_out
    with pytest.raises(ValueError, match="24 times"):
        count_release(
            CHANNEL,
            index=24,
            sensitivity_squared=1,
            cohort_size=1000,
            most_answers=25,
            policy_digest="ab",
        )


def test_pooled_counts_and_noise_add_up_alike():
    one = NoisedCounts(counts=np.array([1.0, 2.0]), noise_variance=9.0, cohort_size=10)
    both = pooled([one, one, one])

    assert both.counts.tolist() == [3.0, 6.0]
    assert (both.noise_variance, both.cohort_size, both.releases) == (27.0, 30, 3)
    with pytest.raises(ValueError, match="at least one"):
        pooled([])
    other = NoisedCounts(counts=np.zeros(3), noise_variance=9.0, cohort_size=10)
    with pytest.raises(ValueError, match="one shape"):
        pooled([one, other])
