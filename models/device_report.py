"""One device's report, from its own readings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .explanation import shapley_values, top_reasons
from .feature_spec import FEATURE_NAMES, FEATURE_SPEC_VERSION
from .featurize import FeatureTable, PackReferences
from .prediction import ACTIONS, STATUSES, URGENCIES, Report, Status
from .telemetry import CAUSES, DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from .inference import Predictions, Predictor
    from .prediction import Reason

    Personal = Callable[[FeatureTable, float], float]
    """Of features and the model's p50, the logarithm of the device's own factor on days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFigures:
    """The device's own figures, for sentences; they never leave the device. None = not known.

    Attributes:
        capacity_mah: current full-charge capacity, median of a week.
        state_of_health_pct: capacity in percent of design.
        capacity_change_30d_pct: change of capacity over 30 days, percent of design.
        charge_time_change_pct: charge duration of the last week against the first ones, percent.
        charge_time_change_30d_pct: change of charge duration over 30 days, percent.
        resistance_change_pct: resistance against the first readings, percent.
        temp_max_c: highest temperature in 30 days.
        temp_avg_c: mean temperature in 30 days.
        shutdowns_30d: unexpected shutdowns in 30 days.
        usage_hours_per_day: hours of use a day.
        cycles_per_day: full cycles a day.
        charge_cycle_count: full cycles since new.
        age_days: days since manufacture, or since the pack was changed.
    """

    capacity_mah: float | None = None
    state_of_health_pct: float | None = None
    capacity_change_30d_pct: float | None = None
    charge_time_change_pct: float | None = None
    charge_time_change_30d_pct: float | None = None
    resistance_change_pct: float | None = None
    temp_max_c: float | None = None
    temp_avg_c: float | None = None
    shutdowns_30d: float | None = None
    usage_hours_per_day: float | None = None
    cycles_per_day: float | None = None
    charge_cycle_count: float | None = None
    age_days: float | None = None


class DeviceReport(NamedTuple):
    """A report with what belongs to it on the device.

    Attributes:
        report: what the device goes by and shows.
        figures: the device's own figures.
        references: what the device must remember of its pack; None before the first capacity.
        model_report: what the model alone says, which may be summed up in bands; the same report
            where nothing is corrected.
        log_factor: logarithm of the device's own factor on days to failure, 0 = none.
    """

    report: Report
    figures: DeviceFigures
    references: PackReferences | None
    model_report: Report
    log_factor: float = 0.0


def device_report(
    *,
    profile: DeviceProfile,
    table: FeatureTable,
    predictor: Predictor,
    now: datetime,
    explain: bool = True,
    personal: Personal | None = None,
) -> DeviceReport:
    """Predict for one device at one moment.

    Args:
        profile: of the device.
        table: its features at `now`; none where it has no readings.
        predictor: the model.
        now: aware time.
        explain: whether to compute the reasons.
        personal: tells the device's own correction; None: the model's word stands.
    """
    status = STATUSES[int(table.status[0])] if len(table.status) else Status.INSUFFICIENT_HISTORY
    empty = Report(
        device_id=profile.device_id,
        as_of=now.astimezone(UTC),
        status=status,
        model_version=predictor.bundle.version,
        feature_spec_version=FEATURE_SPEC_VERSION,
    )
    if not len(table.status):
        return DeviceReport(empty, DeviceFigures(), None, empty)
    figures, kept = _figures(profile, table), _references(table)
    if status is not Status.OK:
        return DeviceReport(empty, figures, kept, empty)
    outputs = predictor.outputs(table.features)
    contributions = shapley_values(predictor, table.features)[0] if explain else np.zeros(1)
    health = float(table.capacity_mah[0] / profile.design_capacity_mah)
    reasons = top_reasons(contributions)
    by_model = _whole(empty, predictor.decided(outputs), health=health, reasons=reasons)
    days = float(outputs["days_to_failure"][0, 1])
    log_factor = 0.0 if personal is None else personal(table, days)
    if log_factor == 0.0:
        return DeviceReport(by_model, figures, kept, by_model)
    from .personal_correction import corrected_outputs

    shorter = predictor.decided(corrected_outputs(outputs, np.array([log_factor])))
    own = _whole(empty, shorter, health=health, reasons=reasons)
    if own.days_to_failure_p50 != by_model.days_to_failure_p50:
        own = replace(own, model_days_to_failure_p50=by_model.days_to_failure_p50)
    return DeviceReport(own, figures, kept, by_model, log_factor)


def _whole(
    empty: Report, predictions: Predictions, *, health: float, reasons: tuple[Reason, ...]
) -> Report:
    return Report(
        device_id=empty.device_id,
        as_of=empty.as_of,
        status=empty.status,
        model_version=empty.model_version,
        feature_spec_version=empty.feature_spec_version,
        state_of_health=health,
        reasons=reasons,
        failure_probability_30d=float(predictions.failure_probability_30d[0]),
        days_to_failure_p10=float(predictions.days_to_failure_p10[0]),
        days_to_failure_p50=float(predictions.days_to_failure_p50[0]),
        days_to_failure_p90=float(predictions.days_to_failure_p90[0]),
        confidence=float(predictions.confidence[0]),
        primary_issue=CAUSES[int(predictions.cause[0])],
        recommended_action=ACTIONS[int(predictions.action[0])],
        urgency=URGENCIES[int(predictions.urgency[0])],
        flagged=bool(predictions.flagged[0]),
    )


def _references(table: FeatureTable) -> PackReferences | None:
    if not np.isfinite(table.capacity_reference_mah[0]):
        return None
    return PackReferences(
        capacity_mah=float(table.capacity_reference_mah[0]),
        charge_duration_min=float(table.charge_reference_min[0]),
        resistance_mohm=float(table.resistance_reference_mohm[0]),
        since_s=int(table.pack_since_s[0]),
    )


def _figures(profile: DeviceProfile, table: FeatureTable) -> DeviceFigures:
    own = dict(zip(FEATURE_NAMES, table.features[0].astype(float).tolist(), strict=True))
    reference = float(table.capacity_reference_mah[0])
    floor = 0.02 * profile.design_capacity_mah
    span = max(reference - profile.end_of_life_capacity_mah, floor)
    return DeviceFigures(
        capacity_mah=_known(float(table.capacity_mah[0])),
        state_of_health_pct=_known(100 * own["charge_capacity_remaining"]),
        capacity_change_30d_pct=_known(
            100 * own["capacity_slope_30d"] * span / profile.design_capacity_mah
        ),
        charge_time_change_pct=_known(100 * (own["charge_time_ratio"] - 1)),
        charge_time_change_30d_pct=_known(100 * own["charge_time_trend"]),
        resistance_change_pct=_known(100 * (own["resistance_ratio"] - 1)),
        temp_max_c=_known(own["battery_temp_max"]),
        temp_avg_c=_known(own["battery_temp_avg"]),
        shutdowns_30d=_known(own["unexpected_shutdowns"]),
        usage_hours_per_day=_known(own["usage_intensity"]),
        cycles_per_day=_known(own["cycles_per_day"]),
        charge_cycle_count=_known(own["charge_cycle_count"]),
        age_days=_known(own["days_since_manufacture"]),
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
