"""Clipping bounds a device, and the grid keeps the bound and exact sums."""

import numpy as np
import pytest

from privacy import UpdateGrid, clip_update


def test_short_update_passes_unchanged():
    update = np.array([0.3, -0.4], dtype=np.float32)
    assert np.array_equal(clip_update(update, clipping_norm=1.0), update.astype(np.float64))


def test_long_update_keeps_its_direction_and_gets_the_norm():
    clipped = clip_update(np.array([3.0, -4.0]), clipping_norm=1.0)
    assert clipped == pytest.approx([0.6, -0.8], rel=1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_update_with_one_bad_value_becomes_zero(bad):
    update = np.array([0.1, bad, 0.2], dtype=np.float32)
    assert np.array_equal(clip_update(update, clipping_norm=1.0), np.zeros(3))


def test_huge_and_tiny_values_do_not_overflow():
    huge = clip_update(np.array([1e300, 1e300]), clipping_norm=1.0)
    assert np.linalg.norm(huge) == pytest.approx(1.0)
    tiny = np.array([5e-324, 0.0])
    assert np.array_equal(clip_update(tiny, clipping_norm=1.0), tiny)


def test_grid_rounds_toward_zero():
    grid = UpdateGrid(clipping_norm=1.0)
    just_under_two_steps = np.array([1.999, -1.999]) * grid.step
    assert grid.quantise(just_under_two_steps).tolist() == [1, -1]


def test_quantised_update_is_within_a_step_of_the_update():
    grid = UpdateGrid(clipping_norm=0.3)
    update = clip_update(np.linspace(-1, 1, 50), clipping_norm=0.3)
    restored = grid.restore(grid.quantise(update))
    assert np.max(np.abs(restored - update)) <= grid.step
    assert np.all(np.abs(restored) <= np.abs(update))


def test_sum_of_the_largest_cohort_fits():
    grid = UpdateGrid(clipping_norm=1.0)
    one = grid.quantise(clip_update(np.array([5.0]), clipping_norm=1.0))
    assert int(one[0]) * grid.max_devices < 2**63


def test_sum_that_honest_devices_cannot_send_is_recognised():
    grid = UpdateGrid(clipping_norm=1.0)
    one = grid.quantise(clip_update(np.array([3.0, 4.0]), clipping_norm=1.0))
    assert grid.sum_is_possible(3 * one, num_devices=3)
    assert not grid.sum_is_possible(3 * one, num_devices=2)
    assert not grid.sum_is_possible(one, num_devices=0)
    assert grid.sum_is_possible(0 * one, num_devices=0)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_grid_without_a_norm_is_refused(norm):
    with pytest.raises(ValueError, match="clipping_norm"):
        UpdateGrid(clipping_norm=norm)


def test_noise_is_rounded_to_the_nearest_step():
    grid = UpdateGrid(clipping_norm=0.3)
    noise = np.array([0.4, 0.6, -0.4, -0.6, 12.0]) * grid.step
    assert grid.round_noise(noise).tolist() == [0, 1, 0, -1, 12]
    assert grid.round_noise(noise).dtype == np.int64


def test_rounding_noise_and_adding_is_adding_and_rounding():
    # round(total + noise) = total + round(noise): what the accounting calls post-processing.
    grid = UpdateGrid(clipping_norm=1.0)
    total = grid.quantise(np.array([0.25, -0.125, 0.0, 0.75]))
    noise = np.array([3.3, -2.7, 0.49, 1e4 + 0.51]) * grid.step
    together = np.rint(total.astype(np.float64) + noise / grid.step)
    assert np.array_equal(total + grid.round_noise(noise), together.astype(np.int64))


def test_possible_outputs_do_not_depend_on_the_sum():
    grid = UpdateGrid(clipping_norm=1.0)
    noise = np.linspace(-2, 2, 1001) * 5 * grid.step
    reached = [set((np.full(1001, total) + grid.round_noise(noise)).tolist()) for total in (0, 7)]
    assert {value + 7 for value in reached[0]} == reached[1]


def test_noise_beside_the_largest_cohort_stays_within_int64():
    grid = UpdateGrid(clipping_norm=1.0)
    largest = grid.round_noise(np.array([2.0**25 - 1]))
    assert int(largest[0]) + 2**36 * grid.max_devices < 2**63


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**25])
def test_noise_that_is_not_finite_or_too_large_is_refused(bad):
    with pytest.raises(ValueError, match="noise must be finite"):
        UpdateGrid(clipping_norm=1.0).round_noise(np.array([0.0, bad]))
