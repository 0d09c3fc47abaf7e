"""What the demo prints at its end: a few lines for each subject, figures with what they mean."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from ..report_words import epsilon, listed, power
from ..run_report_parts import Expectation

if TYPE_CHECKING:
    from pathlib import Path

    from ..run_report import RunReport

_HEADING_WIDTH = 18
_LINE_WIDTH = 110
LEGEND = (
    "ECE: calibration error. MAE d: error of the estimated days where 90 or fewer are left. cover: "
    "share of failures between p10 and p90; 0.8 is right. logistic_regression and "
    "gradient_boosting are central and not private: they see all raw data. The rounds start from "
    "default_bundle; what they give gets calibration and threshold on a simulated reference fleet."
)


def summary_lines(report: RunReport) -> list[str]:
    """Return what is to be said below the table of models."""
    return [
        *_block("rounds", [report.noise_statement]),
        *_block("privacy", _privacy(report)),
        *_block("bundle in use", [f"{report.bundle_in_use.version}", report.bundle_in_use.why]),
        *_block("notices", _notices(report)),
        *_block("labels by rule", [_labels(report)]),
        *_block("real cells", [_cells(report)]),
    ]


def legend_lines() -> list[str]:
    """Return what the columns and rows of the table of models mean."""
    return wrap(LEGEND, _LINE_WIDTH)


def closing_lines(report: RunReport, folder: Path, *, files: tuple[str, str]) -> list[str]:
    """Return the last lines: how long it took, and the two files."""
    return [
        *_block("took", [f"{report.seconds:.0f} s"]),
        *_block("report", [str(folder / name) for name in files]),
    ]


def _block(heading: str, texts: list[str]) -> list[str]:
    """Set texts beside a heading, wrapped; a text's own indent is kept."""
    lines = []
    for text in texts:
        indent = " " * (len(text) - len(text.lstrip()))
        lines += wrap(
            text, _LINE_WIDTH - _HEADING_WIDTH, subsequent_indent=indent, break_on_hyphens=False
        )
    return [
        f"{heading if number == 0 else '':<{_HEADING_WIDTH}}{line}"
        for number, line in enumerate(lines)
    ]


def _privacy(report: RunReport) -> list[str]:
    server = "unbounded: the operator is trusted"
    if report.epsilon_server is not None:
        server = f"{epsilon(report.epsilon_server)} at δ = {power(report.delta)}"
    release = f"{epsilon(report.epsilon_release)} at δ = {power(report.delta)}"
    lines = [
        f"ε_release {release}, for {report.unit_of_privacy}",
        f"ε_server  {server}",
    ]
    if report.record_epsilon is not None and report.record_delta is not None:
        lines.append(
            f"record ε  {epsilon(report.record_epsilon)} at δ = {power(report.record_delta)}, "
            f"for {report.record_unit}"
        )
    return lines


def _notices(report: RunReport) -> list[str]:
    notices = report.notices
    counts = f"{notices.sent} sent, {notices.acknowledged} acknowledged"
    lines = [f"{counts}, held back: {listed(notices.suppressed)}; over {report.broker}"]
    for one in notices.per_device:
        expected = Expectation(one.expectation).replace("_", " ")
        template = one.template or "no notice"
        lines.append(f"  {one.device}  {expected:<12} {template:<15} {one.state.replace('_', ' ')}")
    return lines


def _labels(report: RunReport) -> str:
    score = report.label_score
    causes = ", ".join(
        f"{cause.replace('_', ' ')} {one.found}/{one.total}"
        for cause, one in score.by_cause.items()
        if one.total
    )
    return f"true failures found: {causes}; false: {score.false_labels}"


def _cells(report: RunReport) -> str:
    cells = report.real_cells
    if cells.metrics is None:
        return f"not judged: {cells.reason}"
    found = cells.metrics
    figures = f"average precision {_figure(found.average_precision)}, F1 {_figure(found.f1)}"
    return (
        f"default bundle on {cells.cells} cells: {figures} "
        "(it learnt from them too; its model card judges cells it had not seen)"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
