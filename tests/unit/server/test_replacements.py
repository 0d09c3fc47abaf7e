from datetime import UTC, datetime, timedelta

import pytest

from models.prediction import Confidence, DueCode
from models.wire.bands import DaysBand
from models.wire.messages import NoticeState, Template
from server.replacements import (
    ENDS_WITH_TIME,
    NoticePolicy,
    PastNotice,
    ReasonCode,
    Send,
    Suppress,
    decide,
)
from tests.support.wire_messages import healthy_summary, soon_summary, summary

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
POLICY = NoticePolicy()
NIGHT = {"quiet_from_hour": 22, "quiet_until_hour": 7, "zone": "Europe/Berlin"}


def decided(told, *past, now=NOW):
    return decide(told, history=past, now=now, policy=POLICY)


def sent(days_ago, template=Template.UNDER_7, state=NoticeState.SHOWN, *, heard_days_ago=None):
    heard = days_ago if heard_days_ago is None else heard_days_ago
    issued, state_at = NOW - timedelta(days=days_ago), NOW - timedelta(days=heard)
    return PastNotice(template, issued, state, state_at)


def test_under_seven_days_sends_the_urgent_notice():
    assert decided(summary(language="de")) == Send(
        Template.UNDER_7, "de", (DueCode.FLAGGED, DueCode.UNDER_30_DAYS)
    )


def test_seven_to_thirty_days_sends_the_other_notice():
    assert decided(soon_summary()) == Send(Template.FROM_7_TO_30, "en", (DueCode.UNDER_30_DAYS,))


def test_a_flagged_device_with_many_days_left_hears_of_it():
    flagged = soon_summary(days_band=DaysBand.FROM_90, flagged=True)

    assert decided(flagged) == Send(Template.FROM_7_TO_30, "en", (DueCode.FLAGGED,))


@pytest.mark.parametrize("days_band", [DaysBand.FROM_30_TO_90, DaysBand.FROM_90])
def test_nothing_is_due_from_thirty_days_on(days_band):
    outcome = decided(healthy_summary(days_band=days_band))

    assert outcome == Suppress(ReasonCode.NOT_DUE, NOW + timedelta(days=1))


def test_low_confidence_is_no_blocker():
    assert isinstance(decided(summary(confidence=Confidence.LOW)), Send)


def test_an_owner_who_wants_no_notices_gets_none():
    outcome = decided(summary(notices_wanted=False))

    assert outcome == Suppress(ReasonCode.NO_CONSENT, NOW + timedelta(days=1))


@pytest.mark.parametrize("template", Template)
def test_a_notice_is_not_repeated_nor_followed_by_a_milder_one(template):
    milder = soon_summary() if template is Template.FROM_7_TO_30 else summary()

    outcome = decided(milder, sent(30, template))

    assert outcome == Suppress(ReasonCode.ALREADY_NOTIFIED, NOW + timedelta(days=1))
    assert decided(soon_summary(), sent(30, Template.UNDER_7)).reason_code == "already_notified"


def test_a_worse_prediction_is_told_a_week_after_the_milder_notice():
    milder = sent(6.9, Template.FROM_7_TO_30)

    waiting = decided(summary(), milder)

    assert waiting == Suppress(ReasonCode.CONTACTED_RECENTLY, milder.issued + timedelta(days=7))
    assert isinstance(decided(summary(), milder, now=waiting.recheck_at), Send)


@pytest.mark.parametrize("state", [NoticeState.EXPIRED, NoticeState.FAILED])
def test_a_notice_that_reached_nobody_does_not_count(state):
    assert isinstance(decided(summary(), sent(1, state=state)), Send)


def test_a_new_battery_has_its_own_notices():
    old_pack = (sent(400, Template.FROM_7_TO_30), sent(390, state=NoticeState.REPLACED))

    assert isinstance(decided(summary(), *old_pack), Send)
    assert decided(summary(), *old_pack, sent(20)).reason_code is ReasonCode.ALREADY_NOTIFIED


def test_an_owner_who_put_a_notice_off_is_reminded_after_a_week():
    put_off = sent(5, state=NoticeState.SNOOZED, heard_days_ago=3)

    waiting = decided(summary(), put_off)

    assert waiting == Suppress(ReasonCode.CONTACTED_RECENTLY, NOW + timedelta(days=4))
    assert isinstance(decided(summary(), put_off, now=waiting.recheck_at), Send)
    assert decided(healthy_summary(), put_off, now=waiting.recheck_at).reason_code is (
        ReasonCode.NOT_DUE
    )


def test_an_owner_who_took_the_reminder_up_is_reminded_no_more():
    history = sent(20, state=NoticeState.SNOOZED), sent(10, state=NoticeState.ACCEPTED)

    assert decided(summary(), *history).reason_code is ReasonCode.ALREADY_NOTIFIED


@pytest.mark.parametrize(
    "quiet",
    [
        NIGHT | {"zone": "Europe/Atlantis"},
        NIGHT | {"zone": None},
        {"zone": "Europe"},
    ],
)
def test_an_unknown_zone_holds(quiet):
    outcome = decided(summary(**quiet))

    assert outcome == Suppress(ReasonCode.UNKNOWN_ZONE, NOW + timedelta(days=1))


def test_quiet_hours_hold_until_they_end():
    at_night = datetime(2026, 6, 1, 21, 30, 12, 345678, tzinfo=UTC)

    outcome = decided(summary(**NIGHT), now=at_night)

    assert outcome == Suppress(ReasonCode.QUIET_HOURS, datetime(2026, 6, 2, 5, tzinfo=UTC))
    assert isinstance(decided(summary(**NIGHT), now=outcome.recheck_at), Send)
    assert isinstance(decided(summary(**NIGHT), now=NOW), Send)


def test_only_reasons_that_time_ends_are_looked_at_again():
    assert {ReasonCode.CONTACTED_RECENTLY, ReasonCode.QUIET_HOURS} == ENDS_WITH_TIME


def test_the_gap_between_contacts_is_a_week():
    assert POLICY.contact_gap == timedelta(days=7)
