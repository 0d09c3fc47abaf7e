"""`fedcell release`: the default bundle, the conformance kit, wheels, beside the server's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from server.commands.release import release as group


def register(app: typer.Typer) -> None:
    """Add the group `release` with its commands."""
    group.command("default-bundle")(default_bundle_command)
    group.command("conformance-vectors")(conformance_vectors_command)
    group.command("wheels")(wheels_command)
    app.add_typer(group)


def default_bundle_command(
    cells: Annotated[
        list[Path] | None, typer.Argument(help="Parquet files of public cells.", metavar="FILE...")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the bundle; without it the package's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bundle.", min=0)] = 0,
    judge: Annotated[
        bool,
        typer.Option(help="Retrain without each set of cells, for the card (some minutes)."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train the default model on simulated fleets and public cells, and write its bundle.

    Without cells the bundle is simulation-only, and its card says so.
    """
    from models.bundle import DEFAULT_FOLDER, write_default_bundle

    from ..default_model import build_default_bundle

    if not cells:
        typer.echo("no cells given: building a simulation-only bundle", err=True)
    bundle = build_default_bundle(
        sorted(cells or []),
        seed=seed,
        judge_folds=judge,
        say=lambda line: typer.echo(line, err=True),
    )
    folder = out or DEFAULT_FOLDER
    write_default_bundle(bundle, folder)
    if as_json:
        summary = {"version": bundle.version, "digest": bundle.digest, "out": str(folder)}
        typer.echo(json.dumps(summary))
        return
    typer.echo(f"{bundle.version} ({bundle.digest[:12]}): {folder}")


def conformance_vectors_command(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the kit; without it the package's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute what firmware must compute, and write it for `fedcell-device selftest`.

    Run it after a change of features, default bundle, messages or signatures.
    """
    from edge_client.conformance import FOLDER

    from ..conformance_vectors import write_conformance_vectors

    folder = out or FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = write_conformance_vectors(folder)
    if as_json:
        typer.echo(json.dumps({"out": str(folder), "files": dict(written.files)}))
        return
    size = sum(written.files.values())
    typer.echo(f"{len(written.files)} files, {size} bytes: {folder}")


def wheels_command(
    out: Annotated[Path, typer.Option(help="Folder for the wheels, without any yet.")],
    platform: Annotated[
        str,
        typer.Option(
            help="linux-x86_64, linux-aarch64, linux-armv7l, musl-x86_64, musl-aarch64, a tag of"
            " wheels, or local."
        ),
    ] = "local",
    python: Annotated[str, typer.Option(help="Python of the device.")] = "",
    constraints: Annotated[Path, typer.Option(help="File that pins versions.")] = Path(
        "constraints.txt"
    ),
    fedcell: Annotated[
        Path | None, typer.Option(help="Wheel of fedcell; without it one of this checkout.")
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(help="A further package index, such as piwheels.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A library that the device's system brings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Collect the wheels of an inference install, with hashes, for devices without an index."""
    import platform as machine

    from ..offline_wheels import REQUIREMENTS, WheelRequest, collect_wheels

    wheels = collect_wheels(
        WheelRequest(
            platform=platform,
            python=python or ".".join(machine.python_version_tuple()[:2]),
            constraints=constraints,
            fedcell=fedcell,
            indexes=tuple(index or ()),
            without=tuple(without or ()),
        ),
        out,
    )
    size = sum(wheel.size for wheel in wheels)
    if as_json:
        files = {wheel.file: {"sha256": wheel.sha256, "bytes": wheel.size} for wheel in wheels}
        typer.echo(json.dumps({"out": str(out), "bytes": size, "files": files}))
        return
    for wheel in wheels:
        typer.echo(f"{wheel.name:<20}{wheel.version:<12}{wheel.size / 1e6:8.2f} MB")
    typer.echo(f"{len(wheels)} wheels, {size / 1e6:.1f} MB, and {REQUIREMENTS}: {out}")
