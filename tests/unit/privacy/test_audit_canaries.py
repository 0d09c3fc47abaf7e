"""Canaries: whitening, the matched filter, and the search for noise that was used twice."""

import mpmath
import numpy as np
import pytest

from privacy.audit.canaries import (
    CanaryRun,
    canary_scores,
    correlation_bound,
    greatest_correlation,
    residuals,
    whiten,
)
from privacy.banded_factor import band_coefficients, factor_matrix


def noisy_run(*, num_steps=12, canaries=4_000, bands=3, sigma=0.5, every=4, seed=0):
    """Releases of a stream whose noise is solved from the explicit factor."""
    generator = np.random.default_rng(seed)
    fresh = sigma * generator.normal(size=(num_steps, canaries))
    noise = np.linalg.solve(factor_matrix(num_steps, bands), fresh)
    included = generator.random(canaries) < 0.5
    admitted = np.arange(num_steps) % every == 0
    releases = noise + np.outer(admitted, included)
    return CanaryRun(releases=releases, included=included, admitted=admitted), fresh


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_whitening_is_the_product_with_the_factor(bands):
    steps = np.random.default_rng(1).normal(size=(9, 7))

    white = whiten(steps, band_coefficients(bands))

    assert white == pytest.approx(factor_matrix(9, bands) @ steps, abs=1e-14)


def test_score_of_an_included_canary_is_moved_by_the_root_of_its_participations():
    run, _ = noisy_run()

    scores = canary_scores(run, band_coefficients(3))

    assert scores[~run.included].std() == pytest.approx(0.5, rel=0.05)
    moved = scores[run.included].mean() - scores[~run.included].mean()
    assert moved == pytest.approx(np.sqrt(3), rel=0.02)


def test_canary_that_was_never_admitted_has_no_score():
    run = CanaryRun(
        releases=np.ones((3, 2)),
        included=np.array([True, False]),
        admitted=np.zeros(3, dtype=bool),
    )

    assert canary_scores(run, (1.0,)).tolist() == [0.0, 0.0]


def test_residuals_are_the_noise_before_it_was_correlated():
    run, fresh = noisy_run(canaries=50)

    assert residuals(run, band_coefficients(3)) == pytest.approx(fresh, abs=1e-12)


def test_noise_used_twice_has_correlation_one_and_fresh_noise_stays_below_the_bound():
    fresh = np.random.default_rng(2).normal(size=(30, 500))
    bound = correlation_bound(rows=30, size=500, alpha=1e-3)

    assert greatest_correlation(fresh) < bound < 0.3
    assert greatest_correlation(np.vstack([fresh, fresh[4:5]])) == pytest.approx(1.0)
    assert greatest_correlation(np.vstack([fresh, -fresh[4:5]])) == pytest.approx(1.0)


def test_rows_without_noise_do_not_correlate():
    assert greatest_correlation(np.zeros((3, 5))) == 0.0


def test_correlation_bound_leaves_alpha_over_all_pairs():
    bound = correlation_bound(rows=96, size=250, alpha=1e-3)

    with mpmath.workdps(30):
        tail = mpmath.betainc(249 / 2, 0.5, 0, 1 - mpmath.mpf(bound) ** 2, regularized=True)
        expected = 1e-3 / (96 * 95 / 2)
        assert float(tail) == pytest.approx(expected, rel=1e-6)
