"""A report -> the message that tells the server of it: bands, never figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from models.prediction import Status, confidence_level
from models.wire.bands import days_band, health_band, probability_band
from models.wire.codec import specification
from models.wire.messages import Criticality, PrimaryIssue, Summary

from .wording import DEFAULT_LANGUAGE

if TYPE_CHECKING:
    from datetime import datetime

    from models.prediction import Confidence, Report, Urgency
    from models.quiet_hours import QuietHours
    from models.telemetry import DeviceProfile
    from models.wire.bands import DaysBand, HealthBand, ProbabilityBand

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedBands:
    """What a summary tells of the battery; with `band_noise` it may be drawn, not true.

    Attributes:
        urgency: A1's, at least high where flagged.
        flagged: whether the 30-day probability reaches the model's threshold.
        days_band: band of the estimate.
        probability_band: band of the 30-day probability.
        health_band: band of capacity against new.
        confidence: level of confidence.
        primary_issue: the likeliest cause.
    """

    urgency: Urgency
    flagged: bool
    days_band: DaysBand
    probability_band: ProbabilityBand
    health_band: HealthBand
    confidence: Confidence
    primary_issue: PrimaryIssue


@dataclass(frozen=True, slots=True)
class LeavingField:
    """One field of a message, as it would leave, for the owner to read.

    Attributes:
        name: of the field.
        value: as JSON carries it.
        what: the field in words.
        purpose: why it is sent.
        consent: which agreement covers it.
    """

    name: str
    value: object
    what: str
    purpose: str
    consent: str


def bands_of(report: Report) -> ReportedBands:
    """Return the true bands of a report.

    Raises:
        ValueError: the report holds no prediction.
    """
    if report.status is not Status.OK:
        raise ValueError(f"a summary needs a prediction, the report's status is {report.status}")
    return ReportedBands(
        urgency=_known(report.urgency),
        flagged=_known(report.flagged),
        days_band=days_band(_known(report.days_to_failure_p50)),
        probability_band=probability_band(_known(report.failure_probability_30d)),
        health_band=health_band(_known(report.state_of_health)),
        confidence=confidence_level(_known(report.confidence)),
        primary_issue=PrimaryIssue(_known(report.primary_issue)),
    )


def summary_of(
    report: Report,
    *,
    profile: DeviceProfile,
    language: str,
    notices_wanted: bool,
    quiet_hours: QuietHours | None,
    message_id: str,
    sequence: int,
    now: datetime,
    bands: ReportedBands | None = None,
) -> Summary:
    """Sum a report up in bands.

    Args:
        report: one with a prediction.
        profile: of the device.
        language: in which the owner reads; told only where notices are wanted.
        notices_wanted: whether the owner agreed to notices.
        quiet_hours: the owner's; told only where notices are wanted.
        message_id: 32 hex digits, new for each message.
        sequence: of this device's summaries, growing.
        now: the device's time.
        bands: told in place of the report's own, as `band_noise.noised_bands` draws them.

    Raises:
        ValueError: the report holds no prediction.
    """
    true = bands_of(report)
    told = true if bands is None else bands
    quiet = quiet_hours if notices_wanted else None
    return Summary(
        id=message_id,
        device=profile.device_id,
        sequence=sequence,
        issued=now.replace(microsecond=0),
        urgency=told.urgency,
        flagged=told.flagged,
        days_band=told.days_band,
        probability_band=told.probability_band,
        health_band=told.health_band,
        confidence=told.confidence,
        primary_issue=told.primary_issue,
        criticality=Criticality(profile.criticality),
        model_version=report.model_version,
        language=language if notices_wanted else DEFAULT_LANGUAGE,
        notices_wanted=notices_wanted,
        quiet_from_hour=None if quiet is None else quiet.from_hour,
        quiet_until_hour=None if quiet is None else quiet.until_hour,
        zone=None if quiet is None else quiet.zone,
    )


def leaving_fields(summary: Summary) -> tuple[LeavingField, ...]:
    """Return what a summary tells, field by field, as its contract declares it."""
    found = []
    for name, (declared, _) in specification(Summary).items():
        value = getattr(summary, name)
        if value is not None:
            found.append(
                LeavingField(
                    name=name,
                    value=declared.kind.to_json(value),
                    what=declared.what,
                    purpose=declared.purpose or Summary.PURPOSE,
                    consent=(declared.consent or Summary.CONSENT).value,
                )
            )
    return tuple(found)


def _known(value: T | None) -> T:
    if value is None:
        raise ValueError("a report whose status is ok must hold every figure")
    return value
