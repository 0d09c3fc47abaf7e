"""Figures and findings of a run report as words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .run_report import RunReport

ABSENT: Final = "–"
UNBOUNDED: Final = "unbounded"
_SPACE: Final = "\N{NO-BREAK SPACE}"
_FLOAT_SLACK: Final = 1e-6
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals, or a dash."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share of 1 in percent, or a dash."""
    return ABSENT if share is None else f"{100 * share:.{digits}f}{_SPACE}%"


def count(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}"


def epsilon(value: float | None) -> str:
    """Return an ε rounded up, so that no bound looks tighter than it is; in words without one."""
    return UNBOUNDED if value is None else f"{_rounded_up(value, 2):.2f}"


def power(value: float) -> str:
    """Return a small number such as a δ as a power of ten, rounded up to two digits."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(value))
    lead = _rounded_up(value / 10.0**exponent, 1)
    if lead >= 10:
        lead, exponent = 1.0, exponent + 1
    raised = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
    return raised if lead == 1 else f"{lead:g} × {raised}"


def _rounded_up(value: float, digits: int) -> float:
    scale = 10.0**digits
    return math.ceil(value * scale - _FLOAT_SLACK) / scale


def duration(seconds: float) -> str:
    """Return a duration in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def spaced(code: str) -> str:
    """Return a code of the software as words."""
    return code.replace("_", " ")


def listed(counts: Mapping[str, int]) -> str:
    """Return counts by code as a phrase; those of zero are left out."""
    some = [f"{spaced(code)} ({count(number)})" for code, number in counts.items() if number]
    return ", ".join(some) or "none"


def shown_lines(text: str) -> list[tuple[str, str]]:
    """Return the lines of a notice as its device shows them, each with its part in the notice.

    The parts are subject (the first line), heading, sentence (indented) and choice (in brackets);
    blank lines are left out.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return [(_part(line, position), line.strip()) for position, line in enumerate(lines)]


def _part(line: str, position: int) -> str:
    if position == 0:
        return "subject"
    if line.startswith("["):
        return "choice"
    return "sentence" if line.startswith(" ") else "heading"


def findings(report: RunReport) -> list[str]:
    """Say what the run found, a sentence or two each, the most important first."""
    return [_notices(report), _quality(report), _privacy(report), _days(report)]


def _notices(report: RunReport) -> str:
    notices = report.notices
    held_back = sum(notices.suppressed.values())
    told = f"{notices.acknowledged} of {notices.sent} notices sent were acknowledged"
    if held_back:
        told += f", and {held_back} due at the time held back: {listed(notices.suppressed)}"
    bundle = report.bundle_in_use
    return f"{told}. The devices ran {bundle.version} ({spaced(bundle.role)}). {bundle.why}"


def _quality(report: RunReport) -> str:
    of = report.metrics
    precision = {name: figure(quality.average_precision) for name, quality in of.items()}
    return (
        f"Average precision of the federated private model: {precision['federated_private']}. "
        f"The default bundle, from which the rounds started, has {precision['default_bundle']}; "
        f"the same rounds without noise reach {precision['federated_no_noise']}; gradient "
        f"boosting, which sees everybody’s raw data, {precision['gradient_boosting']}; guessing "
        f"{figure(of['do_nothing'].prevalence)}. {report.noise_statement}"
    )


def _privacy(report: RunReport) -> str:
    bound = (
        "nothing limits what the private model reveals (ε is unbounded)"
        if report.epsilon_release is None
        else f"ε = {epsilon(report.epsilon_release)} at δ = {power(report.delta)} limits what "
        "the private model reveals"
    )
    server = (
        "Nothing is promised against the server’s operator (ε is unbounded)."
        if report.epsilon_server is None
        else f"Against the server’s operator: ε = {epsilon(report.epsilon_server)} at "
        f"δ = {power(report.delta)}."
    )
    return f"To whoever receives it, {bound} about {report.unit_of_privacy}. {server}"


def _days(report: RunReport) -> str:
    private = report.metrics["federated_private"]
    if private.coverage_p10_p90 is None:
        return "No failure was seen in time to judge the estimated days."
    inside = percent(private.coverage_p10_p90)
    told = (
        f"{inside} of the failures seen fell between the private model’s p10 and p90; "
        f"{percent(0.8)} is right."
    )
    if private.mae_days_when_90_or_less is not None:
        wrong = figure(private.mae_days_when_90_or_less, 0)
        told += f" Within 90 days of a failure its estimate is off by {wrong} days on average."
    return told
