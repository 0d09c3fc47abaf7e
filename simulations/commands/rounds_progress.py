"""Round, quality, ε spent and time left, while rounds go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from server.engine.early_stop import REFERENCE_QUALITY

if TYPE_CHECKING:
    from server.engine.optimizer_gain import OptimizerGain
    from server.engine.round_keeper import Metrics
    from server.engine.rounds import RoundRecord

    from ..rounds import RoundsPlan


class RoundsProgress:
    """Round, quality, ε and time left on standard error: a bar, or lines without a terminal."""

    def __init__(self, plan: RoundsPlan, *, shown: bool) -> None:
        self._plan, self._shown = plan, shown
        self._console = Console(stderr=True)
        self._has_bar = shown and self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._has_bar,
            transient=True,
        )
        self._task = self._bar.add_task(
            "reading the fleet, starting Flower", total=plan.num_rounds, figures=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, metrics: Metrics | None, sigma: float) -> None:
        """Show the figures before the first round, and the noise."""
        self._bar.reset(
            self._task,
            total=self._plan.num_rounds,
            description="rounds",
            figures=_figures(metrics, None, self._plan),
        )
        if self._shown and not self._has_bar:
            said = f"σ = {sigma:.3f}" if sigma > 0 else "without noise"
            _say(f"rounds start, {said}, {_figures(metrics, None, self._plan)}")

    def gain(self, gain: OptimizerGain) -> None:
        """Say what correlated noise gains under the run's optimiser."""
        if self._shown:
            self._console.print(
                f"correlated noise gains: {gain.to_line()}", highlight=False, soft_wrap=True
            )

    def advance(self, record: RoundRecord) -> None:
        """Show one more round."""
        figures = _figures(record.metrics, record.epsilon_release, self._plan)
        self._bar.update(self._task, advance=1, figures=figures)
        if self._shown and not self._has_bar:
            total = self._plan.num_rounds
            _say(f"round {record.index + 1}/{total}, {figures}, {record.seconds:.1f} s")


def _figures(metrics: Metrics | None, epsilon: float | None, plan: RoundsPlan) -> str:
    """Say the figure that decides, the loss and ε; a figure that nobody could measure is left out.

    With patience a look at the reference fleet decides, else precision on the held-out part.
    """
    found = {} if metrics is None else metrics
    known = [
        f"{words} {value:.4f}"
        for name, words in ((REFERENCE_QUALITY, "reference AP"), ("average_precision", "AP"))
        if (value := found.get(name)) is not None
    ][:1]
    loss = found.get("loss")
    seen = ", ".join([*known, f"loss {'–' if loss is None else f'{loss:.4f}'}"])
    if plan.epsilon is None:
        return f"{seen}, ε unbounded"
    return f"{seen}, ε {epsilon or 0.0:.3f} of {plan.epsilon:g} (δ {plan.delta:g})"


def _say(line: str) -> None:
    typer.echo(line, err=True)
