"""A1's tables at their edges."""

from datetime import UTC, datetime

import numpy as np
import pytest

from models.prediction import (
    ACTIONS,
    STATUSES,
    URGENCIES,
    Confidence,
    Report,
    Status,
    action_band,
    confidence_level,
    due_because,
    urgency_band,
)
from models.wire.bands import days_band, least_days


@pytest.mark.parametrize(
    ("days", "action", "urgency"),
    [
        (0.0, "immediate_replacement", "critical"),
        (6.99, "immediate_replacement", "critical"),
        (7.0, "schedule_replacement", "high"),
        (29.99, "schedule_replacement", "high"),
        (30.0, "monitor_and_prepare", "standard"),
        (89.99, "monitor_and_prepare", "standard"),
        (90.0, "routine_monitoring", "low"),
        (3650.0, "routine_monitoring", "low"),
    ],
)
def test_action_and_urgency_follow_the_estimate(days, action, urgency):
    estimate = np.array([days], np.float32)

    assert ACTIONS[action_band(estimate)[0]] == action
    assert URGENCIES[urgency_band(estimate, np.array([False]))[0]] == urgency


@pytest.mark.parametrize(
    ("days", "urgency"), [(3, "critical"), (20, "high"), (60, "high"), (500, "high")]
)
def test_a_flagged_device_is_at_least_of_high_urgency(days, urgency):
    assert URGENCIES[urgency_band(np.array([float(days)]), np.array([True]))[0]] == urgency


@pytest.mark.parametrize(
    ("confidence", "word"),
    [
        (1.0, Confidence.HIGH),
        (0.8, Confidence.HIGH),
        (0.7999, Confidence.MEDIUM),
        (0.5, Confidence.MEDIUM),
        (0.4999, Confidence.LOW),
    ],
)
def test_confidence_has_three_words(confidence, word):
    assert confidence_level(confidence) is word


@pytest.mark.parametrize(
    ("status", "flagged", "p50", "due"),
    [
        (Status.OK, True, 500.0, True),
        (Status.OK, False, 29.9, True),
        (Status.OK, False, 30.0, False),
        (Status.STALE, None, None, False),
    ],
)
def test_a_notice_is_due_when_flagged_or_within_30_days(status, flagged, p50, due):
    report = Report(
        device_id="d",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        status=status,
        model_version="m",
        feature_spec_version="1",
        flagged=flagged,
        days_to_failure_p50=p50,
    )

    assert report.notice_is_due() is due


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("days", [0.0, 6.9, 7.0, 29.9, 30.0, 89.9, 90.0])
def test_a_notice_is_due_by_the_band_as_by_the_days(flagged, days):
    by_days = due_because(flagged=flagged, days_to_failure=days)

    assert due_because(flagged=flagged, days_to_failure=least_days(days_band(days))) == by_days


def test_statuses_are_those_of_the_predictions_table():
    assert [str(status) for status in STATUSES] == [
        "ok",
        "insufficient_history",
        "stale",
        "invalid_data",
        "unsupported_spec",
    ]
