"""How often a fleet fails: the figures without which no precision means anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.telemetry import CAUSES, SECONDS_PER_DAY, Outcomes

from .censoring import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .truth import FleetTruth


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSummary:
    """What became of the first packs of a fleet.

    Attributes:
        devices: number of devices.
        days: length of the study.
        failures: first packs that failed.
        device_days_at_risk: days on which the next 30 are fully seen, or hold a failure.
        prevalence_30d: share of these days with a true failure within the next 30 days; None
            where there are none.
        cause_shares: share of each cause among the failures; empty without any.
        silent_failure_share: share of failures after which the device never reported again; None
            without any.
        endings: number of first packs by how their observation ended.
        replaced_devices: devices that got at least one new pack.
    """

    devices: int
    days: int
    failures: int
    device_days_at_risk: int
    prevalence_30d: float | None
    cause_shares: Mapping[str, float]
    silent_failure_share: float | None
    endings: Mapping[str, int]
    replaced_devices: int

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return asdict(self)


def summarise(truth: FleetTruth) -> FleetSummary:
    """Sum up a fleet's first packs from the truth about them."""
    first = truth.first_packs
    failed = first.cause >= 0
    failures = int(failed.sum())
    positive, at_risk = days_before_failure(
        truth.outcomes(tuple(map(str, truth.device_index.tolist()))),
        day_start_s=truth.day_start_s,
        horizon_days=30,
        entered_s=first.installed_at_s,
    )
    shares = np.bincount(first.cause[failed], minlength=len(CAUSES)) / max(failures, 1)
    return FleetSummary(
        devices=len(truth.device_index),
        days=len(truth.day_start_s),
        failures=failures,
        device_days_at_risk=at_risk,
        prevalence_30d=positive / at_risk if at_risk else None,
        cause_shares=dict(zip(CAUSES, shares.tolist(), strict=True)) if failures else {},
        silent_failure_share=truth.silent_failure_share if failures else None,
        endings={name: int((first.ending == name).sum()) for name in ENDINGS},
        replaced_devices=int(np.isfinite(truth.replaced_at_s).sum()),
    )


def days_before_failure(
    outcomes: Outcomes,
    *,
    day_start_s: NDArray[np.int64],
    horizon_days: int,
    entered_s: NDArray[np.int64] | None = None,
) -> tuple[int, int]:
    """Count the device-days that stand before a failure, and those that are at risk.

    A midnight counts if the device is observed then, the horizon ends within the study, and what
    happens in it is known: a failure, or no failure until its end.

    Args:
        outcomes: of the devices.
        day_start_s: midnights of the study, int64, shape (n_days,).
        horizon_days: how far ahead.
        entered_s: when each device came; None: all were there from the beginning.

    Returns:
        Device-days with a failure within the horizon, and all that count.
    """
    horizon_s = horizon_days * SECONDS_PER_DAY
    study_end_s = int(day_start_s[-1]) + SECONDS_PER_DAY
    midnights = day_start_s[day_start_s + horizon_s <= study_end_s]
    positive = at_risk = 0
    for midnight in midnights.tolist():
        observed = outcomes.observed_until_s > midnight
        if entered_s is not None:
            observed &= entered_s <= midnight
        fails = observed & (outcomes.failed_at_s <= midnight + horizon_s)
        known = observed & (outcomes.observed_until_s >= midnight + horizon_s)
        positive += int(fails.sum())
        at_risk += int((fails | known).sum())
    return positive, at_risk
