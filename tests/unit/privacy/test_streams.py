"""Streams of correlated noise: made again bit for bit, given out once, in the right covariance."""

import inspect

import numpy as np
import pytest

from privacy import NoiseReuseError, StreamPolicy
from privacy.banded_factor import factor_matrix
from privacy.errors import NoiseGapError, StreamEndedError
from privacy.streams import CorrelatedNoise, new_stream_key
from simulations.seeded_streams import SeededKeys, SeededStream, seeded_stream
from tests.support.stream_policies import stream_policy

KEY = bytes(range(32))


def run(noise, steps, size):
    return np.stack([noise.noise(index, size) for index in range(steps)])


@pytest.mark.parametrize("bands", [1, 2, 4, 20])
def test_noise_is_the_inverse_factor_times_independent_gaussians(bands):
    policy = stream_policy(separation=20, bands=bands, num_rounds=40)
    correlated = run(CorrelatedNoise(KEY, policy), 40, 6)
    independent = run(CorrelatedNoise(KEY, stream_policy(separation=20, bands=1)), 40, 6)
    assert factor_matrix(40, bands) @ correlated == pytest.approx(independent, rel=1e-9, abs=1e-12)


def test_noise_that_is_bound_to_a_sum_is_that_sums_alone_and_repeats_with_it():
    def bound_to(*digests):
        noise = CorrelatedNoise(KEY, stream_policy())
        for index, digest in enumerate(digests):
            noise.bind(index, digest * 32)
        return run(noise, len(digests), 2000)

    once, again, other = bound_to(b"a", b"b"), bound_to(b"a", b"b"), bound_to(b"a", b"c")
    free = run(CorrelatedNoise(KEY, stream_policy()), 2, 2000)
    assert np.array_equal(once, again)
    assert np.array_equal(once[0], other[0])
    assert abs(np.corrcoef(once[1] - other[1], free[1])[0, 1]) < 0.1
    assert np.std(once[1] - other[1]) == pytest.approx(2**0.5 * np.std(free[0]), rel=0.1)


def test_step_is_bound_once_and_before_its_noise():
    noise = CorrelatedNoise(KEY, stream_policy())
    noise.bind(0, b"a" * 32)
    noise.bind(0, b"a" * 32)
    with pytest.raises(NoiseReuseError):
        noise.bind(0, b"b" * 32)
    noise.noise(0, 3)
    with pytest.raises(NoiseReuseError):
        noise.bind(0, b"a" * 32)
    with pytest.raises(ValueError, match="digest must have 32 bytes, got 4"):
        noise.bind(1, b"abcd")


@pytest.mark.parametrize("next_index", [0, 1, 3, 4, 17, 103, 104])
def test_a_resumed_stream_is_bit_identical(next_index):
    policy = stream_policy()
    whole = run(CorrelatedNoise(KEY, policy), 104, 11)
    resumed = CorrelatedNoise.resumed(KEY, policy, next_index, 11)
    assert resumed.next_index == next_index
    for index in range(next_index, 104):
        assert np.array_equal(resumed.noise(index, 11), whole[index])


def test_what_the_caller_does_with_noise_does_not_reach_later_steps():
    policy = stream_policy()
    whole = run(CorrelatedNoise(KEY, policy), 6, 5)
    noise = CorrelatedNoise(KEY, policy)
    for index in range(6):
        given = noise.noise(index, 5)
        assert np.array_equal(given, whole[index])
        given[:] = 1e9


def test_another_key_gives_other_noise_and_an_odd_size_the_right_number():
    policy = stream_policy()
    first = CorrelatedNoise(KEY, policy).noise(0, 7)
    second = CorrelatedNoise(bytes(32), policy).noise(0, 7)
    assert first.shape == (7,)
    assert not np.any(first == second)


@pytest.mark.parametrize("again", [0, 2])
def test_noise_given_out_is_not_given_again(again):
    noise = CorrelatedNoise.resumed(KEY, stream_policy(), 3, 4)
    with pytest.raises(NoiseReuseError) as caught:
        noise.noise(again, 4)
    assert (caught.value.index, caught.value.last_index) == (again, 2)


def test_a_step_is_not_skipped():
    noise = CorrelatedNoise.resumed(KEY, stream_policy(), 3, 4)
    with pytest.raises(NoiseGapError) as caught:
        noise.noise(4, 4)
    assert (caught.value.index, caught.value.next_index) == (4, 3)


