"""`fedcell release ring`: which rings there are, and how a release goes through them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..clock import machine_clock
from .hub import AsJson, Config, Db, say
from .release_desk import Folder, Key, Number, named, opened_desk

if TYPE_CHECKING:
    from ..releases.rings import Ring

ring = typer.Typer(
    name="ring",
    help="Rings: canary, groups, fleet; a release goes through them in order.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@ring.command("set")
def set_rings(
    *,
    rings: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SHARE|FILE...", help="In order; a file names a device a line."
        ),
    ],
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say which rings come before the fleet: a share of all devices, or a list of them."""
    from models.wire.announcements import FLEET_RING

    found = [_ring_of(text) for text in rings]
    names = [one.name for one in found]
    if len({*names, FLEET_RING}) != len(names) + 1 or sum(one.share for one in found) > 1:
        raise typer.BadParameter("names must differ and not be fleet, shares add up to 1 at most")
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        desk.keep_rings(found)
    told = [{"name": r.name, "share": r.share, "devices": sorted(r.devices)} for r in found]
    line = "; ".join(f"{r.name}: {f'{r.share:.2%}' if r.share else len(r.devices)}" for r in found)
    say({"rings": told}, f"rings: {line}; then the fleet", as_json=as_json)


@ring.command("show")
def show(
    *,
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="DEVICE...", help="Say whose ring is which.")
    ] = None,
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show the rings, or the ring of each device; anybody can compute it."""
    from ..releases.rings import ring_of
    from ..storage.releases import Releases

    with (
        opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk,
        desk.database.transaction() as connection,
    ):
        rings = Releases(connection).rings()
    if devices:
        found = {device: ring_of(device, rings) for device in devices}
        say(found, "\n".join(f"{name}  {where}" for name, where in found.items()), as_json=as_json)
        return
    told = [{"name": r.name, "share": r.share, "devices": len(r.devices)} for r in rings]
    lines = [f"{r.name:<12} {r.share:7.2%}  {len(r.devices)} by name" for r in rings[:-1]]
    say({"rings": told}, "\n".join([*lines, "fleet        the rest"]), as_json=as_json)


@ring.command("start")
def start(
    *,
    number: Number = None,
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Offer a signed release to the first ring."""
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        kept = desk.start(named(desk, number), now=machine_clock())
        told = {"release": kept.rollout.number, "version": kept.offer.version, "ring": 0}
    line = f"release {kept.rollout.number} ({kept.offer.version}) is offered to its first ring"
    say(told, line, as_json=as_json)


@ring.command("advance")
def advance(
    *,
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look at what devices report once, as `serve` does, and do what follows from it."""
    from .release_words import progress_json, progress_lines

    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        found = desk.advance(now=machine_clock())
        if found is None:
            say({"release": None}, "no release is on its way", as_json=as_json)
            return
        kept, evidence = found
        with desk.database.transaction() as connection:
            from ..storage.releases import Releases

            rings = Releases(connection).rings()
    lines = progress_lines(kept, evidence, rings, now=machine_clock())
    say(progress_json(kept, evidence, rings), "\n".join(lines), as_json=as_json)


@ring.command("resume")
def resume(
    *,
    number: Number = None,
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Offer a halted release to its ring again; devices on which it failed are set aside."""
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        kept = desk.resume(named(desk, number), now=machine_clock())
    told = {"release": kept.rollout.number, "state": kept.rollout.state.value}
    say(told, f"release {kept.rollout.number} goes on", as_json=as_json)


def _ring_of(text: str) -> Ring:
    from models.wire.announcements import release_topic

    from ..releases.rings import Ring

    name, _, what = text.partition("=")
    try:
        release_topic(name)
        share = float(what)
    except ValueError:
        share = -1.0
    if share < 0:
        try:
            release_topic(name)
            lines = Path(what).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{text}: neither a share nor a file ({error})") from None
        return Ring(name, devices=frozenset(filter(None, map(str.strip, lines))))
    if not 0 < share <= 1:
        raise typer.BadParameter(f"{text}: a share lies above 0, at most 1")
    return Ring(name, share)
