"""A schedule for a fleet: which cohort, how often, with which noise, until when.

For T rounds over N devices that train, a schedule is (n, k, b, p): cohort, participations of one
device, separation and bands. It is kept where T·n ≤ k·N (nobody is invited more than k times),
n·b ≤ N (nobody is due before b rounds are over) and p ≤ b. Its noise is
σ = √(k/share)/μ_max(ε, δ), and a prefix sum of released updates carries the error

    σ · E(T, p) / (n · (1 − dropout))    per weight, in units of the clipping norm,

with E the root mean square error of the factor (`banded_factor`). The planner takes the least over
all k up to the most that devices agree to and all b that divide T into as many parts. Every
schedule that N devices keep is kept by N + 1, with at least as large a cohort: a larger fleet is
never planned worse.
"""

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from .accountant import gaussian_epsilon, noise_multiplier_for
from .adaptive_clipping import BITS_SHARE
from .banded_factor import band_coefficients
from .count_budget import count_channels
from .policy import (
    GREATEST_DELTA,
    GREATEST_EPSILON,
    CountChannel,
    RecordPolicy,
    StreamPolicy,
    least_cohort,
    policy_for,
)

WEEKS_A_YEAR: Final = 365.25 / 7
UPDATE_SHARE: Final = 0.85
MOST_BANDS: Final = 128
"""More bands gain a hundredth at most, and a stream keeps as many vectors of noise."""
_MOST_DEVICES: Final = 10**10


