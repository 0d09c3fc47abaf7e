"""`fedcell rounds history` and `explain`: what runs came to, and what happened in one round."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..runs.round_explanation import Evidence

LAST = "last"
WIDTH_OF_FILES = 120
"""Columns of a table that no terminal bounds."""

Folder = Annotated[Path, typer.Argument(help="Folder of a run, or of several runs.")]
Number = Annotated[str, typer.Argument(help="Number of the round, from 1, or 'last'.")]
Run = Annotated[Path, typer.Argument(help="Folder of the run, as --out named it.")]
Plot = Annotated[
    Path | None, typer.Option(help="Draw ε, replies and quality into this file, .svg or .png.")
]
Home = Annotated[
    Path | None,
    typer.Option(help="Privacy home that the run charges; the one it noted unless given."),
]
Nodes = Annotated[
    list[int] | None,
    typer.Option(
        "--node",
        help="Number of a node, as Flower lists it: tells its name in the trail; may be repeated.",
    ),
]
StreamKeyFile = Annotated[
    Path | None, typer.Option(help="Key that seals the stream's; --node needs it where one does.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def history(folder: Folder = Path(), plot: Plot = None, as_json: AsJson = False) -> None:
    """Show the rounds of a run, or the runs of a folder: replies, ε, quality, how it ended."""
    from ..runs.reading import read_report, run_row, run_rows, runs_in

    runs = runs_in(folder)
    now = datetime.now(UTC)
    is_one = runs == [folder]
    if plot is not None:
        if not is_one:
            raise typer.BadParameter("names several runs; name one", param_hint="--plot")
        from ..runs.history_plot import draw_history

        draw_history(read_report(folder), plot)
    rows = [run_row(folder, now=now)] if is_one else run_rows(runs, now=now)
    if as_json:
        rounds = {"rounds": read_report(folder)["rounds"]} if is_one else {}
        print(json.dumps({"schema_version": 1, "runs": rows, **rounds}))
        return
    if is_one:
        _print_rounds(read_report(folder), rows[0])
    else:
        _print_runs(rows)
    if plot is not None:
        print(f"plot: {plot}")


def explain(
    number: Number,
    run: Run = Path(),
    privacy_home: Home = None,
    node: Nodes = None,
    stream_key_file: StreamKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain one round in plain words: who was invited and why, replies, noise, cost, ledger.

    Verifies the ledger's chain. Ends with 5 where the chain does not verify, or where ledger or
    checkpoint are not what the run noted. With --node it tells under which name a node stands in
    the trail of refused replies.
    """
    from ..runs.reading import read_report
    from ..runs.round_explanation import explain_round
    from ..runs.round_words import explanation_rows

    report = read_report(run)
    which = _number(number, report)
    evidence = _evidence(run, privacy_home, report, number=which)
    found = explain_round(report, which, evidence=evidence)
    if node:
        found["nodes"] = _names(run, report, node, stream_key_file)
    if as_json:
        print(json.dumps(found))
    else:
        _print_table(explanation_rows(found))
    is_refuted = (
        found["ledger"]["agrees"] is False
        or found["checkpoint"]["agrees"] is False
        or evidence.ledger_note.startswith("BROKEN")
    )
    if is_refuted:
        raise typer.Exit(5)


def _names(
    run: Path, report: Mapping[str, Any], nodes: Sequence[int], key_file: Path | None
) -> dict[str, str]:
    """Return the name of each node in the run's stream.

    Raises:
        StreamKeyError: the stream's key is gone, or does not open.
    """
    from ..runs.refusal_trail import names_in
    from ..streams.stream_key import read_operator_key

    names = names_in(
        run,
        stream=report["config"]["stream"],
        has_key=report["privacy"]["policy_digest"] is not None,
        operator=None if key_file is None else read_operator_key(key_file),
    )
    return {str(node): names.name(node) for node in nodes}


def _number(said: str, report: Mapping[str, Any]) -> int:
    if said == LAST:
        return len(report["rounds"])
    try:
        return int(said)
    except ValueError:
        raise typer.BadParameter(f"{said!r} is no number, nor {LAST!r}") from None


