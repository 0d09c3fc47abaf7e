"""`fedcell rounds export`: the unsigned bundle of a deployed run, for the quality gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .prediction import bundle_of


def export_command(
    run: Annotated[Path, typer.Argument(help="Folder of a deployed run that is over.")],
    start: Annotated[
        str, typer.Option(help="Bundle whose weights the run started from, or 'default'.")
    ],
    reference: Annotated[
        Path, typer.Option(help="Fleet dataset with outcomes that is nobody's; half is fitted on.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File of the bundle; bundle.zip of the run unless given."),
    ] = None,
    trusted_key: Annotated[
        Path | None, typer.Option(help="Public key file that the starting bundle is signed with.")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take an unsigned starting bundle of your own.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the unsigned bundle of a deployed run, so that rounds judge can judge it.

    Calibration, threshold and surrogate tree come from every other device of the reference fleet,
    never from data of the run's devices; rounds judge takes the others.
    """
    from ..runs.export import export
    from ..runs.run_files import BUNDLE_FILE

    begun = bundle_of(start, trusted_key, allow_unsigned=allow_unsigned)
    bundle = export(run, start=begun, reference=reference, out=out)
    path = run / BUNDLE_FILE if out is None else out
    if as_json:
        facts = {"out": str(path), "version": bundle.version, "digest": bundle.digest}
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{bundle.version} ({bundle.digest[:12]}), unsigned: {path}")
    typer.echo(f"judge it: fedcell rounds judge {run} --reference {reference}")