class TooFewDevicesError(ValueError):
    """No schedule lets updates stand out from their noise.

    Attributes:
        least_devices: from how many on one does, with all else as asked.
    """

    exit_code = 1

    def __init__(self, devices: int, *, least_devices: int | None, years: float) -> None:
        """Say how many devices would do, and what else would."""
        self.least_devices = least_devices
        least = "no number of devices" if least_devices is None else f"{least_devices:,}"
        super().__init__(
            f"{devices:,} devices are too few: even if all updates agreed for {years:g} years, "
            f"noise would outweigh them; it takes {least}, a greater epsilon or fewer weights"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What an operator decides.

    Attributes:
        devices: enrolled.
        epsilon: ε_release of one device, over its life.
        delta: its δ.
        years: how long the fleet shall learn.
        weights: P, of the model.
        clipping_norm: C, or C_0 where it adapts.
        record: record-level training on the devices.
        rounds_a_week: as the server can run them.
        dropout: share of the invited that do not answer, in [0, 1).
        held_out_share: of the devices that never train, in [0, 1).
        most_a_year: rounds a year that one device takes part in, at most: its energy and wear.
        update_share: part of μ² for updates, in (0, 1).
        target_quantile: γ of a clipping norm that adapts, in (0, 1); None fixes it.
    """

    devices: int
    epsilon: float
    delta: float
    years: float
    weights: int
    clipping_norm: float
    record: RecordPolicy
    rounds_a_week: float = 1.0
    dropout: float = 0.0
    held_out_share: float = 0.2
    most_a_year: float = 12.0
    update_share: float = UPDATE_SHARE
    target_quantile: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be planned, by name and bound."""
        for name, value in (("devices", self.devices), ("weights", self.weights)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, number, most in (
            ("years", self.years, 30.0),
            ("rounds_a_week", self.rounds_a_week, 7.0),
            ("most_a_year", self.most_a_year, 366.0),
            ("epsilon", self.epsilon, GREATEST_EPSILON),
        ):
            if not 0.0 < number <= most:
                raise ValueError(f"{name} must lie in (0, {most:g}], got {number:g}")
        for name, number in (("dropout", self.dropout), ("held_out_share", self.held_out_share)):
            if not 0.0 <= number < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {number:g}")
        for name, share in (
            ("update_share", self.update_share),
            ("target_quantile", self.target_quantile),
        ):
            if share is not None and not 0.0 < share < 1.0:
                raise ValueError(f"{name} must lie in (0, 1), got {share:g}")
        if not 0.0 < self.delta <= GREATEST_DELTA:
            raise ValueError(f"delta must lie in (0, {GREATEST_DELTA:g}], got {self.delta:g}")

    @property
    def num_rounds(self) -> int:
        """T."""
        return max(1, round(self.years * WEEKS_A_YEAR * self.rounds_a_week))

    @property
    def most_participations(self) -> int:
        """The greatest k that devices agree to."""
        return min(self.num_rounds, max(1, math.floor(self.most_a_year * self.years + 1e-9)))

    @property
    def bits_share(self) -> float:
        """Part of updates' μ² that goes to bits, where the clipping norm adapts."""
        return 0.0 if self.target_quantile is None else BITS_SHARE

    @property
    def training_devices(self) -> int:
        """N: enrolled devices that are not held out."""
        return self.devices - self.held_out_devices

    @property
    def held_out_devices(self) -> int:
        """Devices that never train; the share decides each by its identifier alone."""
        return math.ceil(self.devices * self.held_out_share - 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One way to invite a fleet.

    Attributes:
        cohort_size: n.
        participations: k.
        separation: b.
        bands: p.
        noise_multiplier: σ.
        factor_error: E(T, p).
        error: of a prefix sum, per weight, in units of C.
        independent_error: the same with independent noise.
    """

    cohort_size: int
    participations: int
    separation: int
    bands: int
    noise_multiplier: float
    factor_error: float
    error: float
    independent_error: float

    def least_cohort(self, weights: int) -> int:
        """The rule of thumb n ≥ σ√P, below which one round is mostly noise."""
        return math.ceil(self.noise_multiplier * math.sqrt(weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule with all that follows from it.

    Attributes:
        request: what was asked.
        schedule: the one chosen.
        by_participations: the best for each k, ascending; what the choice was made from.
        channels: of counts, which use up the rest of the budget.
        epsilon: of a device that takes part in everything it may, at the request's δ.
        signal_to_noise: after the last round, if all updates pointed one way at length C.
        least_devices_for_rule: from how many devices on n ≥ σ√P holds.
    """

    request: PlanRequest
    schedule: Schedule
    by_participations: tuple[Schedule, ...]
    channels: tuple[CountChannel, ...]
    epsilon: float
    signal_to_noise: float
    least_devices_for_rule: int | None

    @property
    def keeps_rule(self) -> bool:
        """Whether the cohort is at least σ√P."""
        return self.schedule.cohort_size >= self.schedule.least_cohort(self.request.weights)

    def updates_mu_squared(self, participations: int) -> float:
        """μ² of the updates, and bits, of a device that took part so often."""
        return _updates_mu_squared(self.request, self.schedule, participations)

    def policy(self, *, stream: str) -> StreamPolicy:
        """The policy that carries the plan out, to be signed.

        Args:
            stream: identifier, never used before.
        """
        asked, chosen = self.request, self.schedule
        return StreamPolicy(
            stream=stream,
            num_rounds=asked.num_rounds,
            cohort_size=chosen.cohort_size,
            privacy=policy_for(
                epsilon=asked.epsilon,
                delta=asked.delta,
                update_share=asked.update_share,
                clipping_norm=asked.clipping_norm,
                max_participations=chosen.participations,
                min_separation=chosen.separation,
                min_cohort_size=least_cohort(chosen.cohort_size),
                bands=chosen.bands,
                target_quantile=asked.target_quantile,
            ),
            record=asked.record,
            channels=self.channels,
        )

    def date_of_round(self, index: int, *, start: dt.date) -> dt.date:
        """Day on which a step runs.

        Args:
            index: counted from 0.
            start: day of step 0.
        """
        return start + dt.timedelta(days=7 * index / self.request.rounds_a_week)

    def first_retirement(self, *, start: dt.date) -> dt.date:
        """Earliest day on which a device has taken part k times."""
        last = (self.schedule.participations - 1) * self.schedule.separation
        return self.date_of_round(min(last, self.request.num_rounds - 1), start=start)

    def last_retirement(self, *, start: dt.date) -> dt.date:
        """Day of the last round: afterwards no device contributes again under this ε."""
        return self.date_of_round(self.request.num_rounds - 1, start=start)


class _Option(NamedTuple):
    """A schedule but for its cohort: k, b, p, E(T, p) and σ."""

    participations: int
    separation: int
    bands: int
    factor_error: float
    noise_multiplier: float


def plan_for(request: PlanRequest) -> Plan:
    """Choose the schedule with the least error of prefix sums.

    Raises:
        TooFewDevicesError: even updates that all agree would drown in the noise; says how many
            devices it takes.
    """
    found = _schedules(request)
    best = min(found, key=_preference) if found else None
    if best is None or _signal_to_noise(request, best) < 1.0:
        least = _least_fleet(request, lambda one: _signal_to_noise(request, one) >= 1.0)
        raise TooFewDevicesError(request.devices, least_devices=least, years=request.years)
    by_participations: dict[int, Schedule] = {}
    for one in sorted(found, key=_preference):
        by_participations.setdefault(one.participations, one)
    channels = planned_channels(request)
    counted = max(
        math.fsum(c.mu_squared for c in channels if c.held_out),
        _updates_mu_squared(request, best, best.participations)
        + math.fsum(c.mu_squared for c in channels if not c.held_out),
    )
    return Plan(
        request=request,
        schedule=best,
        by_participations=tuple(by_participations[k] for k in sorted(by_participations)),
        channels=channels,
        epsilon=gaussian_epsilon(mu=math.sqrt(counted), delta=request.delta),
        signal_to_noise=_signal_to_noise(request, best),
        least_devices_for_rule=_least_fleet(
            request, lambda one: one.cohort_size >= one.least_cohort(request.weights)
        ),
    )


def planned_channels(request: PlanRequest) -> tuple[CountChannel, ...]:
    """The counts of a plan, as `count_channels` deals the budget out."""
    return count_channels(
        epsilon=request.epsilon,
        delta=request.delta,
        update_share=request.update_share,
        years=request.years,
        has_held_out=request.held_out_devices > 0,
    )


def _schedules(request: PlanRequest) -> list[Schedule]:
    """Every schedule worth a look that the fleet keeps."""
    training = request.training_devices
    return [
        _schedule(request, training, option)
        for option in _options(request)
        if _cohort(option, num_rounds=request.num_rounds, training_devices=training)
    ]


def _cohort(option: _Option, *, num_rounds: int, training_devices: int) -> int:
    """The most devices that can be invited to each round: T·n ≤ k·N and n·b ≤ N."""
    return min(
        option.participations * training_devices // num_rounds,
        training_devices // option.separation,
    )


def _schedule(request: PlanRequest, training_devices: int, option: _Option) -> Schedule:
    cohort = _cohort(option, num_rounds=request.num_rounds, training_devices=training_devices)
    per_error = option.noise_multiplier / (cohort * (1 - request.dropout))
    return Schedule(
        cohort_size=cohort,
        participations=option.participations,
        separation=option.separation,
        bands=option.bands,
        noise_multiplier=option.noise_multiplier,
        factor_error=option.factor_error,
        error=per_error * option.factor_error,
        independent_error=per_error * math.sqrt((request.num_rounds + 1) / 2),
    )


def _options(request: PlanRequest) -> tuple[_Option, ...]:
    """What can be chosen among, whatever the fleet's size."""
    return _options_of(
        request.num_rounds,
        request.most_participations,
        request.epsilon,
        request.delta,
        request.update_share * (1 - request.bits_share),
    )


@lru_cache(maxsize=64)
def _options_of(
    num_rounds: int, most: int, epsilon: float, delta: float, share: float
) -> tuple[_Option, ...]:
    sigma = [
        noise_multiplier_for(epsilon=epsilon, delta=delta, participations=k, share=share)
        for k in range(1, most + 1)
    ]
    return tuple(
        _Option(k, separation, bands, error, sigma[k - 1])
        for separation, (bands, error) in _least_errors(num_rounds, most).items()
        for k in range(1, min(most, math.ceil(num_rounds / separation)) + 1)
    )


def _updates_mu_squared(request: PlanRequest, one: Schedule, participations: int) -> float:
    return participations / one.noise_multiplier**2 / (1 - request.bits_share)


def _preference(one: Schedule) -> tuple[float, int, int]:
    return one.error, one.participations, -one.separation


def _signal_to_noise(request: PlanRequest, one: Schedule) -> float:
    """T·C over the error of the last sum over all weights, at its root mean square."""
    return request.num_rounds / (one.error * math.sqrt(request.weights))


def _least_fleet(request: PlanRequest, is_enough: Callable[[Schedule], bool]) -> int | None:
    """Least number of devices whose best schedule is enough, by bisection; None for none."""
    options, num_rounds = _options(request), request.num_rounds

    def holds(devices: int) -> bool:
        training = replace(request, devices=devices).training_devices
        best = min(
            (
                (one.noise_multiplier * one.factor_error / cohort, *one)
                for one in options
                if (cohort := _cohort(one, num_rounds=num_rounds, training_devices=training))
            ),
            default=None,
        )
        return best is not None and is_enough(_schedule(request, training, _Option(*best[1:])))

    high = 1
    while not holds(high):
        high *= 2
        if high > _MOST_DEVICES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@lru_cache(maxsize=64)
def _least_errors(num_rounds: int, most_participations: int) -> dict[int, tuple[int, float]]:
    """Best bands and their error E(T, p) for each separation that divides T into k parts."""
    candidates = sorted(
        {num_rounds // k for k in range(1, most_participations + 1)}
        | {-(-num_rounds // k) for k in range(1, most_participations + 1)}
    )
    best: dict[int, tuple[int, float]] = {}
    found = (0, math.inf)
    for separation in candidates:
        bands = min(separation, MOST_BANDS, num_rounds)
        if bands != found[0]:
            error = factor_error(num_rounds, bands)
            if error < found[1]:
                found = (bands, error)
        best[separation] = found
    return best


def factor_error(num_rounds: int, bands: int) -> float:
    """E(T, p), as `banded_factor.prefix_sum_error`, a dot product a step."""
    first, *others = band_coefficients(bands)
    lags = np.array(others[::-1])
    inverse = np.zeros(num_rounds + len(lags))
    inverse[len(lags)] = 1.0 / first
    for step in range(len(lags) + 1, len(inverse)):
        inverse[step] = -(lags @ inverse[step - len(lags) : step]) / first
    prefix = np.cumsum(inverse[len(lags) :])
    return math.sqrt(float(np.mean(np.cumsum(prefix**2))))
