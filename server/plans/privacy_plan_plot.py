"""The picture of a plan: what was chosen among, and how a device's ε grows until it retires.

A file of its own, for a page, a print or a mail: SVG with its text as text, or PNG.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from privacy import gaussian_epsilon

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .privacy_plan import PlanReport

FORMATS: Final = (".svg", ".png")
_TEXT, _MUTED, _RULE = "#1b1f24", "#57606a", "#d8dee4"
_CHOSEN, _OTHER, _LIMIT = "#0b61a4", "#8c959f", "#a4262c"
_MOST_TIMES_CHOSEN: Final = 3.0
"""Errors further above that of the chosen schedule are cut off: nobody would choose there."""
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "privacy-plan",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": _RULE,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


def draw_plan(report: PlanReport, path: Path) -> None:
    """Draw a plan into a file, whole or not at all.

    Args:
        report: of the plan.
        path: ends in .svg or .png.

    Raises:
        ValueError: the path ends in something else.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--plot {path}: end it in {' or '.join(FORMATS)}")
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    from models.durable_file import write_durably

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 7.4), layout="constrained", facecolor="white")
        above, below = figure.subplots(2, 1)
        _draw_choice(above, report)
        _draw_spending(below, report)
        _sign(figure, report)
        buffer = io.BytesIO()
        form = path.suffix.lower().removeprefix(".")
        title = {"Title": f"Privacy plan for {report.plan.request.devices:,} devices"}
        metadata = title | {"Date": None} if form == "svg" else title
        figure.savefig(buffer, format=form, dpi=144, metadata=metadata)
    write_durably(path, buffer.getvalue())


def _draw_choice(axes: Axes, report: PlanReport) -> None:
    plan, chosen = report.plan, report.plan.schedule
    ks = [one.participations for one in plan.by_participations]
    top = _MOST_TIMES_CHOSEN * chosen.independent_error
    axes.plot(
        ks,
        [one.independent_error for one in plan.by_participations],
        color=_OTHER,
        linestyle="--",
        label="independent noise",
    )
    axes.plot(
        ks,
        [one.error for one in plan.by_participations],
        color=_CHOSEN,
        marker="o" if len(ks) <= 60 else None,  # a marker each would make one thick line
        markersize=3.5,
        label="correlated noise",
    )
    axes.plot([chosen.participations], [chosen.error], "o", color=_CHOSEN, markersize=9)
    axes.annotate(
        f"chosen: k = {chosen.participations}, n = {chosen.cohort_size:,}, b = {chosen.separation}",
        (chosen.participations, chosen.error),
        xytext=(0, -16),
        textcoords="offset points",
        ha="right" if chosen.participations > max(ks) / 2 else "left",
        va="top",
    )
    axes.set_ylim(0, min(max(one.independent_error for one in plan.by_participations), top))
    axes.set_title("Error of a sum of released updates")
    axes.set_xlabel("participations of one device, k")
    axes.set_ylabel("error a weight, in units of C")
    axes.legend(loc="upper right")


def _draw_spending(axes: Axes, report: PlanReport) -> None:
    plan, chosen = report.plan, report.plan.schedule
    rounds = np.arange(chosen.participations) * chosen.separation
    rounds = np.minimum(rounds, plan.request.num_rounds - 1)
    spent = [
        gaussian_epsilon(mu=math.sqrt(plan.updates_mu_squared(count)), delta=plan.request.delta)
        for count in range(1, chosen.participations + 1)
    ]
    years = [0.0, *(rounds / plan.request.rounds_a_week * 7 / 365.25), plan.request.years]
    axes.step(years, [0.0, *spent, spent[-1]], where="post", color=_CHOSEN, label="updates")
    axes.axhline(plan.epsilon, color=_LIMIT, linestyle="--", linewidth=1.4)
    axes.annotate(
        f"ε_release = {plan.epsilon:.3g} at δ = {plan.request.delta:g}, all counts answered",
        (0, plan.epsilon),
        xytext=(4, -5),
        textcoords="offset points",
        va="top",
        color=_LIMIT,
    )
    axes.set_ylim(0, plan.epsilon * 1.08)
    axes.set_xlim(0, plan.request.years)
    first = plan.first_retirement(start=report.start)
    axes.set_title(f"ε of a device invited as early as may be; retires on {first}")
    axes.set_xlabel(f"years since {report.start}")
    axes.set_ylabel("ε, updates so far")


def _sign(figure: Figure, report: PlanReport) -> None:
    asked = report.plan.request
    figure.suptitle(
        f"Privacy plan: {asked.devices:,} devices, {asked.num_rounds} rounds in "
        f"{asked.years:g} years",
        x=0.02,
        ha="left",
        fontsize=13,
    )
    figure.supxlabel(
        "Unit: one device, its whole life. Neighbours: its contributions replaced by zero.",
        x=0.02,
        ha="left",
        fontsize=9,
        color=_MUTED,
    )
