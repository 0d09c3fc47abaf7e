"""The picture of a quality study: both arms over the rounds, every seed a thin line."""

from __future__ import annotations

import io
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = (".svg", ".png")
_COLOURS: Final = {"without noise": "#57606a", "private": "#0b61a4"}
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quality-study",
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


def draw_study(summary: Mapping[str, Any], path: Path) -> None:
    """Draw a study into a file, whole or not at all.

    Args:
        summary: as `quality_study.summary_of` gives it.
        path: ends in .svg or .png.

    Raises:
        ValueError: the path ends in something else.
    """
    require_format(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    privacy = summary["privacy"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw(left, summary, metric="auc", title="AUC, failure within 30 days")
        _draw(right, summary, metric="average_precision", title="Average precision")
        left.legend(loc="lower right")
        figure.suptitle(
            f"ε_release = {privacy['epsilon_release']:.2f} at δ = {privacy['delta']:g} "
            f"(unit: one device), ε_record = {privacy['record']['epsilon']:.1f} "
            f"at δ = {privacy['record']['delta']:g} (unit: one row) in both arms",
            fontsize=10.5,
        )
        write_figure(figure, path)


def require_format(path: Path) -> None:
    """Refuse a file whose name says no format that a study is drawn in.

    Raises:
        ValueError: it does not end in .svg or .png.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--plot {path}: end it in {' or '.join(FORMATS)}")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure into a file, whole or not at all, the same bytes each time."""
    content = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(content, format=kind, dpi=160, metadata=metadata)
    write_durably(path, content.getvalue())


def _draw(axes: Axes, summary: Mapping[str, Any], *, metric: str, title: str) -> None:
    for arm, colour in _COLOURS.items():
        curves = [
            {int(done): look[metric] for done, look in seed["looks"][arm].items()}
            for seed in summary["seeds"]
        ]
        rounds = sorted(curves[0])
        for curve in curves:
            values = [curve[done] for done in rounds]
            axes.plot(rounds, values, color=colour, linewidth=0.6, alpha=0.5)
        middle = [median(curve[done] for curve in curves) for done in rounds]
        axes.plot(rounds, middle, color=colour, linewidth=2.0, marker="o", markersize=4, label=arm)
    axes.set_title(title)
    axes.set_xlabel("rounds")
