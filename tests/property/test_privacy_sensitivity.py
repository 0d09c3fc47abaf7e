"""The explicit sensitivity of correlated noise, whatever an adversarial scheduler does."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from privacy import clip_update
from privacy.adaptive_clipping import AdaptiveClipping, NormalisedGrid, next_clipping_norm
from privacy.banded_factor import factor_matrix, sensitivity
from simulations.seeded_noise import SeededNoise

ROUNDS = 60


def kept(wishes, *, separation, most):
    """What is left of a scheduler's wishes when separation and cap are kept."""
    taken = []
    for step in sorted(set(wishes)):
        if len(taken) < most and (not taken or step - taken[-1] >= separation):
            taken.append(step)
    return taken


steps_wished = st.lists(st.integers(0, ROUNDS - 1), min_size=1, max_size=ROUNDS)


@given(wishes=steps_wished, separation=st.integers(1, 12), most=st.integers(1, 24), data=st.data())
def test_no_schedule_that_keeps_separation_and_cap_exceeds_the_bound(
    wishes, separation, most, data
):
    bands = data.draw(st.integers(1, separation))
    steps = kept(wishes, separation=separation, most=most)
    explicit = sensitivity(factor_matrix(ROUNDS, bands), steps)
    assert explicit <= math.sqrt(most) * (1 + 1e-12)
    assert explicit <= math.sqrt(len(steps)) * (1 + 1e-12)


