"""The picture of a run's rounds: ε, replies and quality, each over the rounds."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from ..engine.early_stop import REFERENCE_QUALITY
from .outcome import FIGURE_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

FORMATS: Final = (".svg", ".png")
_MUTED, _BLUE, _RED = "#57606a", "#0b61a4", "#a4262c"
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rounds-history",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": "#d8dee4",
    "legend.frameon": False,
}


def draw_history(report: Mapping[str, Any], path: Path) -> None:
    """Draw a run's rounds into a file, whole or not at all.

    Args:
        report: as `run.json` holds it.
        path: ends in .svg or .png.

    Raises:
        ValueError: the path ends in something else, or there is no round to draw.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--plot {path}: end it in {' or '.join(FORMATS)}")
    rounds = report["rounds"]
    if not rounds:
        raise ValueError(f"--plot {path}: the run has no round to draw yet")
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 7.4), layout="constrained", facecolor="white")
        axes = figure.subplots(3, 1, sharex=True)
        _draw_epsilon(axes[0], report)
        _draw_replies(axes[1], rounds)
        _draw_quality(axes[2], report)
        axes[2].set_xlabel("round")
        axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(f"Rounds of {report['config']['stream']}", x=0.02, ha="left", fontsize=13)
        figure.supxlabel(
            "Unit of ε: one device, its whole life. Neighbours: its updates replaced by zero.",
            x=0.02,
            ha="left",
            fontsize=9,
            color=_MUTED,
        )
        content = io.BytesIO()
        form = path.suffix.lower().removeprefix(".")
        metadata = {"Date": None} if form == "svg" else {}
        figure.savefig(content, format=form, dpi=144, metadata=metadata)
    write_durably(path, content.getvalue())


def _draw_epsilon(axes: Axes, report: Mapping[str, Any]) -> None:
    rounds, planned = report["rounds"], report["config"]["epsilon"]
    numbers = [record["index"] + 1 for record in rounds]
    spent = [record["epsilon_release"] for record in rounds]
    if None in spent:
        axes.set_title("ε_release: unbounded, without noise")
        return
    axes.step([0, *numbers], [0.0, *spent], where="post", color=_BLUE)
    if planned is not None:
        axes.axhline(planned, color=_RED, linestyle="--", linewidth=1.2)
    axes.set_ylim(0)
    axes.set_title(f"ε_release at δ = {report['privacy']['delta']:g}, planned {planned:g}")


def _draw_replies(axes: Axes, rounds: Sequence[Mapping[str, Any]]) -> None:
    numbers = [record["index"] + 1 for record in rounds]
    axes.step(
        numbers, [r["invited"] for r in rounds], where="mid", color=_MUTED, label="devices invited"
    )
    axes.plot(
        numbers, [r["replied"] for r in rounds], ".-", color=_BLUE, label="devices in good replies"
    )
    alone = [(r["index"] + 1, r["replied"]) for r in rounds if r.get("noise_only")]
    if alone:
        axes.plot(*zip(*alone, strict=True), "x", color=_RED, label="noise alone")
    axes.set_ylim(0)
    axes.legend(loc="lower right")
    axes.set_title("Replies")


def _draw_quality(axes: Axes, report: Mapping[str, Any]) -> None:
    looks = [(0, report.get("start_metrics"))]
    looks += [(record["index"] + 1, record.get("metrics")) for record in report["rounds"]]
    seen = [(number, look) for number, look in looks if look]
    shown = next(
        (name for name in FIGURE_WORDS if any(look.get(name) is not None for _, look in seen)),
        None,
    )
    if shown is None:
        axes.set_title("Quality: nobody looked")
        return
    points = [(number, look[shown]) for number, look in seen if look.get(shown) is not None]
    axes.plot(*zip(*points, strict=True), ".-", color=_BLUE)
    name = FIGURE_WORDS[shown]
    where = "by which the run may stop" if shown == REFERENCE_QUALITY else "on the held-out part"
    axes.set_title(f"{name[0].upper()}{name[1:]}, {where}")
