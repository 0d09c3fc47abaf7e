"""The report of a run for people: one HTML file that needs no server, no script and no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from models.durable_file import write_durably

from . import report_words as words
from .report_plots import (
    LOOKS,
    average_precision_plot,
    calibration_plot,
    days_shown,
    learning_curve_plot,
    life_plot,
    state_of_health_plot,
    urgency_plot,
)
from .run_report import MODEL_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from models.metrics import Quality

    from .run_report import RunReport

PAGE_FILE: Final = "report.html"
TOO_CLOSE: Final = 0.02
"""Shares nearer to the best than this are not told apart: there is one fleet and one seed."""

_TEMPLATES = "report_template"
_KINDS: Final = {
    "do_nothing": "rule",
    "capacity_rule": "rule",
    "linear_extrapolation": "rule",
    "logistic_regression": "central, sees all raw data",
    "gradient_boosting": "central, sees all raw data",
    "default_bundle": "from public data alone",
    "federated_no_noise": "no privacy, for comparison only",
}
_RANKED: Final = ("average_precision", "auc", "f1")


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure in the table of models.

    Attributes:
        heading: of its column.
        text: the figure.
        is_best: whether it is the best of its column, or too close to it to be told apart.
    """

    heading: str
    text: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model in the table of models."""

    name: str
    label: str
    kind: str
    cells: tuple[Cell, ...]


_COLUMNS: Final = {
    "average_precision": ("average precision", 2),
    "auc": ("AUC", 2),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "f1": ("F1", 2),
    "ece": ("ECE", 3),
    "mae_days_when_90_or_less": ("error in days", 0),
    "coverage_p10_p90": ("p10–p90 coverage", 2),
}


def render_page(report: RunReport) -> str:
    """Return the page as HTML: styles and pictures are inside, nothing is fetched."""
    environment = Environment(
        loader=PackageLoader("simulations", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("figure", "percent", "count", "epsilon", "power", "duration", "spaced", "listed"):
        environment.filters[name] = getattr(words, name)
    return environment.get_template("report.html.jinja").render(
        report=report,
        style=Markup(_style_sheet()),  # noqa: S704  # our own file
        findings=words.findings(report),
        columns=[heading for heading, _ in _COLUMNS.values()],
        model_rows=model_rows(report),
        too_close=TOO_CLOSE,
        quality=report.metrics["federated_private"],
        plots={
            "average_precision": average_precision_plot(report.metrics),
            "learning_curve": learning_curve_plot(
                report.learning_curve, delta=words.power(report.delta)
            ),
            "calibration": calibration_plot(report.calibration),
            "urgency": urgency_plot(report.fleet_health),
            "state_of_health": state_of_health_plot(report.fleet_health),
            "life": life_plot(report.life, model=report.bundle_in_use.role),
        },
        labels={name: look.label for name, look in LOOKS.items()},
        shown_lines=words.shown_lines,
        days_shown=days_shown(report.life),
    )


def write_page(report: RunReport, path: Path) -> None:
    """Write `report.html` aside, sync it and rename it into place."""
    content = render_page(report).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)


def model_rows(report: RunReport) -> list[ModelRow]:
    """Lay out the table of models: rules, central peers, then what devices may run."""
    private = "no privacy bound"
    if report.epsilon_release is not None:
        private = f"ε = {words.epsilon(report.epsilon_release)} at δ = {words.power(report.delta)}"
    kinds = {**_KINDS, "federated_private": private}
    best = {name: _best(report, name) for name in _RANKED}
    return [
        ModelRow(
            name=name,
            label=LOOKS[name].label,
            kind=kinds[name],
            cells=tuple(
                _cell(report.metrics[name], column, best.get(column)) for column in _COLUMNS
            ),
        )
        for name in MODEL_NAMES
    ]


def _best(report: RunReport, column: str) -> float | None:
    values = [getattr(quality, column) for quality in report.metrics.values()]
    return max((value for value in values if value is not None), default=None)


def _cell(quality: Quality, column: str, best: float | None) -> Cell:
    heading, digits = _COLUMNS[column]
    value: float | None = getattr(quality, column)
    is_best = best is not None and value is not None and value > 0 and best - value <= TOO_CLOSE
    return Cell(heading, words.figure(value, digits), is_best)


def _style_sheet() -> str:
    return files("simulations").joinpath(_TEMPLATES, "report.css").read_text(encoding="utf-8")
