"""`fedcell release`: the group of commands over releases, and those of the server.

`release` is the group; `simulations.commands.release` adds what is built from simulations.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from ..clock import machine_clock
from .hub import AsJson, Config, Db, say, settings_from
from .release_desk import Folder, Key, Number, named, opened_desk
from .release_offline import key, root, sign
from .release_rings import ring

release = typer.Typer(
    name="release",
    help="Models for devices: propose, sign, offer ring by ring, halt, withdraw.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
release.command("key")(key)
release.command("root")(root)
release.command("sign")(sign)
release.add_typer(ring)

Reason = Annotated[str, typer.Option(help="Why; stands in the release's history.")]


@release.command("propose")
def propose(
    *,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A run's folder, or a bundle.")],
    home: Annotated[
        Path | None, typer.Option(help="Privacy home with its ledger entry; else the run's own.")
    ] = None,
    soak_h: Annotated[float, typer.Option(help="Least hours in a ring.", min=0.0)] = 24.0,
    least_acknowledged: Annotated[
        float, typer.Option(help="Share of a ring's active devices that must run it.", min=0, max=1)
    ] = 0.8,
    least_summaries: Annotated[
        int, typer.Option(help="Devices that must have told bands before and after.", min=0)
    ] = 8,
    tolerated_failures: Annotated[
        float, typer.Option(help="Share of devices on which it may fail.", min=0, max=1)
    ] = 0.01,
    tolerated_shift: Annotated[
        float, typer.Option(help="Net share that may be told something else.", min=0, max=1)
    ] = 0.01,
    least_number: Annotated[
        int, typer.Option(help="Release number: above what devices have.", min=1)
    ] = 1,
    db: Db = None,
    folder: Folder = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Propose a run's candidate that the gate passed, or a bundle of public data.

    It is audited, entered in the registry, and a request for the offline key is written.
    """
    from ..releases.admission import Payment
    from ..releases.rings import RingPolicy

    policy = RingPolicy(
        soak=timedelta(hours=soak_h),
        least_acknowledged=least_acknowledged,
        least_summaries=least_summaries,
        tolerated_failures=tolerated_failures,
        tolerated_shift=tolerated_shift,
    )
    with opened_desk(db=db, folder=folder, key_file=None, config=config) as desk:
        kept, request = desk.propose(
            source,
            Payment(home=home),
            policy=policy,
            now=machine_clock(),
            least_number=least_number,
        )
    number, version = kept.rollout.number, kept.offer.version
    told = {
        "release": number,
        "version": version,
        "back": kept.offer.back_version,
        "request": str(request),
    }
    line = f"release {number}: {version}; carry {request} to the offline key: fedcell release sign"
    say(told, line, as_json=as_json)


