"""The banded factor: its coefficients, its norm, its error, against explicit matrices."""

import math
from fractions import Fraction

import numpy as np
import pytest

from privacy.banded_factor import (
    band_coefficients,
    factor_matrix,
    prefix_errors,
    prefix_sum_error,
    sensitivity,
)


def test_coefficients_are_those_of_the_square_root():
    # (1 - x)^(-1/2) = 1 + x/2 + 3/8 x² + 5/16 x³ + …
    raw = [Fraction(1), Fraction(1, 2), Fraction(3, 8), Fraction(5, 16)]
    norm = math.sqrt(sum(value * value for value in raw))
    assert band_coefficients(4) == pytest.approx([float(value) / norm for value in raw], rel=1e-15)
    assert band_coefficients(1) == (1.0,)


def test_full_bands_are_the_square_root_of_the_prefix_sum():
    steps = 40
    first = band_coefficients(steps)[0]
    root = factor_matrix(steps, steps) / first
    assert root @ root == pytest.approx(np.tril(np.ones((steps, steps))), abs=1e-12)


@pytest.mark.parametrize("bands", [1, 2, 4, 20])
def test_columns_have_norm_one_but_the_last(bands):
    norms = np.linalg.norm(factor_matrix(60, bands), axis=0)
    assert norms[: 60 - bands + 1] == pytest.approx(1.0, abs=1e-15)
    assert np.all(norms[60 - bands + 1 :] < 1.0)


@pytest.mark.parametrize("bands", [1, 3, 20])
def test_columns_as_far_apart_as_the_bands_are_orthogonal_and_nearer_ones_are_not(bands):
    gram = factor_matrix(60, bands).T @ factor_matrix(60, bands)
    lag = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    assert np.all(gram[lag >= bands] == 0.0)
    assert np.all(gram[lag < bands] > 0.0)


def test_sensitivity_is_the_norm_for_the_worst_vectors():
    matrix, steps = factor_matrix(30, 5), [2, 4, 5, 11, 20]
    bound = sensitivity(matrix, steps)
    # Fixed bits are enough: the same vector each time is worst, random ones stay below.
    generator = np.random.default_rng(0)
    for _ in range(200):
        vectors = generator.standard_normal((len(steps), 3))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert np.linalg.norm(matrix[:, steps] @ vectors) <= bound * (1 + 1e-12)
    same = np.ones((len(steps), 1))
    assert np.linalg.norm(matrix[:, steps] @ same) == pytest.approx(bound, rel=1e-12)


def test_sensitivity_bounds_every_sign_where_columns_oppose_each_other():
    matrix = np.array([[1.0, -0.5], [0.0, 1.0]])
    signs = [np.array([[1.0], [sign]]) for sign in (-1.0, 1.0)]
    worst = max(float(np.linalg.norm(matrix @ vectors)) for vectors in signs)
    assert sensitivity(matrix, [0, 1]) == pytest.approx(worst)
    assert sensitivity(matrix, []) == 0.0


@pytest.mark.parametrize(("steps", "bands"), [(1, 1), (30, 1), (30, 4), (50, 50)])
def test_errors_are_the_row_norms_of_the_explicit_product(steps, bands):
    explicit = np.tril(np.ones((steps, steps))) @ np.linalg.inv(factor_matrix(steps, bands))
    assert prefix_errors(steps, bands) == pytest.approx(np.linalg.norm(explicit, axis=1), rel=1e-10)
    assert prefix_sum_error(steps, bands) == pytest.approx(
        np.linalg.norm(explicit) / math.sqrt(steps), rel=1e-10
    )


def test_independent_noise_grows_with_the_root_of_the_steps():
    assert prefix_errors(4, 1) == pytest.approx(np.sqrt([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("steps", "bands", "gain"), [(200, 20, 3.06), (200, 50, 3.68), (1000, 100, 5.85)]
)
def test_gain_over_independent_noise_is_the_published_one(steps, bands, gain):
    measured = prefix_sum_error(steps, 1) / prefix_sum_error(steps, bands)
    assert measured == pytest.approx(gain, abs=0.006)


def test_no_band_is_refused():
    with pytest.raises(ValueError, match="bands"):
        band_coefficients(0)
