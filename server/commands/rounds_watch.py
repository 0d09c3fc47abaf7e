"""`fedcell rounds watch`: a run as it goes on, live or in lines; looking changes nothing."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from ..runs.reading import Look

EVERY_S = 0.5
STYLES = {
    "paused": "yellow",
    "process_gone": "red",
    "failed": "red",
    "cancelled": "red",
    "interrupted": "yellow",
    "finished": "green",
}

Run = Annotated[Path, typer.Argument(help="Folder of the run, as --out named it.")]
Once = Annotated[bool, typer.Option("--once", help="Look once and leave.")]
Patience = Annotated[
    float,
    typer.Option(
        help="Seconds to wait for a run that is not there, or whose process is gone.", min=0.0
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a change.")]


def watch(run: Run, once: Once = False, patience: Patience = 60.0, as_json: AsJson = False) -> None:
    """Watch a run: round, replies, ε, quality and time left; Ctrl-C leaves the run alone.

    Live in a terminal, also over SSH; a line a change elsewhere. Ends with 0 where the run finished
    or goes on (--once), 1 where it was cancelled, interrupted or failed, 4 where there is none, 6
    where its process is gone.
    """
    from rich.console import Console

    looks = _looks(run, once=once, patience=patience)
    console = Console(highlight=False, markup=False)
    if as_json:
        last = _print_changes(looks, as_json=True)
    elif console.is_terminal and not once:
        last = _show_live(looks, console)
    elif once:
        last = next(looks)
        console.print(view_of(last))
    else:
        last = _print_changes(looks, as_json=False)
    code = _code_of(last, once=once)
    if code:
        raise typer.Exit(code)


def view_of(look: Look) -> RenderableType:
    """Draw one look at a run."""
    from rich.box import SIMPLE
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from ..runs.watch_words import rows_of

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for what, value in rows_of(look).items():
        table.add_row(what, value, style=STYLES.get(look.word) if what == "state" else None)
    if look.status is None:
        return table
    bar = ProgressBar(
        total=max(look.status.num_rounds, 1), completed=look.status.rounds_done, width=60
    )
    return Group(bar, table)


def _looks(run: Path, *, once: bool, patience: float) -> Iterator[Look]:
    """Yield looks at a run until nothing more is to be seen."""
    from ..runs.reading import look_at

    lost_since: float | None = None
    while True:
        look = look_at(run, now=datetime.now(UTC))
        yield look
        if once or look.is_over:
            return
        is_lost = look.status is None or look.is_gone
        lost_since = (lost_since or time.monotonic()) if is_lost else None
        if lost_since is not None and time.monotonic() - lost_since >= patience:
            return
        time.sleep(EVERY_S)


def _show_live(looks: Iterator[Look], console: Console) -> Look:
    from rich.live import Live

    last = next(looks)
    with Live(view_of(last), console=console, auto_refresh=False) as live:
        for last in looks:
            live.update(view_of(last), refresh=True)
    return last


def _print_changes(looks: Iterator[Look], *, as_json: bool) -> Look:
    """Print a line a change: for machines of anything but a sign of life, for people a round's."""
    from ..runs.reading import status_row
    from ..runs.watch_words import line_of

    said: object = object()
    last = None
    for last in looks:
        status = last.status
        if status is None:
            news: object = last.word
        elif as_json:
            news = (last.word, status_row(status))
        else:
            is_asking = status.deadline_at is not None
            news = (last.word, status.index, status.rounds_done, status.held_by, is_asking)
        if news != said:
            print(json.dumps(last.to_json()) if as_json else line_of(last))
            sys.stdout.flush()
            said = news
    if last is None:
        raise RuntimeError("a run is looked at once at least")
    return last


def _code_of(look: Look, *, once: bool) -> int:
    """Return the exit code for how the run stood at the last look."""
    from ..runs.status import RunState

    if look.status is None:
        return 4
    if look.is_gone:
        return 6
    if look.status.state.is_over:
        return 0 if look.status.state is RunState.FINISHED else 1
    return 0 if once else 6
