"""The parts of a run report; each refuses values that cannot be true."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.metrics import Quality
from models.prediction import STATUSES, URGENCIES
from models.telemetry import CAUSES

HEALTH_EDGES: Final = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05)
"""Edges of the bins of state of health; what lies outside counts in the bin at the edge."""


class Expectation(StrEnum):
    """What the demo chose a device for."""

    URGENT = "urgent"
    SOON = "soon"
    HEALTHY = "healthy"
    QUIET_HOURS = "quiet_hours"


class BrokerKind(StrEnum):
    """Which broker carried the notices."""

    MOSQUITTO = "mosquitto"
    EMBEDDED = "embedded"


class BundleRole(StrEnum):
    """Where the bundle comes from that the devices run."""

    DEFAULT_BUNDLE = "default_bundle"
    FEDERATED_PRIVATE = "federated_private"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNotice:
    """What became of one device of the demo.

    Attributes:
        device: its identifier.
        expectation: what it was chosen for.
        template: which notice it got, by the name on the wire; None where none was due.
        state: what became of it, as the server records it, such as acknowledged or suppressed.
        text: what its owner reads, with the device's own figures; None where nothing was shown.
        language: BCP 47 tag of `text`; None without a text.
    """

    device: str
    expectation: Expectation
    template: str | None
    state: str
    text: str | None
    language: str | None

    def __post_init__(self) -> None:
        """Refuse a text without its language."""
        require_one_of("expectation", self.expectation, tuple(Expectation))
        if (self.text is None) != (self.language is None):
            raise ValueError(
                f"text and language come together: {self.device} has language {self.language!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """The notices of the run.

    Attributes:
        sent: notices that left the server.
        acknowledged: how many of them devices acknowledged.
        suppressed: notices that were due and not sent, by reason code.
        per_device: what became of each device of the demo.
    """

    sent: int
    acknowledged: int
    suppressed: Mapping[str, int]
    per_device: tuple[DeviceNotice, ...]

    def __post_init__(self) -> None:
        """Refuse counts that contradict each other."""
        require_counts(sent=self.sent, acknowledged=self.acknowledged)
        require_counts(**self.suppressed)
        if self.acknowledged > self.sent:
            raise ValueError(
                f"acknowledged must not exceed sent, got {self.acknowledged} of {self.sent}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInUse:
    """The bundle that the devices of the demo ran.

    Attributes:
        version: of the bundle.
        role: the shipped one, or the one that the private rounds made.
        why: one plain sentence.
    """

    version: str
    role: BundleRole
    why: str

    def __post_init__(self) -> None:
        """Refuse an unknown role."""
        require_one_of("role", self.role, tuple(BundleRole))


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPoint:
    """One look at the weights on the held-out part.

    Attributes:
        round: rounds done so far; 0 = before the first.
        average_precision: None where it was not measured, as the two after it.
        auc: area under the ROC curve.
        loss: mean negative log likelihood.
        epsilon: ε_release spent so far, at the report's δ; None without noise (unbounded).
    """

    round: int
    average_precision: float | None
    auc: float | None
    loss: float | None
    epsilon: float | None

    def __post_init__(self) -> None:
        """Refuse shares outside 0 to 1 and a negative ε."""
        require_counts(round=self.round)
        require_shares(average_precision=self.average_precision, auc=self.auc)
        if self.epsilon is not None and self.epsilon < 0:
            raise ValueError(f"epsilon must be at least 0, got {self.epsilon}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthBin:
    """How many devices have a state of health from `low` up to `high`, fractions of design."""

    low: float
    high: float
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHealth:
    """How the fleet stands at the end, by each device's last prediction.

    Attributes:
        urgency: devices with a prediction, by urgency.
        state_of_health: the same devices, by capacity as a fraction of design.
        statuses: all devices, by whether a prediction could be made.
    """

    urgency: Mapping[str, int]
    state_of_health: tuple[HealthBin, ...]
    statuses: Mapping[str, int]

    def __post_init__(self) -> None:
        """Refuse unknown names and negative counts."""
        require_names("urgency", self.urgency, URGENCIES)
        require_names("statuses", self.statuses, STATUSES)
        require_counts(**self.urgency)
        require_counts(**self.statuses)
        if not self.state_of_health:
            raise ValueError("state_of_health must hold at least one bin, got none")
        for one in self.state_of_health:
            require_counts(state_of_health=one.devices)
            if not 0 <= one.low < one.high:
                raise ValueError(
                    f"state_of_health: a bin needs 0 <= low < high, got {one.low} to {one.high}"
                )
        if any(a.high != b.low for a, b in pairwise(self.state_of_health)):
            raise ValueError("state_of_health: a bin must begin where the one before it ends")

    @classmethod
    def of_predictions(
        cls, *, status: Sequence[str], urgency: Sequence[str | None], state_of_health: ArrayLike
    ) -> Self:
        """Count the last prediction of each device.

        Args:
            status: shape (n_devices,).
            urgency: shape (n_devices,); None without a prediction.
            state_of_health: float, shape (n_devices,); NaN without a prediction.
        """
        health = np.asarray(state_of_health, dtype=np.float64)
        inside = np.clip(health[np.isfinite(health)], HEALTH_EDGES[0], HEALTH_EDGES[-1])
        counts, _ = np.histogram(inside, bins=HEALTH_EDGES)
        status, urgency = list(status), list(urgency)
        return cls(
            urgency={str(name): urgency.count(name) for name in URGENCIES},
            state_of_health=tuple(
                HealthBin(low=low, high=high, devices=int(count))
                for low, high, count in zip(
                    HEALTH_EDGES[:-1], HEALTH_EDGES[1:], counts, strict=True
                )
            ),
            statuses={str(name): status.count(name) for name in STATUSES},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One device's life as the bundle in use saw it, day by day.

    The series have equal lengths; None where there was no prediction, or nothing was measured.

    Attributes:
        device_id: which device.
        as_of_days: moment of each prediction, days since the first reading, ascending.
        capacity_health_pct: capacity in percent of design.
        days_to_failure_p10: days that 10 % of such devices do not reach.
        days_to_failure_p50: the estimate.
        days_to_failure_p90: days that 90 % of such devices do not reach.
        days_left: days that were really left; None where no failure was seen, or after it.
        end_of_life_health_pct: the maker's capacity below which the pack is worn out.
        failed_at_days: days from the first reading to the failure, None where none was seen.
    """

    device_id: str
    as_of_days: tuple[float, ...]
    capacity_health_pct: tuple[float | None, ...]
    days_to_failure_p10: tuple[float | None, ...]
    days_to_failure_p50: tuple[float | None, ...]
    days_to_failure_p90: tuple[float | None, ...]
    days_left: tuple[float | None, ...]
    end_of_life_health_pct: float
    failed_at_days: float | None

    def __post_init__(self) -> None:
        """Refuse series that do not belong together."""
        sizes = {
            entry.name: len(getattr(self, entry.name))
            for entry in fields(self)
            if isinstance(getattr(self, entry.name), tuple)
        }
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the series of a life must have one length, got {sizes}")
        if not self.as_of_days:
            raise ValueError("as_of_days must hold at least one moment, got none")
        if any(b <= a for a, b in pairwise(self.as_of_days)):
            raise ValueError("as_of_days must ascend")
        quantiles = zip(
            self.days_to_failure_p10,
            self.days_to_failure_p50,
            self.days_to_failure_p90,
            strict=True,
        )
        for row in quantiles:
            known = [value for value in row if value is not None]
            if known != sorted(known):
                raise ValueError(f"days_to_failure must ascend from p10 to p90, got {row}")

    @classmethod
    def of_arrays(
        cls,
        *,
        device_id: str,
        as_of_days: ArrayLike,
        capacity_health_pct: ArrayLike,
        days_to_failure: ArrayLike,
        failed_at_days: float | None,
        end_of_life_health_pct: float,
    ) -> Self:
        """Build a life from arrays in which NaN means none.

        Args:
            device_id: which device.
            as_of_days: shape (n,).
            capacity_health_pct: shape (n,).
            days_to_failure: shape (n, 3): p10, p50 and p90.
            failed_at_days: days from the first reading, None where no failure was seen.
            end_of_life_health_pct: percent of design.
        """
        days = np.asarray(as_of_days, dtype=np.float64)
        quantiles = np.asarray(days_to_failure, dtype=np.float64)
        left = np.full(len(days), np.nan) if failed_at_days is None else failed_at_days - days
        return cls(
            device_id=device_id,
            as_of_days=tuple(days.tolist()),
            capacity_health_pct=_or_none(np.asarray(capacity_health_pct, dtype=np.float64)),
            days_to_failure_p10=_or_none(quantiles[:, 0]),
            days_to_failure_p50=_or_none(quantiles[:, 1]),
            days_to_failure_p90=_or_none(quantiles[:, 2]),
            days_left=_or_none(np.where(left >= 0, left, np.nan)),
            end_of_life_health_pct=end_of_life_health_pct,
            failed_at_days=failed_at_days,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseFound:
    """How many true failures of one cause the rules found."""

    found: int
    total: int

    def __post_init__(self) -> None:
        """Refuse more finds than there are failures."""
        require_counts(found=self.found, total=self.total)
        if self.found > self.total:
            raise ValueError(f"found must not exceed total, got {self.found} of {self.total}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """The devices' own labels by rule, held against the simulated truth.

    Attributes:
        by_cause: true failures and how many of them the rules found, by cause.
        false_labels: failures by rule on packs that did not fail.
    """

    by_cause: Mapping[str, CauseFound]
    false_labels: int

    def __post_init__(self) -> None:
        """Refuse unknown causes."""
        require_names("by_cause", self.by_cause, CAUSES)
        require_counts(false_labels=self.false_labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCells:
    """The default bundle on the development cells.

    Attributes:
        cells: how many there were; None without them.
        metrics: its quality on them, None where they are missing.
        reason: why there is no figure; None where there is one.
    """

    cells: int | None
    metrics: Quality | None
    reason: str | None

    def __post_init__(self) -> None:
        """Refuse a figure without cells, and silence."""
        if (self.metrics is None) == (self.reason is None):
            raise ValueError("real_cells needs metrics or the reason why there are none")
        if self.metrics is not None:
            require_quality("real_cells.metrics", self.metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDescription:
    """The simulated fleet of the run.

    Attributes:
        description: what it is made of, and how it differs from what the default bundle saw.
        days: simulated days.
        judged_devices: devices whose windows the metrics are measured on; none of them takes
            part in the rounds.
    """

    description: str
    days: int
    judged_devices: int


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_names(name: str, content: Mapping[str, Any], choices: Sequence[str]) -> None:
    """Refuse keys that are not among the choices."""
    for key in content:
        require_one_of(f"{name}: a key", key, choices)


def require_counts(**values: int) -> None:
    """Refuse counts below 0."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def require_shares(**values: float | None) -> None:
    """Refuse shares outside 0 to 1; None passes."""
    for name, value in values.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0 to 1, got {value}")


def require_quality(where: str, quality: Quality) -> None:
    """Refuse figures of a model that cannot be."""
    shares = {
        f"{where}.{name}": getattr(quality, name)
        for name in (
            "prevalence",
            "auc",
            "average_precision",
            "precision",
            "recall",
            "f1",
            "ece",
            "coverage_p10_p90",
        )
    }
    require_shares(**shares)
    require_counts(**{f"{where}.num_windows": quality.num_windows})
    error_days = quality.mae_days_when_90_or_less
    if error_days is not None and error_days < 0:
        raise ValueError(f"{where}.mae_days_when_90_or_less must be at least 0, got {error_days}")


def require_finite(where: str, value: Any) -> None:
    """Refuse NaN and infinity anywhere in dataclasses, mappings and tuples."""
    if is_dataclass(value):
        for entry in fields(value):
            require_finite(f"{where}.{entry.name}", getattr(value, entry.name))
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            require_finite(f"{where}.{name}", entry)
    elif isinstance(value, tuple | list):
        for position, entry in enumerate(value):
            require_finite(f"{where}[{position}]", entry)
    elif isinstance(value, float | np.floating) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, got {value}")


def _or_none(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(float(value) if math.isfinite(value) else None for value in values)
