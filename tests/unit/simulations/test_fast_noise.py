"""Fast seeded numbers: repeatable, apart from each other, and Gaussian."""

import math

import numpy as np
import pytest

from simulations.cohort_engine.block_noise import NoiseDrawnAhead, NoiseOfSources, block_noise
from simulations.cohort_engine.fast_noise import FastSeededNoise
from simulations.seeded_noise import SeededNoise

SIZE = 2**18


def tail(deviations):
    """Probability that |N(0, 1)| is greater."""
    return math.erfc(deviations / math.sqrt(2))


def test_numbers_depend_on_seed_and_purpose_alone():
    first = FastSeededNoise(1, "device", "s", 7).gaussian(99, std=1.0)
    assert np.array_equal(FastSeededNoise(1, "device", "s", 7).gaussian(99, std=1.0), first)
    for other in (FastSeededNoise(2, "device", "s", 7), FastSeededNoise(1, "device", "s", 8)):
        assert not np.array_equal(other.gaussian(99, std=1.0), first)
    assert FastSeededNoise(1).is_simulated


def test_coins_do_not_move_noise_and_later_calls_give_other_numbers():
    mixed, straight = FastSeededNoise(1, "a"), FastSeededNoise(1, "a")
    mixed.uniform(10)
    mixed.words(3)
    assert np.array_equal(mixed.gaussian(9, std=2.0), straight.gaussian(9, std=2.0))
    assert not np.array_equal(
        mixed.gaussian(9, std=2.0), FastSeededNoise(1, "a").gaussian(9, std=2)
    )


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_gaussian(seed):
    """Each bound is five standard errors wide: one false alarm in 100,000 runs and figures."""
    drawn = FastSeededNoise(seed, "noise").gaussian(SIZE, std=1.0)
    error = 5 / math.sqrt(SIZE)
    assert abs(drawn.mean()) < error
    assert abs(drawn.var() - 1) < error * math.sqrt(2)
    assert abs((drawn**3).mean()) < error * math.sqrt(15)
    assert abs((drawn**4).mean() - 3) < error * math.sqrt(96)
    for deviations in (0.5, 1.0, 2.0, 3.0, 4.0):
        expected = tail(deviations)
        bound = 5 * math.sqrt(expected / SIZE)
        assert abs((np.abs(drawn) > deviations).mean() - expected) < bound
    halves = drawn.reshape(2, -1)
    assert abs((halves[0] * halves[1]).mean()) < 5 / math.sqrt(SIZE / 2)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < error
    assert np.abs(drawn).max() < 6.8


def test_uniforms_and_words_fill_their_range():
    source = FastSeededNoise(3)
    drawn = source.uniform(SIZE)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5 / math.sqrt(12 * SIZE)
    assert source.words(4).dtype == np.uint64


def test_a_block_draws_ahead_what_each_source_gives_call_by_call():
    counts, names = (3, 0, 10), ("a", "b", "c")
    ahead = NoiseDrawnAhead([FastSeededNoise(1, name) for name in names], counts, steps=4)
    alone = NoiseOfSources([FastSeededNoise(1, name) for name in names], counts)
    for _ in range(4):
        assert np.array_equal(ahead.coins(), alone.coins())
        assert np.array_equal(ahead.gaussians(7), alone.gaussians(7))


def test_only_fresh_fast_sources_are_drawn_ahead():
    used = FastSeededNoise(1)
    used.uniform(1)
    assert isinstance(block_noise([FastSeededNoise(1)], [3], steps=1), NoiseDrawnAhead)
    for source in (used, SeededNoise(1)):
        chosen = block_noise([FastSeededNoise(2), source], [3, 3], steps=1)
        assert isinstance(chosen, NoiseOfSources)
