"""How far a study of several arms is."""

from __future__ import annotations

from typing import Self

import typer


class StudyProgress:
    """Which arm runs and how far it is, on standard error: a bar, or a line an arm.

    Args:
        rounds: of each arm.
        arms: of all seeds.
        shown: whether anything is said.
    """

    def __init__(self, *, rounds: int, arms: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._rounds, self._arms, self._shown = rounds, arms, shown
        self._has_bar = shown and self._console.is_terminal
        self._bar = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._has_bar,
            transient=True,
        )
        self._task = self._bar.add_task("reading the fleet", total=rounds * arms)
        self._begun = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def simulated(self, devices: int) -> None:
        """Say how many devices were simulated."""
        self._bar.update(self._task, description=f"simulating the fleet, {devices} devices more")

    def arm(self, seed: int, arm: str) -> None:
        """Say which arm runs, or is read."""
        done = self._begun * self._rounds
        self._begun += 1
        self._bar.update(self._task, description=f"seed {seed}, {arm}", completed=done)
        if self._shown and not self._has_bar:
            typer.echo(f"seed {seed}, {arm} ({self._begun} of {self._arms})", err=True)

    def round_done(self) -> None:
        """Go on by a round."""
        self._bar.advance(self._task)