def _evidence(run: Path, home: Path | None, report: Mapping[str, Any], *, number: int) -> Evidence:
    """Read ledger, checkpoint and the trail of a round's refusals, as far as they are here."""
    from ..privacy_home.privacy_errors import HomeBrokenError, HomeMissingError, StreamRefusedError
    from ..privacy_home.privacy_ledger import read_home
    from ..runs.reading import look_at
    from ..runs.refusal_trail import read_trail
    from ..runs.round_explanation import Evidence
    from ..streams.release_witness import weights_digest
    from ..streams.stream_files import read_checkpoint

    look = look_at(run, now=datetime.now(UTC))
    noted = "" if look.status is None else look.status.home
    where = home or (Path(noted) if noted else run)
    try:
        entries, note = read_home(where), "verified"
    except HomeMissingError:
        entries, note = (), f"not verified: {where} holds no ledger; name it by --privacy-home"
    except HomeBrokenError as error:
        entries, note = (), f"BROKEN: {error}"
    try:
        checkpoint = read_checkpoint(run)
        index: int | None = checkpoint.index
        digest = weights_digest(checkpoint.state.weights)
    except StreamRefusedError:
        index, digest = None, ""
    state = report["status"] if look.status is None else look.word
    return Evidence(
        trail=tuple(line for line in read_trail(run) if line.get("round") == number - 1),
        entries=entries,
        ledger_note=note,
        checkpoint_index=index,
        checkpoint_sha256=digest,
        state=str(state).replace("_", " "),
    )


def _print_runs(rows: Sequence[Mapping[str, Any]]) -> None:
    from ..runs.reading import UNREADABLE

    damaged = [row for row in rows if row["state"] == UNREADABLE]
    whole = [row for row in rows if row["state"] != UNREADABLE]
    _print_columns(
        ("run", "state", "rounds", "noise", "replied", "refused", "ε at δ", "quality"),
        [(Path(row["folder"]).name, "cannot be read", *["–"] * 6) for row in damaged]
        + [
            (
                Path(row["folder"]).name,
                f"{row['state']}{_early(row)}",
                f"{row['rounds_done']}/{row['num_rounds']}",
                str(row["noise_only"]),
                _share(row),
                str(row["refused"]),
                _epsilon(row),
                _quality(row["quality"]).split(",")[0] + (", worse" if row["worse"] else ""),
            )
            for row in whole
        ],
    )
    for row in damaged:
        print(row["message"])
    for unit in dict.fromkeys(row["unit_of_privacy"] for row in whole):
        print(f"unit of ε: {unit}")


def _print_rounds(report: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    from ..runs.outcome import ending_words, warnings_of
    from ..runs.watch_words import cause_words

    said = f"{row['rounds_done']} of {row['num_rounds']} rounds"
    said = ending_words(report) or f"{said}{cause_words(row['ended_because'])}"
    print(f"{row['run']}: {row['state']}, {said}")
    for warning in warnings_of(report):
        print(warning)
    delta = report["privacy"]["delta"]
    _print_columns(
        ("round", "invited", "replied", "refused", "released", "ε", "quality", "s"),
        [
            (
                str(record["index"] + 1),
                str(record["invited"]),
                str(record["replied"]),
                ", ".join(f"{count} {why}" for why, count in record["refused"].items()) or "0",
                "noise" if record.get("noise_only") else "mean",
                "unbounded"
                if record["epsilon_release"] is None
                else f"{record['epsilon_release']:.3f}",
                _quality(record["metrics"]),
                f"{record['seconds']:.1f}",
            )
            for record in report["rounds"]
        ],
    )
    print(f"ε at δ = {delta:g}; its unit: {report['privacy']['unit_of_privacy']}")


def _early(row: Mapping[str, Any]) -> str:
    return " early" if row["ended_because"] == "early_stop" else ""


def _share(row: Mapping[str, Any]) -> str:
    if not row["invited"]:
        return "–"
    return f"{row['replied'] / row['invited']:.0%}"


def _epsilon(row: Mapping[str, Any]) -> str:
    if row["epsilon_release_unbounded"] or row["epsilon_release"] is None:
        return "unbounded"
    return f"{row['epsilon_release']:.3f} at {row['delta']:g}"


def _quality(look: Mapping[str, float | None] | None) -> str:
    from ..runs.watch_words import quality

    return "–" if look is None else quality(look)


def _print_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else WIDTH_OF_FILES
    table = Table(box=SIMPLE, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name in {"run", "state", "rounds"})
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, width=width).print(table)


def _print_table(rows: Sequence[tuple[str, str]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for what, said in rows:
        table.add_row(what, said)
    Console(highlight=False, markup=False).print(table)
