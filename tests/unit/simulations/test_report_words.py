"""Figures as words: never tighter, never more certain than they are."""

from dataclasses import replace

import pytest

from simulations import report_words as words
from tests.support.run_reports import notices, quality, run_report


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1e-5, "10⁻⁵"),
        (2.5e-6, "2.5 × 10⁻⁶"),
        (0.0, "0"),
        (1e-3, "10⁻³"),
        (1 / 1600, "6.3 × 10⁻⁴"),
        (9.99e-5, "10⁻⁴"),
    ],
)
def test_small_numbers_are_written_as_powers_of_ten(value, written):
    assert words.power(value) == written


@pytest.mark.parametrize(("seconds", "written"), [(4.4, "4 s"), (203.4, "3 min 23 s")])
def test_durations_are_written_in_minutes(seconds, written):
    assert words.duration(seconds) == written


def test_what_is_not_known_is_a_dash_and_what_has_no_bound_says_so():
    assert words.figure(None) == "–"
    assert words.percent(None) == "–"
    assert words.epsilon(None) == "unbounded"


@pytest.mark.parametrize(
    ("value", "written"), [(2.0, "2.00"), (2.001, "2.01"), (0.1 + 0.2, "0.30")]
)
def test_no_epsilon_looks_tighter_than_it_is(value, written):
    assert words.epsilon(value) == written


def test_counts_of_zero_are_left_out_of_a_list():
    assert words.listed({"quiet_hours": 2, "opted_out": 0, "budget": 1}) == (
        "quiet hours (2), budget (1)"
    )
    assert words.listed({"quiet_hours": 0}) == "none"


def test_lines_of_a_notice_keep_their_part():
    text = "Soon\n\nWhat we know\n  It is worn.\n\n[ Details ]"

    assert words.shown_lines(text) == [
        ("subject", "Soon"),
        ("heading", "What we know"),
        ("sentence", "It is worn."),
        ("choice", "[ Details ]"),
    ]
    assert words.shown_lines("") == []


def test_findings_begin_with_the_notices_and_name_the_bundle():
    first = words.findings(run_report())[0]

    assert first.startswith(
        "4 of 4 notices sent were acknowledged, and 1 due at the time held back"
    )
    assert "default-3f9a1c20 (default bundle)" in first


def test_a_bounded_server_is_stated_with_its_delta():
    privacy = words.findings(run_report(epsilon_server=8.0))[2]

    assert "operator: ε = 8.00 at δ = 10⁻⁵" in privacy


def test_days_are_judged_only_where_failures_were_seen():
    unseen = {name: quality() for name in run_report().metrics}

    assert words.findings(run_report(metrics=unseen))[3] == (
        "No failure was seen in time to judge the estimated days."
    )
    assert "off by 25 days" in words.findings(run_report())[3]


def test_nothing_held_back_is_not_mentioned():
    sent = replace(notices(), suppressed={})

    assert "held back" not in words.findings(run_report(notices=sent))[0]
