"""Noise: its distribution, its origin, and that no step's noise is given out twice."""

import inspect

import numpy as np
import pytest
from scipy import stats

from privacy import IndependentGaussian, NoiseReuseError, OperatingSystemNoise, WithoutNoise


def test_operating_system_gaussians_are_gaussian():
    # Kolmogorov-Smirnov at 1e-6: one false alarm in a million runs.
    draws = OperatingSystemNoise().gaussian(20_001, std=3.0)
    assert draws.shape == (20_001,)
    assert stats.kstest(draws, "norm", args=(0, 3.0)).pvalue > 1e-6


def test_pairs_of_gaussians_are_uncorrelated():
    # Box-Muller makes them in pairs, half a vector apart; 6 standard errors of a correlation.
    draws = OperatingSystemNoise().gaussian(20_000, std=1.0)
    assert abs(np.mean(draws[:10_000] * draws[10_000:])) < 6 / np.sqrt(10_000)


def test_operating_system_uniforms_are_uniform_and_below_one():
    draws = OperatingSystemNoise().uniform(20_000)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-6


def test_operating_system_noise_does_not_repeat_and_takes_no_seed():
    assert not inspect.signature(OperatingSystemNoise).parameters
    first, second = OperatingSystemNoise(), OperatingSystemNoise()
    assert not np.array_equal(first.gaussian(8, std=1.0), second.gaussian(8, std=1.0))
    assert not first.is_simulated


def test_release_noise_has_the_claimed_scale():
    noise = IndependentGaussian(OperatingSystemNoise(), noise_multiplier=14.1, clipping_norm=0.5)
    drawn = noise.noise(0, 40_000)
    # Standard error of a standard deviation: s/√(2n); 6 of them.
    assert drawn.std() == pytest.approx(14.1 * 0.5, rel=6 / np.sqrt(80_000))


def test_steps_carry_independent_noise():
    noise = IndependentGaussian(OperatingSystemNoise(), noise_multiplier=1.0, clipping_norm=1.0)
    first, second = noise.noise(0, 10_000), noise.noise(1, 10_000)
    assert abs(np.mean(first * second)) < 6 / np.sqrt(10_000)


@pytest.mark.parametrize("again", [3, 2, 0])
def test_noise_of_a_step_is_given_out_once(again):
    noise = IndependentGaussian(OperatingSystemNoise(), noise_multiplier=1.0, clipping_norm=1.0)
    noise.noise(3, 4)
    with pytest.raises(NoiseReuseError) as caught:
        noise.noise(again, 4)
    assert (caught.value.index, caught.value.last_index) == (again, 3)


def test_real_noise_is_stamped_stream_and_no_noise_as_comparison():
    noise = IndependentGaussian(OperatingSystemNoise(), noise_multiplier=1.0, clipping_norm=1.0)
    assert (noise.entry_kind, noise.mechanism) == ("stream", "independent_gaussian")
    without = WithoutNoise()
    assert (without.entry_kind, without.mechanism) == ("comparison", "none")
    assert without.noise_multiplier == 0.0
    assert not without.noise(0, 5).any()


def test_gaussian_release_without_a_scale_is_refused():
    with pytest.raises(ValueError, match="noise_multiplier"):
        IndependentGaussian(OperatingSystemNoise(), noise_multiplier=0.0, clipping_norm=1.0)
