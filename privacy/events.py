"""What mechanism ran, with which parameters: the facts that a ledger stores.

Epsilon is derived from events and never stored in their place. An event keeps its meaning for ever:
new parameters are optional, a new mechanism is a new event (the habit of `dp_accounting.dp_event`).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import UnsupportedEventError

EntryKind = Literal["public", "simulated", "comparison", "stream"]
"""Where an entry stands.

- `public`: made from public or simulated data alone; no device's privacy is spent.
- `simulated`: noise came from a seeded source; never a basis for a release.
- `comparison`: ran without noise to compare with; never a basis for a release.
- `stream`: a real run of rounds with noise from the operating system's entropy.
"""
ENTRY_KINDS: tuple[EntryKind, ...] = get_args(EntryKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicData:
    """A model made from public or simulated data alone.

    Attributes:
        sources: Names of the data sets, each with its digest or seed.
    """

    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse an entry that names nothing."""
        if not self.sources:
            raise ValueError("sources must name at least one data set")


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianRelease:
    """One released step of a stream: a clipped sum over a cohort, plus Gaussian noise, over n.

    With u_i the clipped updates (‖u_i‖₂ ≤ C) and n the number invited, fixed before any device
    answers, the step releases (Σ u_i + z) / n with z ~ N(0, σ²C² I). Replacing one device's updates
    by zero moves the sum by at most C, so a device that took part in k steps of a stream with
    independent noise is (√k/σ)-GDP (Dong, Roth, Su 2019, corollary 2). No amplification by sampling
    is assumed.

    Attributes:
        stream: Identifier of the run of rounds under one noise matrix.
        index: Which step of the stream, counted from 0.
        mechanism: `independent_gaussian`, or `none` where nothing was added.
        noise_multiplier: σ, standard deviation of the noise on the sum over C; 0 means no noise.
        clipping_norm: C, bound on the ℓ2 norm of one device's update.
        cohort_size: n, number of devices invited, the divisor.
        most_participations: Greatest number of this stream's steps, this one included, to which any
            one device was invited.
    """

    stream: str
    index: int
    mechanism: str
    noise_multiplier: float
    clipping_norm: float
    cohort_size: int
    most_participations: int

    def __post_init__(self) -> None:
        """Refuse parameters under which the mechanism is not defined."""
        _require_finite_at_least(0.0, noise_multiplier=self.noise_multiplier)
        _require_positive(clipping_norm=self.clipping_norm)
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")
        if self.cohort_size < 1:
            raise ValueError(f"cohort_size must be at least 1, got {self.cohort_size}")
        if not 0 <= self.most_participations <= self.index + 1:
            raise ValueError(
                f"most_participations must lie in 0..{self.index + 1}, "
                f"got {self.most_participations}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelatedRelease:
    """One released step of a stream under banded matrix-factorisation noise.

    The step releases (Σ u_i + C·w_t) / n with w_t = (z_t − Σ_{j=1..p−1} c_j w_{t−j}) / c_0 and
    z ~ N(0, σ² I) (Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", section
    3). Columns of the factor have norm 1 and steps of one device lie at least b ≥ p apart, so k of
    them have sensitivity √k·C and the stream is (√k/σ)-GDP for it.

    Attributes:
        stream: Identifier of the run of rounds under one noise matrix.
        index: Which step of the stream, counted from 0; no index is skipped or used twice.
        noise_multiplier: σ, standard deviation of z over C.
        clipping_norm: C, bound on the ℓ2 norm of one device's update; 1 where the norm adapts, for
            devices then send g/C_t.
        cohort_size: n, number of devices invited, the divisor.
        bands: p, bands of the factor.
        min_separation: b, least difference of index between two steps of one device, at least p.
        most_participations: Greatest number of this stream's steps, this one included, to which any
            one device was invited.
        policy_digest: SHA-256 of the stream's signed policy.
        noise_only: True where a round was aborted: what leaves is noise, the charge stays.
        clip_noise_multiplier: σ_b of the bits that steer the clipping norm, in units of their
            sensitivity ½; None where the norm is fixed (Andrew et al. 2021).
        most_mu_squared: Greatest μ² that any one device was charged by this entry and all before it
            in the ledger, over all streams and channels, from the server's count for life; None
            where it is not known, and the ledger's counts bound it.
        epsilon: ε that the policy promises: counts that are lost are made anew with its limits.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use.
        max_participations: k of the policy.
    """

    stream: str
    index: int
    noise_multiplier: float
    clipping_norm: float
    cohort_size: int
    bands: int
    min_separation: int
    most_participations: int
    policy_digest: str
    noise_only: bool = False
    clip_noise_multiplier: float | None = None
    most_mu_squared: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    update_share: float | None = None
    max_participations: int | None = None

    def __post_init__(self) -> None:
        """Refuse parameters under which the bound on the sensitivity does not hold."""
        _require_positive(noise_multiplier=self.noise_multiplier, clipping_norm=self.clipping_norm)
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")
        if self.cohort_size < 1:
            raise ValueError(f"cohort_size must be at least 1, got {self.cohort_size}")
        if not 1 <= self.bands <= self.min_separation:
            raise ValueError(f"bands must lie in 1..{self.min_separation}, got {self.bands}")
        most = self.index // self.min_separation + 1
        if not 0 <= self.most_participations <= most:
            raise ValueError(
                f"most_participations must lie in 0..{most}, got {self.most_participations}"
            )
        if self.clip_noise_multiplier is not None:
            _require_positive(clip_noise_multiplier=self.clip_noise_multiplier)
        if self.most_mu_squared is not None:
            _require_finite_at_least(0.0, most_mu_squared=self.most_mu_squared)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRelease:
    """One release of noised counts that devices answered: metrics, similar devices, drift.

    Each coordinate of a sum of integer vectors, each of ℓ2 norm at most the sensitivity, gets
    discrete Gaussian noise of standard deviation σ times it (Canonne, Kamath, Steinke 2020).

    Attributes:
        channel: Which counts, as the policy names them.
        index: Which release of the channel, counted from 0.
        noise_multiplier: σ over the sensitivity.
        sensitivity: Bound on the ℓ2 norm of one device's answer.
        cohort_size: Number of devices asked.
        most_answers: Greatest number of this channel's releases, this one included, that any one
            device was asked for.
        policy_digest: SHA-256 of the signed policy that the channel stands in.
        most_mu_squared: Greatest μ² that any one device was charged by this entry and all before it
            in the ledger, over all streams and channels, from the server's count for life; None
            where it is not known, and the ledger's counts bound it.
        held_out: True where only devices that never train were asked: what these spend and what
            the others spend is never the same device's.
        epsilon: ε that the policy promises: counts that are lost are made anew with its limits.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use; the rest is for counts.
        max_participations: k of the policy.
    """

    channel: str
    index: int
    noise_multiplier: float
    sensitivity: float
    cohort_size: int
    most_answers: int
    policy_digest: str
    most_mu_squared: float | None = None
    held_out: bool = False
    epsilon: float | None = None
    delta: float | None = None
    update_share: float | None = None
    max_participations: int | None = None

    def __post_init__(self) -> None:
        """Refuse parameters under which the mechanism is not defined."""
        _require_positive(noise_multiplier=self.noise_multiplier, sensitivity=self.sensitivity)
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")
        if self.cohort_size < 1:
            raise ValueError(f"cohort_size must be at least 1, got {self.cohort_size}")
        if not 0 <= self.most_answers <= self.index + 1:
            raise ValueError(
                f"most_answers must lie in 0..{self.index + 1}, got {self.most_answers}"
            )
        if self.most_mu_squared is not None:
            _require_finite_at_least(0.0, most_mu_squared=self.most_mu_squared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """One device's own account of a step that it answers; always the full C.

    Attributes:
        stream: Of the step.
        index: Of the step.
        noise_multiplier: σ of the stream.
        clipping_norm: C; 1 where the norm adapts.
        cohort_size: n, as the server says it.
        policy_digest: SHA-256 of the signed policy.
        clip_noise_multiplier: σ_b of the bit that steers the clipping norm, in units of its
            sensitivity ½; None where the norm is fixed.
        epsilon: ε that the policy promises, so that its limit holds after the stream, too.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use.
        max_participations: k of the policy.
    """

    stream: str
    index: int
    noise_multiplier: float
    clipping_norm: float
    cohort_size: int
    policy_digest: str
    clip_noise_multiplier: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    update_share: float | None = None
    max_participations: int | None = None

    def __post_init__(self) -> None:
        """Refuse parameters under which nothing can be charged."""
        _require_positive(noise_multiplier=self.noise_multiplier, clipping_norm=self.clipping_norm)
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")
        if self.clip_noise_multiplier is not None:
            _require_positive(clip_noise_multiplier=self.clip_noise_multiplier)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountAnswer:
    """One device's own account of an answer to a count.

    Attributes:
        channel: Which counts.
        index: Which release of the channel.
        noise_multiplier: σ over the sensitivity.
        policy_digest: SHA-256 of the signed policy.
        epsilon: ε that the policy promises, so that its limit holds for ever.
        delta: Its δ.
        update_share: Part of μ²_max(ε, δ) that updates may use; the rest is for counts.
        held_out: True where only devices that never train are asked, out of their whole μ².
    """

    channel: str
    index: int
    noise_multiplier: float
    policy_digest: str
    epsilon: float | None = None
    delta: float | None = None
    update_share: float | None = None
    held_out: bool = False

    def __post_init__(self) -> None:
        """Refuse parameters under which nothing can be charged."""
        _require_positive(noise_multiplier=self.noise_multiplier)
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLevelSteps:
    """Steps of DP-SGD on one device: Poisson-sampled Gaussian mechanism over its training rows.

    Attributes:
        noise_multiplier: σ_r, standard deviation of the noise over the per-row clipping norm.
        max_grad_norm: Bound on the ℓ2 norm of one row's gradient.
        sampling_rate: Public probability with which each row enters a step.
        steps: Public number of steps.
    """

    noise_multiplier: float
    max_grad_norm: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        """Refuse parameters under which the mechanism is not defined."""
        _require_positive(noise_multiplier=self.noise_multiplier, max_grad_norm=self.max_grad_norm)
        if not 0.0 < self.sampling_rate <= 1.0:
            raise ValueError(f"sampling_rate must lie in (0, 1], got {self.sampling_rate}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


Event = (
    PublicData
    | GaussianRelease
    | CorrelatedRelease
    | CountRelease
    | Participation
    | CountAnswer
    | RecordLevelSteps
)

_TYPE_OF_EVENT: dict[type[Event], str] = {
    PublicData: "public_data",
    GaussianRelease: "gaussian_release",
    CorrelatedRelease: "correlated_release",
    CountRelease: "count_release",
    Participation: "participation",
    CountAnswer: "count_answer",
    RecordLevelSteps: "record_level_steps",
}
_EVENT_OF_TYPE = {name: event for event, name in _TYPE_OF_EVENT.items()}


def event_to_json(event: Event) -> dict[str, Any]:
    """Write an event as a JSON object with its type beside its parameters."""
    fields = dataclasses.asdict(event)
    if isinstance(event, PublicData):
        fields["sources"] = list(event.sources)
    return {"type": _TYPE_OF_EVENT[type(event)], **fields}


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Read an event; parameters that this version does not know are ignored.

    Args:
        value: A JSON object as `event_to_json` writes it.

    Returns:
        The event.

    Raises:
        UnsupportedEventError: The type is unknown, so no epsilon can be derived.
        ValueError: A parameter is missing or out of bounds.
    """
    event_type = str(value.get("type"))
    if event_type not in _EVENT_OF_TYPE:
        raise UnsupportedEventError(event_type)
    event_class = _EVENT_OF_TYPE[event_type]
    known = dataclasses.fields(event_class)
    required = [field.name for field in known if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        raise ValueError(f"event {event_type!r} lacks {', '.join(missing)}")
    fields = {field.name: value[field.name] for field in known if field.name in value}
    if event_class is PublicData:
        fields["sources"] = tuple(fields["sources"])
    return event_class(**fields)


def _require_finite_at_least(bound: float, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= bound):
            raise ValueError(f"{name} must be finite and at least {bound:g}, got {value}")


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and greater than 0, got {value}")
