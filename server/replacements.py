"""Whether a device's owner should hear of its battery now, and if not, why and when to ask again.

Pure: no IO, no clock. A notice is due if the device is flagged or expects to fail in under 30 days;
the template is "under 7" below 7 days, else "7 to 30". What stands against sending is looked at in
a fixed order, and the first that holds is the reason. Low confidence is no blocker: the notice says
how sure it is. An owner who has put a notice off is reminded after a week if one is still due.

A held notice is not written ahead of its time: when the quiet is over, the latest summary is
decided on again, so that nothing stale is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.prediction import DueCode, due_because
from models.quiet_hours import QuietHours, known_zone
from models.wire.bands import DaysBand, least_days
from models.wire.messages import NoticeState, Summary, Template

TEMPLATES_BY_URGENCY = tuple(Template)


class ReasonCode(StrEnum):
    """Why nothing is sent."""

    NOT_DUE = "not_due"
    NO_CONSENT = "no_consent"
    ALREADY_NOTIFIED = "already_notified"
    CONTACTED_RECENTLY = "contacted_recently"
    UNKNOWN_ZONE = "unknown_zone"
    QUIET_HOURS = "quiet_hours"
    NO_DEVICE_KEY = "no_device_key"


ENDS_WITH_TIME = frozenset({ReasonCode.CONTACTED_RECENTLY, ReasonCode.QUIET_HOURS})
"""Reasons that pass by themselves: at the recheck date the same summary is decided on again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePolicy:
    """When owners are left alone.

    Attributes:
        contact_gap: least time between two notices to one device (C1: seven days), and how long
            an owner who wants to be reminded is left alone.
        recheck_after: when to look again where the passing of time alone changes nothing.
        summary_valid_for: how old a summary may be to be decided on again.
    """

    contact_gap: timedelta = timedelta(days=7)
    recheck_after: timedelta = timedelta(days=1)
    summary_valid_for: timedelta = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class PastNotice:
    """A notice that this device was sent before.

    Attributes:
        template: what it said.
        issued: when, aware, UTC.
        state: what became of it.
        state_at: when that was heard, aware, UTC.
    """

    template: Template
    issued: datetime
    state: NoticeState
    state_at: datetime


@dataclass(frozen=True, slots=True)
class Send:
    """Send a notice now.

    Attributes:
        template: which text.
        language: the owner's.
        due_because: what makes it due.
    """

    template: Template
    language: str
    due_because: tuple[DueCode, ...]


@dataclass(frozen=True, slots=True)
class Suppress:
    """Send nothing.

    Attributes:
        reason_code: why.
        recheck_at: when the answer may be another, aware, UTC.
    """

    reason_code: ReasonCode
    recheck_at: datetime


def decide(
    summary: Summary,
    *,
    history: tuple[PastNotice, ...],
    now: datetime,
    policy: NoticePolicy,
) -> Send | Suppress:
    """Decide what a summary calls for.

    Args:
        summary: the latest of the device.
        history: the notices it was sent before, in any order.
        now: aware time.
        policy: when owners are left alone.
    """
    due = due_because(flagged=summary.flagged, days_to_failure=least_days(summary.days_band))
    later = now + policy.recheck_after
    if not due:
        return Suppress(ReasonCode.NOT_DUE, later)
    if not summary.notices_wanted:
        return Suppress(ReasonCode.NO_CONSENT, later)
    template = template_for(summary)
    reached = tuple(past for past in history if past.state not in _NOT_REACHED)
    if any(
        TEMPLATES_BY_URGENCY.index(past.template) <= TEMPLATES_BY_URGENCY.index(template)
        for past in _of_this_pack(reached)
        if past.state is not NoticeState.SNOOZED
    ):
        return Suppress(ReasonCode.ALREADY_NOTIFIED, later)
    contact_until = max((_last_contact(past) + policy.contact_gap for past in reached), default=now)
    if contact_until > now:
        return Suppress(ReasonCode.CONTACTED_RECENTLY, contact_until)
    if _zone_is_unknown(summary):
        return Suppress(ReasonCode.UNKNOWN_ZONE, later)
    quiet = _quiet_hours(summary)
    quiet_until = None if quiet is None else quiet.end(now)
    if quiet_until is not None:
        return Suppress(ReasonCode.QUIET_HOURS, quiet_until)
    return Send(template, summary.language, due)


def template_for(summary: Summary) -> Template:
    """Return the template for a summary that makes a notice due."""
    if summary.days_band is DaysBand.UNDER_7:
        return Template.UNDER_7
    return Template.FROM_7_TO_30


_NOT_REACHED = frozenset({NoticeState.EXPIRED, NoticeState.FAILED})


def _of_this_pack(history: tuple[PastNotice, ...]) -> tuple[PastNotice, ...]:
    """Leave out what was said of a battery that has been replaced since."""
    replaced = [past.issued for past in history if past.state is NoticeState.REPLACED]
    if not replaced:
        return history
    return tuple(past for past in history if past.issued > max(replaced))


def _last_contact(past: PastNotice) -> datetime:
    """Return when the owner was told, or said to be reminded later."""
    return past.state_at if past.state is NoticeState.SNOOZED else past.issued


def _zone_is_unknown(summary: Summary) -> bool:
    if summary.zone is None:
        return summary.quiet_from_hour is not None
    return known_zone(summary.zone) is None


def _quiet_hours(summary: Summary) -> QuietHours | None:
    if summary.quiet_from_hour is None or summary.quiet_until_hour is None or summary.zone is None:
        return None
    return QuietHours(summary.quiet_from_hour, summary.quiet_until_hour, summary.zone)