def test_a_stream_ends_where_its_policy_ends():
    noise = CorrelatedNoise.resumed(KEY, stream_policy(num_rounds=3), 3, 4)
    with pytest.raises(StreamEndedError) as caught:
        noise.noise(3, 4)
    assert (caught.value.index, caught.value.num_rounds) == (3, 3)
    with pytest.raises(StreamEndedError):
        CorrelatedNoise.resumed(KEY, stream_policy(num_rounds=3), 5, 4)


def test_the_number_of_weights_does_not_change_on_the_way():
    noise = CorrelatedNoise.resumed(KEY, stream_policy(), 3, 4)
    with pytest.raises(ValueError, match="size must be 4"):
        noise.noise(3, 5)


def test_bands_wider_than_the_separation_are_refused_even_past_the_policy():
    with pytest.raises(ValueError, match=r"bands must lie in 1\.\.4"):
        stream_policy(separation=4, bands=5)
    policy = stream_policy(separation=4, bands=4)
    object.__setattr__(policy.privacy, "bands", 5)
    with pytest.raises(ValueError, match=r"bands must lie in 1\.\.4"):
        CorrelatedNoise(KEY, policy)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_a_key_of_another_length_is_refused(key):
    with pytest.raises(ValueError, match="key must have 32 bytes"):
        CorrelatedNoise(key, stream_policy())


def test_entries_under_the_systems_entropy_are_stamped_stream():
    noise = CorrelatedNoise(new_stream_key(), stream_policy())
    assert (noise.entry_kind, noise.mechanism) == ("stream", "banded_matrix_factorisation")
    assert noise.noise_multiplier == stream_policy().privacy.noise_multiplier


def test_simulated_streams_repeat_for_a_seed_and_are_stamped_so_after_resuming_too():
    policy, other = stream_policy(stream="a"), stream_policy(stream="b")
    assert np.array_equal(run(seeded_stream(3, policy), 5, 4), run(seeded_stream(3, policy), 5, 4))
    assert not np.any(seeded_stream(3, policy).noise(0, 4) == seeded_stream(4, policy).noise(0, 4))
    assert not np.any(seeded_stream(3, policy).noise(0, 4) == seeded_stream(3, other).noise(0, 4))
    keys = SeededKeys(3)
    resumed = keys.noise(keys.new_key(policy), policy, next_index=2, size=4)
    assert isinstance(resumed, SeededStream)
    assert resumed.entry_kind == "simulated"
    assert np.array_equal(resumed.noise(2, 4), run(seeded_stream(3, policy), 3, 4)[2])


def test_nothing_seeds_a_stream_of_production():
    assert not inspect.signature(new_stream_key).parameters
    assert list(inspect.signature(CorrelatedNoise).parameters) == ["key", "policy"]
    assert "seed" not in StreamPolicy.__dataclass_fields__


def test_covariance_over_steps_is_that_of_the_inverse_factor():
    # w = C⁻¹ z, so Cov(w) = σ²C² (CᵀC)⁻¹. A coordinate is an independent draw of all steps; the
    # standard error of a covariance entry is √((S_ii S_jj + S_ij²)/n); 5 of them, on fixed bits.
    policy, size = stream_policy(num_rounds=12, separation=4, bands=4), 40_000
    drawn = run(CorrelatedNoise(KEY, policy), 12, size)
    scale = (policy.privacy.noise_multiplier * policy.privacy.clipping_norm) ** 2
    inverse = np.linalg.inv(factor_matrix(12, 4))
    expected = scale * inverse @ inverse.T
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / size)
    assert np.all(np.abs(drawn @ drawn.T / size - expected) < 5 * error)
    # The check can fail: independent steps of the same variances do not have this covariance.
    diagonal = np.diag(np.diag(expected))
    assert np.any(np.abs(drawn @ drawn.T / size - diagonal) > 20 * error)


def test_prefix_sums_of_the_noise_stay_where_the_factor_says():
    policy, size = stream_policy(num_rounds=60, separation=20, bands=20), 20_000
    noise = run(CorrelatedNoise(KEY, policy), 60, size)
    scale = policy.privacy.noise_multiplier * policy.privacy.clipping_norm
    inverse = np.linalg.inv(factor_matrix(60, 20))
    expected = scale * np.linalg.norm(np.tril(np.ones((60, 60))) @ inverse, axis=1)
    # Standard error of a standard deviation: s/√(2n); 5 of them.
    assert np.cumsum(noise, axis=0).std(axis=1) == pytest.approx(
        expected, rel=5 / np.sqrt(2 * size)
    )
