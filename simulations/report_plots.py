"""The pictures of a run report, each with a description in words that carries its message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.prediction import URGENCIES

from .report_svg import FONT_PX, Ink, Plot, plot
from .report_words import epsilon, percent
from .run_report import MODEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from models.metrics import Quality

    from .run_report_parts import FleetHealth, LearningPoint, Life


@dataclass(frozen=True, slots=True)
class Look:
    """How a model is drawn wherever it appears: never by colour alone."""

    label: str
    ink: Ink
    line: str = "-"
    marker: str = "o"


LOOKS: Final = {
    "do_nothing": Look("do nothing", Ink.BASELINE),
    "capacity_rule": Look("capacity rule", Ink.BASELINE),
    "linear_extrapolation": Look("linear extrapolation", Ink.BASELINE),
    "logistic_regression": Look("logistic regression", Ink.BASELINE, ":", "v"),
    "gradient_boosting": Look("gradient boosting", Ink.BASELINE, "-.", "D"),
    "default_bundle": Look("default bundle", Ink.DEFAULT_BUNDLE, "-.", "^"),
    "federated_private": Look("federated, private", Ink.PRIVATE),
    "federated_no_noise": Look("federated, no noise", Ink.NO_NOISE, "--", "s"),
}
NUM_EPSILON_TICKS: Final = 4
LEAST_DAYS_SHOWN: Final = 120.0
SMALL_PX: Final = 11
MARKERS_ON_A_LINE: Final = 20
MOST_WRITTEN_ON_A_BAR: Final = 10_000


def average_precision_plot(metrics: Mapping[str, Quality]) -> Plot:
    """Draw the average precision of each model as a bar, with the prevalence as a line."""
    known = [name for name in MODEL_NAMES if metrics[name].average_precision is not None]
    values = [float(metrics[name].average_precision or 0.0) for name in known]
    prevalence = next(iter(metrics.values())).prevalence
    words = [f"{LOOKS[name].label} {value:.2f}" for name, value in zip(known, values, strict=True)]
    return plot(
        partial(_draw_average_precision, names=known, values=values, prevalence=prevalence),
        name="average-precision",
        title="Average precision of each model",
        description=f"Bars: {'; '.join(words)}."
        + ("" if prevalence is None else f" A line marks the prevalence, {prevalence:.3f}."),
        height_px=290,
    )


def _draw_average_precision(
    figure: Figure, *, names: Sequence[str], values: Sequence[float], prevalence: float | None
) -> None:
    axes = figure.add_subplot()
    places = np.arange(len(names))[::-1]
    colours = [LOOKS[name].ink.value for name in names]
    axes.barh(places, values, height=0.62, color=colours)
    for place, value in zip(places, values, strict=True):
        _write(axes, f"{value:.2f}", (value, place), offset=(5, 0), va="center")
    axes.set_yticks(places, [LOOKS[name].label for name in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, min(1.0, max([*values, 0.05]) * 1.18))
    axes.set_xlabel("average precision")
    if prevalence is not None:
        axes.axvline(prevalence, color=Ink.TEXT.value, linewidth=1, linestyle="--")
        top = (prevalence, len(names) - 0.5)
        _write(axes, "prevalence", top, offset=(4, 0), va="bottom", fontsize=SMALL_PX)


def learning_curve_plot(
    curves: Mapping[str, Sequence[LearningPoint]], *, delta: str
) -> Plot | None:
    """Draw average precision by round, with the ε spent on a second scale; None without points.

    Args:
        curves: by model name.
        delta: δ of every ε, as text.
    """
    measured = {
        name: [point for point in points if point.average_precision is not None]
        for name, points in curves.items()
    }
    measured = {name: points for name, points in measured.items() if points}
    if not measured:
        return None
    words = [_course(name, points, delta) for name, points in measured.items()]
    return plot(
        partial(_draw_learning_curve, curves=measured, delta=delta),
        name="learning-curve",
        title="Average precision by round, and the ε spent",
        description=" ".join(words),
        height_px=320,
    )


def _course(name: str, points: Sequence[LearningPoint], delta: str) -> str:
    first, last = points[0], points[-1]
    spent = ""
    if last.epsilon is not None:
        spent = f", having spent ε = {epsilon(last.epsilon)} at δ = {delta}"
    return (
        f"{LOOKS[name].label}: from {first.average_precision:.2f} after round {first.round} "
        f"to {last.average_precision:.2f} after round {last.round}{spent}."
    )


def _draw_learning_curve(
    figure: Figure, *, curves: Mapping[str, Sequence[LearningPoint]], delta: str
) -> None:
    axes = figure.add_subplot()
    for name, points in curves.items():
        rounds = [point.round for point in points]
        heights = _gaps([point.average_precision for point in points])
        _draw_line(axes, rounds, heights, name)
    axes.set_xlabel("round")
    axes.set_ylabel("average precision")
    _at_whole_numbers(axes.xaxis)
    last = max(point.round for points in curves.values() for point in points)
    axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, 0.05)
    axes.set_ylim(max(0.0, middle - half), min(1.0, middle + half))
    _legend_above(figure, axes)
    spent = [p for p in curves.get("federated_private", ()) if p.epsilon is not None]
    if spent:
        scale = axes.secondary_xaxis("top")
        picked = _spread(spent, NUM_EPSILON_TICKS)
        scale.set_xticks([p.round for p in picked], [epsilon(p.epsilon) for p in picked])
        scale.set_xlabel(f"ε spent by the private rounds (δ = {delta})")


def _spread(points: Sequence[LearningPoint], count: int) -> list[LearningPoint]:
    steps = np.unique(np.linspace(0, len(points) - 1, min(count + 1, len(points))).round())
    return [points[int(step)] for step in steps]


def calibration_plot(
    calibration: Mapping[str, Sequence[tuple[float, float, int]]],
) -> Plot | None:
    """Draw the frequency of failures against the probability announced; None without bins."""
    bins = {name: rows for name, rows in calibration.items() if rows}
    if not bins:
        return None
    words = [
        f"{LOOKS[name].label}: where it announced {rows[-1][0]:.2f} on average, "
        f"{rows[-1][1]:.2f} failed."
        for name, rows in bins.items()
    ]
    return plot(
        partial(_draw_calibration, bins=bins),
        name="calibration",
        title="Failures seen against failures announced",
        description=" ".join(["On the diagonal a model keeps its word.", *words]),
        height_px=380,
    )


def _draw_calibration(
    figure: Figure, *, bins: Mapping[str, Sequence[tuple[float, float, int]]]
) -> None:
    axes = figure.add_subplot()
    top = min(1.0, 1.08 * max(max(row[:2]) for rows in bins.values() for row in rows))
    axes.plot([0, top], [0, top], color=Ink.TEXT.value, linewidth=1, linestyle=(0, (1, 2)))
    for name, rows in bins.items():
        _draw_line(axes, [row[0] for row in rows], _gaps([row[1] for row in rows]), name)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("probability announced (mean of a bin)")
    axes.set_ylabel("share that failed")
    _legend_above(figure, axes)


def urgency_plot(health: FleetHealth) -> Plot:
    """Draw how many devices have which urgency."""
    counts = {str(name): health.urgency.get(str(name), 0) for name in URGENCIES}
    return plot(
        partial(_draw_urgency, counts=counts),
        name="urgency",
        title="Devices by urgency",
        description="; ".join(f"{name}: {count:,}" for name, count in counts.items()) + ".",
        height_px=190,
    )


def _draw_urgency(figure: Figure, *, counts: Mapping[str, int]) -> None:
    axes = figure.add_subplot()
    places = np.arange(len(counts))[::-1]
    heights = list(counts.values())
    inks = [Ink.ALARM, Ink.FLEET, Ink.FLEET, Ink.FLEET]
    axes.barh(places, heights, height=0.62, color=[ink.value for ink in inks])
    for place, count in zip(places, heights, strict=True):
        _write(axes, f"{count:,}", (count, place), offset=(5, 0), va="center")
    axes.set_yticks(places, list(counts))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max([*heights, 1]) * 1.18)
    _at_whole_numbers(axes.xaxis, most=5)
    axes.set_xlabel("devices")


def state_of_health_plot(health: FleetHealth) -> Plot:
    """Draw how many devices have which state of health."""
    bins = health.state_of_health
    total = sum(one.devices for one in bins)
    worn = sum(one.devices for one in bins if one.high <= 0.7 + 1e-9)
    fullest = max(bins, key=lambda one: one.devices)
    return plot(
        partial(_draw_state_of_health, health=health),
        name="state-of-health",
        title="Devices by state of health",
        description=f"{total:,} devices; most ({fullest.devices:,}) lie between "
        f"{percent(fullest.low)} and {percent(fullest.high)}; {worn:,} lie below {percent(0.7)}.",
        height_px=250,
    )


def _draw_state_of_health(figure: Figure, *, health: FleetHealth) -> None:
    axes = figure.add_subplot()
    bins = health.state_of_health
    counts = [one.devices for one in bins]
    axes.bar(np.arange(len(bins)) + 0.5, counts, width=0.94, color=Ink.FLEET.value)
    for place, count in enumerate(counts):
        if 0 < count < MOST_WRITTEN_ON_A_BAR:
            _write(
                axes,
                str(count),
                (place + 0.5, count),
                offset=(0, 3),
                fontsize=SMALL_PX,
                ha="center",
                va="bottom",
            )
    # A bar stands between its edges; the first may be wider than it is drawn.
    edges = [(place, f"{100 * one.low:.0f}") for place, one in enumerate(bins)]
    axes.set_xticks([place for place, _ in edges[1::2]], [edge for _, edge in edges[1::2]])
    axes.grid(visible=False, axis="x")
    _at_whole_numbers(axes.yaxis, most=4)
    axes.set_ylim(0, max([*counts, 1]) * 1.15)
    axes.set_xlabel("capacity, percent of design")
    axes.set_ylabel("devices")


def life_plot(life: Life, *, model: str) -> Plot:
    """Draw one device's capacity, and its days to failure with the interval from p10 to p90.

    Args:
        life: to draw.
        model: whose estimate it is, one of `MODEL_NAMES`.
    """
    ended = (
        "No failure was seen."
        if life.failed_at_days is None
        else f"It failed on day {life.failed_at_days:.0f}."
    )
    known = [value for value in life.capacity_health_pct if value is not None]
    course = f"Capacity went from {known[0]:.0f} to {known[-1]:.0f} percent. " if known else ""
    inside = share_of_days_inside(life)
    kept = (
        ""
        if inside is None
        else f" The days really left lay inside the interval on {percent(inside)} of the days."
    )
    return plot(
        partial(_draw_life, life=life, ink=LOOKS[model].ink.value),
        name="life",
        title="Capacity above, estimated days to failure below",
        description=f"{course}{ended}{kept}",
        height_px=440,
    )


def share_of_days_inside(life: Life) -> float | None:
    """Return on which share of the days the truth lay from p10 to p90; None where unknown."""
    rows = zip(life.days_to_failure_p10, life.days_left, life.days_to_failure_p90, strict=True)
    inside = [
        low <= left <= high
        for low, left, high in rows
        if low is not None and left is not None and high is not None
    ]
    return sum(inside) / len(inside) if inside else None


def _draw_life(figure: Figure, *, life: Life, ink: str) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    days = np.array(life.as_of_days)
    above.plot(days, _gaps(life.capacity_health_pct), color=Ink.TEXT.value, linewidth=1.4)
    end = life.end_of_life_health_pct
    above.axhline(end, color=Ink.ALARM.value, linewidth=1.2, linestyle="--")
    start = (days[0], end)
    _write(above, "end of life", start, offset=(0, -3), va="top", fontsize=SMALL_PX)
    low, high = above.get_ylim()
    above.set_ylim(low - 0.16 * (high - low), high)
    above.set_ylabel("capacity, %")
    p10, p50, p90, left = (
        _gaps(series)
        for series in (
            life.days_to_failure_p10,
            life.days_to_failure_p50,
            life.days_to_failure_p90,
            life.days_left,
        )
    )
    below.fill_between(days, p10, p90, color=ink, alpha=0.25, linewidth=0, label="p10 to p90")
    below.plot(days, p50, color=ink, label="p50, the estimate")
    if np.isfinite(left).any():
        truth = {"color": Ink.TEXT.value, "linewidth": 1.3, "linestyle": "--"}
        below.plot(days, left, label="really left", **truth)
    below.set_ylim(0, days_shown(life))
    below.set_ylabel("days to failure")
    below.set_xlabel("days since the first reading")
    if life.failed_at_days is not None:
        for axes in (above, below):
            axes.axvline(life.failed_at_days, color=Ink.ALARM.value, linewidth=1.2)
        top = (life.failed_at_days, above.get_ylim()[1])
        _write(above, "failed", top, offset=(-4, 0), ha="right", va="top", fontsize=SMALL_PX)
    _legend_above(figure, below)


def days_shown(life: Life) -> float:
    """Return where the scale of days ends: wide intervals early in a life are cut there."""
    middle = [v for v in (*life.days_to_failure_p50, *life.days_left) if v is not None]
    widest = max((v for v in life.days_to_failure_p90 if v is not None), default=0.0)
    wanted = max([1.5 * max(middle, default=0.0), LEAST_DAYS_SHOWN])
    return math.ceil(min(wanted, max(widest * 1.05, LEAST_DAYS_SHOWN)) / 10) * 10.0


def _gaps(series: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in series])


def _draw_line(axes: Axes, across: Sequence[float], up: NDArray[np.float64], name: str) -> None:
    look = LOOKS[name]
    axes.plot(
        across,
        up,
        color=look.ink.value,
        linestyle=look.line,
        marker=look.marker,
        markersize=4.5,
        markevery=max(1, len(across) // MARKERS_ON_A_LINE),
        label=look.label,
    )


def _at_whole_numbers(axis: Axis, *, most: int = 10) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def _legend_above(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=2, handlelength=2.4, columnspacing=1.2
    )


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    *,
    offset: tuple[float, float],
    fontsize: float = FONT_PX,
    **where: Any,
) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=fontsize, **where)