@release.command("accept")
def accept(
    *,
    answer: Annotated[
        Path, typer.Argument(metavar="ANSWER", help="answer.json, or a folder of root and targets.")
    ],
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take in what came back from the offline key: a signed release, or a root."""
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        if (answer / "root.json").exists():
            version = desk.accept_root(answer, now=machine_clock())
            say({"root": version}, f"root {version} is in force", as_json=as_json)
            return
        kept = desk.accept(answer, now=machine_clock())
    told = {"release": kept.rollout.number, "state": kept.rollout.state.value}
    line = f"release {kept.rollout.number} is signed: fedcell release ring start"
    say(told, line, as_json=as_json)


@release.command("halt")
def halt(
    *,
    number: Number = None,
    reason: Reason = "an operator halted it",
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Offer a release to nobody more; devices that have it keep it."""
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        kept = desk.halt(named(desk, number), reason=reason, now=machine_clock())
    told = {"release": kept.rollout.number, "state": kept.rollout.state.value}
    line = f"release {kept.rollout.number} is halted: go on with ring resume, or withdraw it"
    say(told, line, as_json=as_json)


@release.command("withdraw")
def withdraw(
    *,
    number: Number = None,
    reason: Reason = "an operator withdrew it",
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Offer every device the model before it: each goes back at its next look."""
    with opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk:
        kept = desk.withdraw(named(desk, number), reason=reason, now=machine_clock())
    told = {
        "release": kept.rollout.number,
        "state": kept.rollout.state.value,
        "back": kept.offer.back_version,
    }
    line = f"release {kept.rollout.number} is withdrawn: devices go back to {told['back']}"
    say(told, line, as_json=as_json)


@release.command("status")
def status(
    *,
    number: Number = None,
    db: Db = None,
    folder: Folder = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show every release, or how one went and what devices report of it."""
    from ..storage.releases import Releases
    from .release_words import progress_json, progress_lines

    with opened_desk(db=db, folder=folder, key_file=None, config=config, must_exist=True) as desk:
        with desk.database.transaction() as connection:
            releases = Releases(connection)
            kept, rings = releases.all(), releases.rings()
            trails = {one.rollout.number: releases.trail(one.rollout.number) for one in kept}
        shown = [one for one in kept if number in {None, one.rollout.number}]
        evidence = {
            one.rollout.number: desk.evidence(one.rollout.number)
            for one in shown
            if one.rollout.ring is not None
        }
    told = []
    lines: list[str] = []
    for one in shown:
        found = evidence.get(one.rollout.number)
        told.append(progress_json(one, found, rings) | {"trail": trails[one.rollout.number]})
        lines += progress_lines(one, found, rings, now=machine_clock())
        if number is not None:
            lines += [
                f"  {step['at']}  {step['state']}  {step['ring'] or ''}  {step['reason']}".rstrip()
                for step in trails[one.rollout.number]
            ]
    say({"releases": told}, "\n".join(lines) or "nothing was proposed yet", as_json=as_json)


@release.command("serve")
def serve(
    *,
    db: Db = None,
    folder: Folder = None,
    key_file: Key = None,
    config: Config = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, and end.")] = False,
    every_s: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Carry releases: look at what devices report, keep metadata fresh, announce over MQTT.

    Runs beside `fedcell server run`, on the same database and with the same key.
    """
    import signal
    import threading
    from random import SystemRandom

    from ..releases.announcing import Announcer
    from ..releases.announcing_link import announcing_link
    from ..releases.service import carry, turn
    from ..signer import load_signer

    settings = settings_from(
        {"db": db, "releases": folder, "release_key": key_file, "config": config}
    )
    link = announcing_link(settings, jitter=SystemRandom())
    stop = threading.Event()
    with (
        opened_desk(db=db, folder=folder, key_file=key_file, config=config) as desk,
        link,
    ):
        announcer = Announcer(desk, link, load_signer(settings.key))
        if once:
            turn(desk, announcer, clock=machine_clock)
            say({"event": "done"}, "what was due is done", as_json=as_json)
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        where = f"{link.settings.host}:{link.settings.port}"
        say({"event": "ready"}, f"releases are carried through {where}", as_json=as_json)
        carry(desk, announcer, clock=machine_clock, stop=stop, every_s=every_s)
    say({"event": "stopped"}, "releases are not carried any more", as_json=as_json)


@release.command("files")
def files(
    *,
    folder: Folder = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 for any free one.", min=0)] = 8080,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate: serve by TLS.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="PEM file of its key, where it is not in the same file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the repository's files over HTTP(S), for a laboratory, until SIGTERM or Ctrl-C."""
    import signal
    import threading

    from ..releases.desk import REPOSITORY
    from ..releases.file_server import FileServer

    settings = settings_from({"releases": folder, "config": config})
    where = settings.releases / REPOSITORY
    server = FileServer(where, host=host, port=port, certificate=certificate, key=key)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start()
        )
    told = {"event": "ready", "address": server.address, "folder": str(where)}
    say(told, f"{where} is served at {server.address}", as_json=as_json)
    with server:
        server.serve_forever(poll_interval=0.2)
