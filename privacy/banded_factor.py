"""The banded square-root factor of correlated noise, its sensitivity and its error, explicitly.

The released prefix sums A x (A: ones on and below the diagonal) are answered through a factor C:
A C⁻¹ (C x + z) = A (x + C⁻¹ z). The square root A^½ is Toeplitz with coefficients
c_j = Π_{i ≤ j} (2i − 1)/(2i) (Fichtenberger, Henzinger, Upadhyay 2023, "Constant matters"); its
first p bands, divided by their ℓ2 norm, are the banded factor (Choquette-Choo et al. 2023,
"(Amplified) banded matrix factorization", arXiv 2306.08153; Kalinin and Lampert 2024, "Banded
square root matrix factorization"). w = C⁻¹ z needs the last p − 1 steps only:
w_t = (z_t − Σ_{j=1..p−1} c_j w_{t−j}) / c_0.

Columns of C have norm 1 (the last p − 1 less, where the matrix ends). Columns at least p apart have
no row in common, so k participations with separation b ≥ p have sensitivity √k exactly, whatever
the device sends. `sensitivity` computes it from the matrix and needs none of this: it is the oracle
for what ran.
"""

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray


def band_coefficients(bands: int) -> tuple[float, ...]:
    """Coefficients c_0 … c_{p−1} of the factor, of ℓ2 norm 1.

    Args:
        bands: p, at least 1; 1 is independent noise.

    Returns:
        The coefficients, positive and falling.

    Raises:
        ValueError: There is no band.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, got {bands}")
    raw = [1.0]
    for lag in range(1, bands):
        raw.append(raw[-1] * (2 * lag - 1) / (2 * lag))
    norm = math.sqrt(math.fsum(value * value for value in raw))
    return tuple(value / norm for value in raw)


def factor_matrix(num_rounds: int, bands: int) -> NDArray[np.float64]:
    """C as a matrix, float64, shape (T, T): a row a step, a column a participation."""
    matrix = np.zeros((num_rounds, num_rounds))
    for lag, coefficient in enumerate(band_coefficients(bands)[:num_rounds]):
        matrix[np.arange(lag, num_rounds), np.arange(num_rounds - lag)] = coefficient
    return matrix


def sensitivity(matrix: NDArray[np.float64], participations: Collection[int]) -> float:
    """The most that one device moves C x, for the worst vectors that it may send.

    With vectors of norm at most 1 in the steps of P, ‖Σ_{i∈P} C_i x_iᵀ‖² = Σ_{ij} G_ij ⟨x_i, x_j⟩
    with G = CᵀC over P, at most Σ_{ij} |G_ij|. Equality holds where G has no negative entry, as
    for every factor of this module: the device sends the same vector each time.

    Args:
        matrix: C, float64, shape (steps, participations).
        participations: P, the steps in which the device took part.

    Returns:
        The sensitivity in units of the clipping norm.
    """
    columns = matrix[:, sorted(set(participations))]
    return math.sqrt(float(np.abs(columns.T @ columns).sum()))


def prefix_sum_error(num_rounds: int, bands: int) -> float:
    """Root mean square error of the prefix sums over all steps, for z of standard deviation 1.

    √(‖A C⁻¹‖²_F / T); independent noise (one band) gives √((T + 1)/2).

    Args:
        num_rounds: T.
        bands: p.

    Returns:
        The error in units of σC, for a constant server rate and cohort.
    """
    return math.sqrt(float(np.mean(np.square(prefix_errors(num_rounds, bands)))))


def prefix_errors(num_rounds: int, bands: int) -> NDArray[np.float64]:
    """Standard deviation of each prefix sum's noise, for z of standard deviation 1, shape (T,).

    A C⁻¹ is Toeplitz; its first column is the running sum of that of C⁻¹, which the recursion
    gives.
    """
    errors: NDArray[np.float64] = np.sqrt(
        np.cumsum(np.square(np.cumsum(inverse_column(num_rounds, bands))))
    )
    return errors


def inverse_column(num_rounds: int, bands: int) -> NDArray[np.float64]:
    """First column of C⁻¹, shape (T,): step t's noise is Σ_{j≤t} of it times z_{t−j}."""
    first, *others = band_coefficients(bands)
    inverse = np.zeros(num_rounds)
    for step in range(num_rounds):
        carried = sum(
            coefficient * inverse[step - lag]
            for lag, coefficient in enumerate(others[:step], start=1)
        )
        inverse[step] = ((1.0 if step == 0 else 0.0) - carried) / first
    return inverse
