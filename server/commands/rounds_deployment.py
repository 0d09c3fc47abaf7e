"""`fedcell rounds deployment`, `serve` and `unit`: the server side of rounds over real machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fleet import Authority, say, settings_of
from .hub import AsJson, Config, Db

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..authority.home import Fleet
    from ..config import ServerConfig
    from ..deployment.folder import Written
    from ..deployment.place import Deployment

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the deployment.")]


def deployment_command(
    folder: Folder,
    *,
    policy_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key that devices trust; the setting 'key'."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="TCP port to listen at; the fleet's.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen at; all of them.")
    ] = None,
    inner_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="TCP port on loopback; 9093.")
    ] = None,
    requests_per_s: Annotated[
        int | None, typer.Option(min=1, help="Requests a second of one address; 50.")
    ] = None,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write all that a deployment needs: certificate, secrets, proxy, app bundle and its pin.

    Again it renews what is near its end or of older code, and never writes over a secret. What is
    not said stays as it was told before.
    """
    from ..authority.home import locked_home
    from ..clock import machine_clock
    from ..deployment.folder import told_before, write_deployment
    from ..storage.database import open_database

    settings, now = settings_of(authority, db, config), machine_clock()
    told = {
        "policy_key": None if policy_key is None else str(policy_key.resolve()),
        "port": port,
        "listen": listen,
        "inner_port": inner_port,
        "requests_per_s": requests_per_s,
        "database": _absolute_url(settings.db),
    }
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as home,
        database.transaction() as connection,
    ):
        place = _place(folder, settings, home.fleet, told_before(folder), told)
        written = write_deployment(connection, home, place, now=now)
    _say_written(written, superlink=home.fleet.superlink, as_json=as_json)


def serve(
    folder: Folder,
    *,
    leave_runs: Annotated[
        bool, typer.Option("--leave-runs", help="Take up no run whose process has gone.")
    ] = False,
    without_proxy: Annotated[
        bool, typer.Option("--without-proxy", help="Run no nginx; another proxy keeps nodes out.")
    ] = False,
    nodes_every: Annotated[
        float,
        typer.Option(min=1.0, metavar="S", help="Seconds between two looks at who is let in."),
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Run SuperLink, SuperExec and nginx, start anew what dies, until SIGTERM or Ctrl-C.

    A run whose process has gone, with this one or by itself, is taken up again where it was.
    Ends with 0 where it was asked to end, 4 where a program is missing, 5 where the certificate is
    over, 6 where a port is in use, another process serves the folder, or a part does not start.
    """
    import os
    import signal
    import threading

    from ..clock import machine_clock
    from ..deployment.folder import open_deployment
    from ..deployment.whole import serve_deployment

    place = open_deployment(folder)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(event: Mapping[str, Any]) -> None:
        print(json.dumps(event) if as_json else _line_of(event), flush=True)

    serve_deployment(
        place,
        with_proxy=not without_proxy,
        takes_up_runs=not leave_runs,
        nodes_every_s=nodes_every,
        inherited=os.environ,
        clock=machine_clock,
        is_stopped=stop.is_set,
        tell=tell,
    )


def unit(
    folder: Folder,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the unit file.")],
    user: Annotated[str, typer.Option(help="Account that owns the deployment.")] = "fedcell",
    as_json: AsJson = False,
) -> None:
    """Write the unit file by which systemd runs 'rounds serve' of a deployment."""
    from ..deployment.folder import open_deployment
    from ..deployment.systemd import UNIT
    from ..deployment.systemd import unit as unit_text

    place = open_deployment(folder)
    program = Path(sys.executable).with_name("fedcell")
    out.mkdir(parents=True, exist_ok=True)
    path = out / UNIT
    path.write_text(unit_text(place, program=program, user=user), encoding="utf-8")
    say({"file": str(path)}, [f"wrote {path}"], as_json=as_json)


def _say_written(written: Written, *, superlink: str, as_json: bool) -> None:
    place, pin = written.deployment, written.pin
    made = ", ".join(written.made) or "nothing: all of it was there"
    data = {
        "folder": str(place.folder),
        "port": place.port,
        "hosts": list(place.hosts),
        "made": list(written.made),
        "fab_sha256": pin.fab_sha256,
        "pin": str(place.pin),
    }
    lines = [
        f"wrote {place.folder}; made {made}",
        f"app          {pin.app} {pin.version}, {pin.fab_sha256}",
        f"nodes meet   {superlink}",
        f"start it     fedcell rounds serve {place.folder}",
    ]
    say(data, lines, as_json=as_json)


def _place(
    folder: Path,
    settings: ServerConfig,
    fleet: Fleet,
    before: Mapping[str, Any],
    told: Mapping[str, Any],
) -> Deployment:
    """Return the deployment as it is told now, else as it was told before, else as usual.

    Raises:
        SettingError: the fleet names no SuperLink, or a value cannot be used.
    """
    from ..config import parse_address
    from ..deployment.folder import deployment_of
    from ..errors import SettingError

    if not fleet.superlink:
        remedy = "name it: fedcell fleet certify superlink --superlink HOST:PORT"
        raise SettingError("superlink", "the fleet does not say where it is", remedy)
    port = parse_address("superlink", fleet.superlink)[1]
    usual = {"port": port, "policy_key": str(settings.key.resolve())}
    said = {name: value for name, value in told.items() if value is not None}
    values = {**usual, **before, **said, "hosts": fleet.superlink_hosts}
    try:
        return deployment_of(folder, values)
    except ValueError as error:
        name, _, what = str(error).partition(" ")
        raise SettingError(name, what, "give another one") from None


def _absolute_url(url: str) -> str:
    """Return a database URL that means the same from every working directory."""
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url.startswith((f"{prefix}/", f"{prefix}:")):
        return url
    return prefix + str(Path(url.removeprefix(prefix)).resolve())


def _line_of(event: Mapping[str, Any]) -> str:
    """Return an event as a line for people."""
    name = event["event"]
    facts = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    return f"{name:<16} {facts}".rstrip()