@given(wishes=steps_wished, bands=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_no_vectors_move_the_factor_more_than_its_sensitivity(wishes, bands, seed):
    steps, matrix = sorted(set(wishes)), factor_matrix(ROUNDS, bands)
    vectors = np.random.default_rng(seed).standard_normal((len(steps), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = float(np.linalg.norm(matrix[:, steps] @ vectors))
    assert moved <= sensitivity(matrix, steps) * (1 + 1e-12)


@given(wishes=steps_wished, separation=st.integers(1, 12), bands=st.integers(2, 12), data=st.data())
def test_a_schedule_that_breaks_the_separation_exceeds_the_bound(wishes, separation, bands, data):
    whole = ROUNDS - bands
    steps = kept([step for step in wishes if step <= whole], separation=separation, most=24)
    assume(steps)
    first = data.draw(st.sampled_from(steps))
    near = first + data.draw(st.integers(1, bands - 1))
    assume(near <= whole and near not in steps)
    explicit = sensitivity(factor_matrix(ROUNDS, bands), [*steps, near])
    assert explicit > math.sqrt(len(steps) + 1) * (1 + 1e-6)


numbers = st.floats(-1e6, 1e6, width=32)
norms = st.floats(1e-3, 1e3)


@given(
    updates=st.lists(st.tuples(st.lists(numbers, min_size=3, max_size=3), norms), max_size=8),
    separation=st.integers(1, 4),
)
def test_sensitivity_holds_while_the_clipping_norm_moves(updates, separation):
    """The stream sees g/C_t of norm at most 1, however C_t moves and whatever a device sends."""
    sent = [
        NormalisedGrid(clipping_norm=norm).contribution(np.array(update))
        for update, norm in updates
    ]
    assert all(sum(int(value) ** 2 for value in one[:-1]) <= (2**36) ** 2 for one in sent)
    assert all(abs(int(one[-1])) in {0, 2**36} for one in sent)
    steps = [number * separation for number in range(len(sent))]
    matrix = factor_matrix(40, separation)
    exact = np.array(sent, dtype=np.float64).reshape(len(sent), 4)[:, :3] / 2.0**36
    moved = float(np.linalg.norm(matrix[:, steps] @ exact))
    assert moved <= math.sqrt(len(sent)) * (1 + 1e-9)


def test_clipping_to_a_falling_norm_without_rescaling_breaks_the_bound():
    # The defect: updates of norm C_t, z_t of scale σC_t. Then w = C⁻¹ D z with D = diag(C_t), and a
    # device moves D⁻¹ C x: an update of step 0 is hidden by later rows whose noise is smaller.
    falling = np.diag([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    factor, sent = factor_matrix(8, 4), np.zeros((8, 1))
    sent[[0, 4], 0] = falling[0, 0], falling[4, 4]
    broken = np.linalg.norm(np.linalg.inv(falling) @ factor @ sent)
    assert broken > 1.2 * math.sqrt(2)
    # The form used here: the stream sees D⁻¹ x, and D is applied to what is released.
    honest = np.linalg.norm(factor @ np.linalg.inv(falling) @ sent)
    assert honest == pytest.approx(math.sqrt(2))


@given(update=st.lists(numbers, min_size=1, max_size=5), norm=norms)
def test_the_bit_says_whether_the_update_was_clipped(update, norm):
    sent = NormalisedGrid(clipping_norm=norm).contribution(np.array(update)) / 2.0**36
    length = math.sqrt(math.fsum(value * value for value in update))
    assert sent[-1] in ({-1.0, 1.0} if length else {0.0})
    if length and abs(length - norm) > 1e-9 * norm:
        assert sent[-1] == (1 if length <= norm else -1)
        clipped = clip_update(np.array(update), clipping_norm=norm)
        assert np.allclose(sent[:-1] * norm, clipped, rtol=1e-9, atol=norm * 2.0**-35)


@pytest.mark.parametrize("update", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1e308, 1e308]])
def test_whoever_sits_out_or_does_not_stay_finite_is_no_bit_and_no_update(update):
    sent = NormalisedGrid(clipping_norm=1e-3).contribution(np.array(update))
    assert sent.tolist() == [0, 0, 0]


def test_a_sum_of_bits_beyond_its_devices_is_impossible():
    grid = NormalisedGrid(clipping_norm=0.3)
    one = grid.contribution(np.array([0.3, 0.0]) * (1 - 1e-9))
    assert grid.sum_is_possible(3 * one, num_devices=3)
    assert not grid.sum_is_possible(3 * one, num_devices=2)
    assert not grid.sum_is_possible(one * [0, 0, 3], num_devices=2)


CLIPPING = AdaptiveClipping(
    initial_norm=1.0, noise_multiplier=20.0, least_norm=0.01, greatest_norm=50.0
)


@given(norm=st.floats(0.01, 50.0), mean_bit=st.floats(-1e6, 1e6))
def test_the_norm_stays_within_its_bounds_and_moves_by_little(norm, mean_bit):
    moved = next_clipping_norm(CLIPPING, clipping_norm=norm, mean_bit=mean_bit)
    assert CLIPPING.least_norm <= moved <= CLIPPING.greatest_norm
    assert abs(math.log(moved / norm)) <= CLIPPING.learning_rate + 1e-12


def test_the_norm_finds_the_median_in_private():
    lengths = np.exp(np.random.default_rng(4).normal(0.5, 0.4, 1_000))
    norm, source = CLIPPING.initial_norm, SeededNoise(1, "bits")
    for _ in range(100):
        bits = np.where(lengths <= norm, 1, -1).sum() + source.gaussian(1, std=20.0)[0]
        norm = next_clipping_norm(CLIPPING, clipping_norm=norm, mean_bit=bits / 1_000)
    # Noise of 20 half bits among 1,000 moves the share by 0.01, the norm by some percent.
    assert norm == pytest.approx(np.median(lengths), rel=0.08)


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_norm": 0.001},
        {"initial_norm": math.nan},
        {"noise_multiplier": 0.0},
        {"target_quantile": 1.0},
        {"learning_rate": 0.0},
    ],
)
def test_constants_without_a_meaning_are_refused(wrong):
    constants = {
        "initial_norm": 1.0,
        "noise_multiplier": 20.0,
        "least_norm": 0.01,
        "greatest_norm": 50.0,
    }
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaptiveClipping(**(constants | wrong))
