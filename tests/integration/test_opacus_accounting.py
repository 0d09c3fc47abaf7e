"""Record-level accounting against Opacus' second opinion."""

import pytest
from opacus.accountants import GaussianAccountant, PRVAccountant

from privacy import (
    RecordLevelSteps,
)
from privacy.record_accountant import RecordAccountant


def steps(count, *, sigma=1.0, rate=0.1):
    return RecordLevelSteps(
        noise_multiplier=sigma, max_grad_norm=1.0, sampling_rate=rate, steps=count
    )


@pytest.mark.parametrize(
    ("count", "sigma", "rate"), [(50, 1.0, 0.1), (10, 1.25, 0.5), (120, 4.0, 1.0)]
)
def test_epsilon_agrees_with_opacus_prv(count, sigma, rate):
    second_opinion = PRVAccountant()
    for _ in range(count):
        second_opinion.step(noise_multiplier=sigma, sample_rate=rate)
    epsilon = RecordAccountant([steps(count, sigma=sigma, rate=rate)]).epsilon(delta=1e-5)
    assert epsilon == pytest.approx(second_opinion.get_epsilon(delta=1e-5), rel=0.01)


def test_gdp_would_under_report():
    count, sigma, rate = 1000, 1.0, 0.01
    claimed = GaussianAccountant()
    for _ in range(count):
        claimed.step(noise_multiplier=sigma, sample_rate=rate)
    epsilon = RecordAccountant([steps(count, sigma=sigma, rate=rate)]).epsilon(delta=1e-5)
    assert claimed.get_epsilon(delta=1e-5) < 0.9 * epsilon
