"""Exact accounting of Gaussian mechanisms, with the standard library only.

A composition of Gaussian mechanisms with noise multipliers σ_j, each of sensitivity one clipping
norm, is exactly μ-GDP with μ² = Σ_j 1/σ_j² (Dong, Roth, Su 2019, "Gaussian differential privacy",
corollary 2). A μ-GDP mechanism is (ε, δ(ε))-private, and for no smaller δ, with

    δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)

(Balle and Wang 2018, "Improving the Gaussian mechanism", theorem 8). This holds for independent
noise and, over at most k participations, for correlated noise whose sensitivity is √k·C.

Assumptions: the unit of privacy is one device, all that it sends in the releases that are composed;
what it sends elsewhere is not covered. Neighbours differ in one device's contributions, replaced by
zero, with the cohort's size public; the aggregator is trusted to add the noise; no amplification by
sampling. Real-valued noise: floating point is named in the threat model.
"""

import math
from collections.abc import Iterable
from typing import Final

from .errors import UnsupportedEventError
from .events import Event, GaussianRelease, PublicData

_CONTINUED_FRACTION_FROM: Final = 6.0
_CONTINUED_FRACTION_TERMS: Final = 80
_SAFETY: Final = 1e-10
"""Relative amount by which an epsilon or a σ is rounded to the safe side."""


def gaussian_delta(*, mu: float, epsilon: float) -> float:
    """δ(ε) of a μ-GDP mechanism.

    With R(x) = Φ(−x)/φ(x) (Mills' ratio) and e^ε φ(−ε/μ − μ/2) = φ(−ε/μ + μ/2), the formula becomes
    δ = φ(ε/μ − μ/2) · (R(ε/μ − μ/2) − R(ε/μ + μ/2)), which keeps its relative accuracy in the tail
    where the two terms of the textbook form vanish together.

    Args:
        mu: μ, at least 0; infinity where nothing was added.
        epsilon: ε, at least 0.

    Returns:
        δ in [0, 1].

    Raises:
        ValueError: An argument is negative or NaN.
    """
    _require_not_negative(mu=mu, epsilon=epsilon)
    if mu == 0.0 or math.isinf(epsilon):
        return 0.0
    if math.isinf(mu):
        return 1.0
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    density = math.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    if near < 0.0:
        return max(0.0, 0.5 * math.erfc(near / math.sqrt(2)) - density * _mills_ratio(far))
    return density * (_mills_ratio(near) - _mills_ratio(far))


def gaussian_epsilon(*, mu: float, delta: float) -> float:
    """Least ε at which a μ-GDP mechanism is (ε, δ)-private, by bisection, rounded up.

    Args:
        mu: μ, at least 0; infinity where nothing was added.
        delta: δ in (0, 1).

    Returns:
        ε, at most 1e-9 relative above the exact value; infinity for infinite μ.

    Raises:
        ValueError: An argument is out of bounds.
    """
    _require_delta(delta)
    _require_not_negative(mu=mu)
    if math.isinf(mu):
        return math.inf
    if gaussian_delta(mu=mu, epsilon=0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu=mu, epsilon=high) > delta:
        low, high = high, 2 * high
    while high - low > _SAFETY * high:
        middle = (low + high) / 2
        if gaussian_delta(mu=mu, epsilon=middle) > delta:
            low = middle
        else:
            high = middle
    return high * (1 + _SAFETY)


def mu_for(*, epsilon: float, delta: float) -> float:
    """Greatest μ at which a μ-GDP mechanism is (ε, δ)-private, rounded down.

    Args:
        epsilon: ε, greater than 0 and finite.
        delta: δ in (0, 1).

    Returns:
        μ, at most 1e-9 relative below the exact value.

    Raises:
        ValueError: An argument is out of bounds.
    """
    _require_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be finite and greater than 0, got {epsilon}")
    low, high = 0.0, 1.0
    while gaussian_delta(mu=high, epsilon=epsilon) <= delta:
        low, high = high, 2 * high
    while high - low > _SAFETY * high:
        middle = (low + high) / 2
        if gaussian_delta(mu=middle, epsilon=epsilon) <= delta:
            low = middle
        else:
            high = middle
    return low * (1 - _SAFETY)


def noise_multiplier_for(
    *, epsilon: float, delta: float, participations: int, share: float = 1.0
) -> float:
    """Least σ with which a device may take part `participations` times, rounded up.

    σ = √(k / share) / μ_max(ε, δ): the share of μ² that updates may use is divided evenly.

    Args:
        epsilon: ε of everything released over these participations.
        delta: Its δ.
        participations: k, the most steps to which one device is invited.
        share: Part of μ² that these steps may use, in (0, 1].

    Returns:
        σ, standard deviation of the noise on the sum over the clipping norm.

    Raises:
        ValueError: An argument is out of bounds.
    """
    if participations < 1:
        raise ValueError(f"participations must be at least 1, got {participations}")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    return math.sqrt(participations / share) / mu_for(epsilon=epsilon, delta=delta) * (1 + _SAFETY)


def mu_of_participations(*, noise_multiplier: float, participations: int) -> float:
    """μ = √k / σ of a device that took part k times under one σ."""
    if participations == 0:
        return 0.0
    if noise_multiplier == 0.0:
        return math.inf
    return math.sqrt(participations) / noise_multiplier


def mu_of_releases(events: Iterable[Event]) -> float:
    """μ of the device that was invited most, over every release in a ledger.

    Within a stream that device took part `most_participations` times. Over several streams the
    bound takes, in each, the device invited most there: μ² ≤ Σ_streams k_s / σ_s².

    Args:
        events: The events of a ledger of releases, oldest first.

    Returns:
        μ; infinity if any step to which a device was invited ran without noise.

    Raises:
        UnsupportedEventError: An event that is no release to whoever receives a model.
        ValueError: A stream changed its σ or C on the way, which breaks its accounting.
    """
    latest: dict[str, GaussianRelease] = {}
    for event in events:
        if isinstance(event, PublicData):
            continue
        if not isinstance(event, GaussianRelease):
            raise UnsupportedEventError(type(event).__name__)
        before = latest.setdefault(event.stream, event)
        constants = (before.noise_multiplier, before.clipping_norm)
        if (event.noise_multiplier, event.clipping_norm) != constants:
            raise ValueError(
                f"stream {event.stream!r} changed its noise or clipping norm at step {event.index}"
            )
        latest[event.stream] = max(before, event, key=lambda step: step.most_participations)
    return math.hypot(
        *(
            mu_of_participations(
                noise_multiplier=step.noise_multiplier, participations=step.most_participations
            )
            for step in latest.values()
        )
    )


def release_epsilon(events: Iterable[Event], *, delta: float) -> float:
    """ε_release at δ: what whoever receives the models may learn of the device invited most."""
    return gaussian_epsilon(mu=mu_of_releases(events), delta=delta)


def _mills_ratio(x: float) -> float:
    """R(x) = Φ(−x)/φ(x) for x ≥ 0; Laplace's continued fraction in the tail.

    R(x) = 1/(x + 1/(x + 2/(x + 3/(x + …)))), Abramowitz and Stegun 26.2.14.
    """
    if x < _CONTINUED_FRACTION_FROM:
        return math.sqrt(math.pi / 2) * math.exp(x * x / 2) * math.erfc(x / math.sqrt(2))
    tail = x
    for numerator in range(_CONTINUED_FRACTION_TERMS, 0, -1):
        tail = x + numerator / tail
    return 1 / tail


def _require_delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")


def _require_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0.0:
            raise ValueError(f"{name} must be at least 0, got {value}")
