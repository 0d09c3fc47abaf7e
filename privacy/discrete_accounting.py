"""What an answer with discrete Gaussian noise costs: a safe charge in μ², derived.

N_Z(0, σ²) on integer answers is *not* 1/(σ/Δ)-GDP: on its lattice it lies a little above the
continuous curve (to first order like noise of variance σ² − 1/12), so 1/σ² would under-count. It
is charged as Gaussian noise of variance σ² − Δ² instead: with the noise multiplier m = σ/Δ,

    μ² = 1 / (m² − 1),    in place of 1/m²,

which is 1/(1 − 1/m²) times as much: ε of counts alone is within 1.001 of exact from m = 25 on, and
beside updates that spend 85 % of μ² from m = 10 on.

Derivation. Let s² = Δ², τ² = σ² − s². Draw X ~ N(0, τ²), then Y over the integers with
P[y | X] ∝ e^(−(y−X)²/(2s²)) (the convolution of Peikert 2010, "An efficient and parallel Gaussian
sampler for lattices"). Integer shifts of X shift Y alike, so Y is post-processing of a continuous
Gaussian mechanism with noise τ, which is (Δ/τ)-GDP. It remains to show that Y is all but
N_Z(0, σ²). By Poisson summation the normaliser over X is s√(2π)·θ(X), with
θ(x) = 1 + 2 Σ_j q^(j²) cos 2πjx and q = e^(−2π²s²), and completing the square,

    P[Y = y] = φ_σ(y) · E[1/θ(X_y)],    X_y ~ N(y τ²/σ², s²τ²/σ²).

With A = 2q/(1 − q) ≥ |θ − 1| and |E cos 2πjX_y| ≤ q^(τ²/σ²), |E[1/θ(X_y)] − 1| ≤ h for
h = A q^(τ²/σ²) + A²/(1 − A). So the two distributions differ by at most a factor e^(±H),
H = 2 artanh h, in each coordinate; for Δ = 1 and m = 33, H = 2e-16. Two integer answers that differ
by at most Δ differ in at most Δ² coordinates, and the others tell nothing; Δ² H falls with Δ ≥ 1,
so H at Δ = 1 bounds a whole answer, whatever its length and sensitivity. Over all answers, adaptive
compositions included, the factors multiply, and

    δ(ε) ≤ e^(ΣH) δ_μ(ε − 2ΣH) ≤ δ_μ'(ε),    μ' = μ + 2 ΣH / φ(μ/2),

the last because dδ/dμ = φ(a) and −dδ/dε = φ(a) R(b), with a = ε/μ − μ/2, b = ε/μ + μ/2 and R Mills'
ratio, δ = φ(a) (R(a) − R(b)): along the straight path from one to the other it is enough that
Δμ ≥ ΣH (R(a) + R(b)), and at ε = 0 that is ΣH/φ(μ/2), its greatest; the factor 2 pays for the path
beginning 2ΣH below 0.
"""

import math
from typing import Final

_GREATEST_MU: Final = 75.0
"""Above it e^(μ²/8) leaves float64, and no figure means anything."""


def mu_squared_of_count(noise_multiplier: float) -> float:
    """μ² that one answer with discrete Gaussian noise costs.

    Args:
        noise_multiplier: m = σ/Δ, with Δ the ℓ2 sensitivity of an integer answer.

    Returns:
        1/(m² − 1); infinity for m ≤ 1, where this bound says nothing.
    """
    if not noise_multiplier > 1.0:
        return math.inf
    return 1.0 / (noise_multiplier * noise_multiplier - 1.0)


def count_noise_multiplier_for(*, mu_squared: float, answers: int) -> float:
    """Least m = σ/Δ with which a device may answer so often within μ², rounded up.

    Args:
        mu_squared: What all answers together may cost, greater than 0.
        answers: Number of answers, at least 1.

    Raises:
        ValueError: An argument is out of bounds.
    """
    if not (math.isfinite(mu_squared) and mu_squared > 0):
        raise ValueError(f"mu_squared must be finite and greater than 0, got {mu_squared}")
    if answers < 1:
        raise ValueError(f"answers must be at least 1, got {answers}")
    return math.sqrt(answers / mu_squared + 1.0) * (1 + 1e-10)


def lattice_slack(noise_multiplier: float) -> float:
    """H of one answer: log ratio of its noise to post-processed Gaussian noise, at most."""
    if not noise_multiplier > 1.0:
        return math.inf
    q = math.exp(-2 * math.pi**2)
    amplitude = 2 * q / (1 - q)
    share = 1.0 - 1.0 / noise_multiplier**2
    return 2 * math.atanh(amplitude * q**share + amplitude**2 / (1 - amplitude))


def mu_with_slack(mu: float, *, slack: float) -> float:
    """μ' that covers a composition of μ whose distributions are off by a factor e^(±ΣH).

    Args:
        mu: μ of the composition.
        slack: ΣH over all discrete answers in it; 0 without any.
    """
    if slack == 0.0:
        return mu
    if mu > _GREATEST_MU:
        return math.inf
    return mu + 2 * slack * math.sqrt(2 * math.pi) * math.exp(mu * mu / 8)
