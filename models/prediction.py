"""What a device says of its battery: report, actions, urgency, and when a notice is due.

The tables are rows A1 and A6 of the requirements; every decision is computed here, over arrays,
and used by the device, the batch command and the evaluation alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

import numpy as np

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

ModelVersion = NewType("ModelVersion", str)

HORIZON_DAYS = 30
MAX_DAYS = 3650.0
ACTION_EDGES_DAYS = (7.0, 30.0, 90.0)
HIGH_CONFIDENCE = 0.8
MEDIUM_CONFIDENCE = 0.5
NUM_REASONS = 3


class Status(StrEnum):
    """Whether a prediction could be made, and if not, why not."""

    OK = "ok"
    INSUFFICIENT_HISTORY = "insufficient_history"
    STALE = "stale"
    INVALID_DATA = "invalid_data"
    UNSUPPORTED_SPEC = "unsupported_spec"


STATUSES = tuple(Status)


class Action(StrEnum):
    """A1's actions, from the estimated days to failure."""

    IMMEDIATE_REPLACEMENT = "immediate_replacement"
    SCHEDULE_REPLACEMENT = "schedule_replacement"
    MONITOR_AND_PREPARE = "monitor_and_prepare"
    ROUTINE_MONITORING = "routine_monitoring"


class Urgency(StrEnum):
    """A1's urgency, from the same bands."""

    CRITICAL = "critical"
    HIGH = "high"
    STANDARD = "standard"
    LOW = "low"


class DueCode(StrEnum):
    """What makes a notice due."""

    FLAGGED = "flagged"
    UNDER_30_DAYS = "under_30_days"


class Confidence(StrEnum):
    """A6's words for a confidence."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


ACTIONS = tuple(Action)
URGENCIES = tuple(Urgency)
_HIGH_INDEX = URGENCIES.index(Urgency.HIGH)


@dataclass(frozen=True, slots=True)
class Reason:
    """One of the top reasons behind a prediction.

    Attributes:
        code: `<feature group>.raises` or `<feature group>.lowers`: the group and the direction in
            which it moves the probability of failure.
        share: its part of the absolute Shapley values of all groups, 0 to 1.
    """

    code: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of A1 for one device at one moment; figures are None unless `status` is ok.

    Attributes:
        device_id: which device.
        as_of: aware time, UTC: only readings at or before it were used.
        status: ok, or why there is no prediction.
        state_of_health: current capacity as a fraction of design capacity.
        failure_probability_30d: calibrated probability of a failure within 30 days.
        days_to_failure_p10: days that 10 % of such devices do not reach.
        days_to_failure_p50: the estimate, days.
        days_to_failure_p90: days that 90 % of such devices do not reach.
        confidence: probability that the failure day lies in the chosen action's band.
        primary_issue: the likeliest cause, one of `telemetry.CAUSES`.
        recommended_action: A1's table on `days_to_failure_p50`.
        urgency: A1's bands, at least high where flagged.
        flagged: whether the probability reaches the bundle's threshold.
        reasons: the top three.
        model_version: which model.
        feature_spec_version: which definitions of features.
        model_days_to_failure_p50: what the model alone says, where the device's own record
            shortens it (`models.personal_correction`): the days above are then the corrected ones.
            None where they are the model's.
    """

    device_id: str
    as_of: datetime
    status: Status
    model_version: str
    feature_spec_version: str
    state_of_health: float | None = None
    failure_probability_30d: float | None = None
    days_to_failure_p10: float | None = None
    days_to_failure_p50: float | None = None
    days_to_failure_p90: float | None = None
    confidence: float | None = None
    primary_issue: str | None = None
    recommended_action: Action | None = None
    urgency: Urgency | None = None
    flagged: bool | None = None
    reasons: tuple[Reason, ...] = ()
    model_days_to_failure_p50: float | None = None

    def notice_is_due(self) -> bool:
        """Return whether the owner should hear of it: flagged, or p50 under 30 days."""
        if self.status is not Status.OK or self.days_to_failure_p50 is None:
            return False
        return bool(
            due_because(flagged=bool(self.flagged), days_to_failure=self.days_to_failure_p50)
        )


def due_because(*, flagged: bool, days_to_failure: float) -> tuple[DueCode, ...]:
    """Return what makes a notice due, nothing where it is not.

    Args:
        flagged: whether the probability reaches the bundle's threshold.
        days_to_failure: the estimate, or where only its band is known the least it can be.
    """
    codes = []
    if flagged:
        codes.append(DueCode.FLAGGED)
    if days_to_failure < HORIZON_DAYS:
        codes.append(DueCode.UNDER_30_DAYS)
    return tuple(codes)


def action_band(days_to_failure_p50: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the index into `ACTIONS` for each estimate, shape as given (A1's table)."""
    return np.searchsorted(ACTION_EDGES_DAYS, days_to_failure_p50, side="right")


def urgency_band(
    days_to_failure_p50: NDArray[np.floating], flagged: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the index into `URGENCIES`: A1's bands, at least high where flagged."""
    band = action_band(days_to_failure_p50)
    return np.where(flagged, np.minimum(band, _HIGH_INDEX), band)


def confidence_level(confidence: float) -> Confidence:
    """Return A6's word for a confidence: at least .8 high, at least .5 medium."""
    if confidence >= HIGH_CONFIDENCE:
        return Confidence.HIGH
    return Confidence.MEDIUM if confidence >= MEDIUM_CONFIDENCE else Confidence.LOW
