"""The picture of a fault study: what each arm loses, and how often a trigger gets its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .quality_plot import STYLE, require_format, write_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_COLOUR: Final = "#0b61a4"
_ALLOWED: Final = "#b35900"
_MOST_LOST: Final = 0.02


def draw_faults(summary: Mapping[str, Any], path: Path) -> None:
    """Draw a study into a file, whole or not at all.

    Args:
        summary: as `fault_study.summary_of` gives it.
        path: ends in .svg or .png.

    Raises:
        ValueError: the path ends in something else.
    """
    require_format(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    arms, privacy = summary["arms"], summary["privacy"]
    with mpl.rc_context(STYLE | {"svg.hashsalt": "fault-study"}):
        figure = Figure(figsize=(11.0, 1.4 + 0.34 * len(arms)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_lost(left, arms)
        _draw_trigger(right, arms)
        figure.suptitle(
            f"ε_release = {privacy['epsilon_release']:.2f} at δ = {privacy['delta']:g} "
            f"(unit: one device) in every arm; seeds: {len(arms[0]['seeds'])}",
            fontsize=10.5,
        )
        write_figure(figure, path)


def _draw_lost(axes: Axes, arms: Sequence[Mapping[str, Any]]) -> None:
    places = range(len(arms))
    axes.axvline(_MOST_LOST, color=_ALLOWED, linewidth=1.0, linestyle="--")
    for place, arm in zip(places, arms, strict=True):
        lost = arm["lost_by_seed"]
        axes.plot(lost, [place] * len(lost), "o", color=_COLOUR, markersize=4, alpha=0.5)
        axes.plot([arm["lost"]], [place], "D", color=_COLOUR, markersize=6)
    axes.set_yticks(list(places), [arm["arm"] for arm in arms])
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.set_title("Average precision lost to the clean run (dashed: 0.02)")


def _draw_trigger(axes: Axes, arms: Sequence[Mapping[str, Any]]) -> None:
    for what, said, colour, aside in (
        ("false_alarm", "healthy rows flagged", _COLOUR, -0.18),
        ("hidden_failure", "failing rows hidden", _ALLOWED, 0.18),
    ):
        shares = [100 * arm["triggered"][what] for arm in arms]
        places = [place + aside for place in range(len(arms))]
        axes.barh(places, shares, color=colour, height=0.34, label=said)
    axes.set_xlim(0, 100)
    axes.set_xlabel("%")
    axes.legend(loc="lower right")
    axes.set_title("What the trigger turns")
