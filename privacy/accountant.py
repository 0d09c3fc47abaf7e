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
sampling. Real-valued noise: floating point is named in the threat model. Counts with discrete
noise are charged as `privacy.discrete_accounting` derives.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from .discrete_accounting import lattice_slack, mu_squared_of_count, mu_with_slack
from .errors import UnsupportedEventError
from .events import (
    CorrelatedRelease,
    CountAnswer,
    CountRelease,
    Event,
    GaussianRelease,
    Participation,
    PublicData,
    RecordLevelSteps,
)

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


@lru_cache(maxsize=256)
def mu_for(*, epsilon: float, delta: float) -> float:
    """Greatest μ at which a μ-GDP mechanism is (ε, δ)-private, rounded down.

    Args:
        epsilon: ε, greater than 0 and finite.
        delta: δ in (0, 1).

    Returns:
        μ, at most 1e-9 relative below the exact value; its `gaussian_epsilon` is at most ε.

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
    return low * (1 - 4 * _SAFETY)


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


def mu_of_participations(
    *, noise_multiplier: float, participations: int, clip_noise_multiplier: float | None = None
) -> float:
    """μ of a device that took part k times under one σ (and σ_b): √k / σ for a fixed norm."""
    if participations == 0:
        return 0.0
    step = mu_squared_of_step(
        noise_multiplier=noise_multiplier, clip_noise_multiplier=clip_noise_multiplier
    )
    return math.sqrt(participations * step)


def mu_squared_of_step(
    *, noise_multiplier: float, clip_noise_multiplier: float | None = None
) -> float:
    """μ² that one participation costs: 1/σ² + 1/σ_b², infinity without noise.

    The bit that steers a clipping norm is ±½ and 0 when absent, so zeroing a device moves the sum
    of bits by ½; its noise has standard deviation σ_b/2, and the bit is a Gaussian mechanism of
    multiplier σ_b beside that of the update (`privacy.adaptive_clipping`).

    Args:
        noise_multiplier: σ of the stream; 0 means no noise.
        clip_noise_multiplier: σ_b, in units of the bit's sensitivity ½; None for a fixed norm.
    """
    if noise_multiplier == 0.0:
        return math.inf
    bit = 0.0 if clip_noise_multiplier is None else clip_noise_multiplier**-2
    return noise_multiplier**-2 + bit


def mu_squared_of_release(event: Event) -> float:
    """μ² that one release costs a device that was invited or asked, infinity without noise.

    Raises:
        UnsupportedEventError: The event is no release, or one that asks no device.
    """
    return _release_line(event).cost


def mu_of_releases(events: Iterable[Event]) -> float:
    """μ of the device that was charged most, over every release in a ledger.

    Within a stream that device took part `most_participations` times; an aborted step released
    as noise stays charged. Over several streams and channels μ² ≤ Σ_s k_s · cost_s takes, in each,
    the device invited most there. Where the last release states what was charged most to any one
    device (`most_mu_squared`, from the server's count for life), that figure is taken in its place,
    also where it is more; it cannot be below the dearest single stream or channel. Else channels
    that ask only devices that never train are a sum of their own, and the larger of the two counts.
    A part of a ledger states what the whole of it comes to: `part_of_ledger` takes that off.

    A participation is charged in full as soon as it happens: its column of the factor has norm 1
    only after p − 1 further steps, and nobody can know that they will not run.

    Args:
        events: The events of a ledger of releases, oldest first.

    Returns:
        μ; infinity if any step to which a device was invited ran without noise.

    Raises:
        UnsupportedEventError: An event that is no release to whoever receives a model.
        ValueError: A stream or channel changed a constant on the way, skipped or repeated a step,
            or what is stated as charged most is less than the counts say: each breaks accounting.
    """
    lines: dict[tuple[str, ...], _Line] = {}
    stated: float | None = None
    for event in events:
        if isinstance(event, PublicData):
            continue
        line = _release_line(event)
        before = lines.get(line.key)
        lines[line.key] = line if before is None else before.then(line)
        if isinstance(event, CorrelatedRelease | CountRelease):
            stated = event.most_mu_squared
        else:
            stated = None
    charged = [line for line in lines.values() if line.count]
    costs = {line.key: line.cost * line.count for line in charged}
    total = max(
        math.fsum(costs[line.key] for line in charged if line.is_held_out is held_out)
        for held_out in (False, True)
    )
    if stated is not None and math.isfinite(total):
        if stated < max(costs.values(), default=0.0) * (1 - 1e-9):
            raise ValueError(f"most_mu_squared {stated:g} does not fit the ledger's counts")
        total = stated * (1 + 1e-12)
    slack = math.fsum(line.slack * line.count for line in charged)
    return mu_with_slack(math.sqrt(total), slack=slack)


def part_of_ledger(events: Iterable[Event]) -> tuple[Event, ...]:
    """Some events of a ledger, without what they state of all its streams and channels.

    Args:
        events: Of one stream or channel, or of several, oldest first.
    """
    return tuple(
        replace(event, most_mu_squared=None)
        if isinstance(event, CorrelatedRelease | CountRelease)
        else event
        for event in events
    )


def mu_of_device(events: Iterable[Event]) -> float:
    """μ that one device has spent for life, from its own ledger: updates and answers to counts.

    Args:
        events: The events of a device's ledger, oldest first. Record-level steps are a second
            statement (`privacy.record_accountant`) and count nothing here.

    Returns:
        μ.

    Raises:
        UnsupportedEventError: An event that is no part of a device's ledger.
        ValueError: A stream or channel changed a constant on the way.
    """
    lines: dict[tuple[str, ...], _Line] = {}
    costs, slacks = [], []
    for event in events:
        if isinstance(event, RecordLevelSteps):
            continue
        line = _device_line(event)
        before = lines.setdefault(line.key, line)
        before.require_same_constants(line)
        costs.append(line.cost)
        slacks.append(line.slack)
    return mu_with_slack(math.sqrt(math.fsum(costs)), slack=math.fsum(slacks))


def release_epsilon(events: Iterable[Event], *, delta: float) -> float:
    """ε_release at δ: what whoever receives the models may learn of the device charged most."""
    return gaussian_epsilon(mu=mu_of_releases(events), delta=delta)


def device_epsilon(events: Iterable[Event], *, delta: float) -> float:
    """ε at δ of one device, from its own ledger: what was released of it to whoever receives it."""
    return gaussian_epsilon(mu=mu_of_device(events), delta=delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One stream or channel of a ledger: its constants, and how often a device was charged."""

    key: tuple[str, ...]
    constants: Mapping[str, float | str | None]
    cost: float
    count: int = 1
    index: int = 0
    is_gapless: bool = False
    is_held_out: bool = False
    slack: float = 0.0

    def require_same_constants(self, later: "_Line") -> None:
        changed = [
            name
            for name in sorted({*self.constants, *later.constants})
            if self.constants.get(name) != later.constants.get(name)
        ]
        if changed:
            kind, name = self.key[0], self.key[-1]
            raise ValueError(
                f"{kind} {name!r} changed its {', '.join(changed)} at step {later.index}"
            )

    def then(self, later: "_Line") -> "_Line":
        """The line after one more release of it."""
        self.require_same_constants(later)
        if later.is_gapless and later.index != self.index + 1:
            raise ValueError(
                f"{self.key[0]} {self.key[-1]!r} has step {later.index} after step {self.index}"
            )
        return replace(later, count=max(self.count, later.count))


def _release_line(event: Event) -> _Line:
    if isinstance(event, CountRelease):
        return _Line(
            key=("channel", event.policy_digest, event.channel),
            constants={
                "noise_multiplier": event.noise_multiplier,
                "sensitivity": event.sensitivity,
                "held_out": event.held_out,
            },
            cost=mu_squared_of_count(event.noise_multiplier),
            count=event.most_answers,
            index=event.index,
            is_held_out=event.held_out,
            slack=lattice_slack(event.noise_multiplier),
        )
    if isinstance(event, GaussianRelease):
        return _Line(
            key=("stream", event.stream),
            constants={
                "noise_multiplier": event.noise_multiplier,
                "clipping_norm": event.clipping_norm,
            },
            cost=mu_squared_of_step(noise_multiplier=event.noise_multiplier),
            count=event.most_participations,
            index=event.index,
        )
    if not isinstance(event, CorrelatedRelease):
        raise UnsupportedEventError(type(event).__name__)
    return _Line(
        key=("stream", event.stream),
        constants=_stream_constants(event)
        | {"bands": event.bands, "min_separation": event.min_separation},
        cost=mu_squared_of_step(
            noise_multiplier=event.noise_multiplier,
            clip_noise_multiplier=event.clip_noise_multiplier,
        ),
        count=event.most_participations,
        index=event.index,
        is_gapless=True,
    )


def _device_line(event: Event) -> _Line:
    if isinstance(event, CountAnswer):
        return _Line(
            key=("channel", event.policy_digest, event.channel),
            constants={"noise_multiplier": event.noise_multiplier},
            cost=mu_squared_of_count(event.noise_multiplier),
            index=event.index,
            slack=lattice_slack(event.noise_multiplier),
        )
    if not isinstance(event, Participation):
        raise UnsupportedEventError(type(event).__name__)
    return _Line(
        key=("stream", event.stream),
        constants=_stream_constants(event),
        cost=mu_squared_of_step(
            noise_multiplier=event.noise_multiplier,
            clip_noise_multiplier=event.clip_noise_multiplier,
        ),
        index=event.index,
    )


def _stream_constants(
    event: CorrelatedRelease | Participation,
) -> dict[str, float | str | None]:
    return {
        "noise_multiplier": event.noise_multiplier,
        "clipping_norm": event.clipping_norm,
        "cohort_size": event.cohort_size,
        "policy_digest": event.policy_digest,
        "clip_noise_multiplier": event.clip_noise_multiplier,
    }


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
