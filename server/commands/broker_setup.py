"""`fedcell server broker-config` and `check-broker`: a fleet's broker, and what it lets happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .fleet import Authority, say, settings_of
from .hub import AsJson, Config, Db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..broker_setup.checks import Finding

UNSAFE = 1


def broker_config(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder; what is there is renewed.")],
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; none: every one of this machine.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="TCP port for TLS.")] = None,
    user: Annotated[
        str | None, typer.Option(help="As whom Mosquitto runs; none: you. Debian's is mosquitto.")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Have the broker that runs there read it.")
    ] = False,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write Mosquitto's configuration, access list, certificates and revocation lists."""
    from ..authority.home import locked_home
    from ..broker_setup.broker_folder import chosen_place, have_it_read, write_broker_folder
    from ..broker_setup.configuration import CONFIGURATION_FILE
    from ..clock import machine_clock
    from ..storage.database import open_database

    settings = settings_of(authority, db, config)
    place = chosen_place(out, host=host, port=port, user=user)
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as home,
        database.transaction() as connection,
    ):
        written = write_broker_folder(connection, home, place, now=machine_clock())
    process = have_it_read(out) if reload else None
    start = f"mosquitto -c {place.folder / CONFIGURATION_FILE}"
    read = f"the broker (process {process}) reads it" if process else f"start it: {start}"
    say(
        {
            "folder": str(place.folder),
            "port": place.port,
            "revoked": written.num_revoked,
            "process": process,
            "start": start,
        },
        [f"wrote {out}, {written.num_revoked} devices shut out", read],
        as_json=as_json,
    )


def check_broker_command(
    *,
    address: Annotated[
        str | None,
        typer.Option("--broker", metavar="HOST:PORT", help="Which; none: the fleet's."),
    ] = None,
    also_port: Annotated[
        list[int] | None,
        typer.Option(min=1, max=65_535, help="Port that may be open, too; may be repeated."),
    ] = None,
    authority: Authority = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Try at a broker that runs what nobody should be able to do, and say what is unsafe.

    It looks at the broker's port and at 1883, and at no others that are not named. Two probe
    devices connect for some seconds, under certificates that hold for minutes.
    """
    import logging
    import tempfile

    from ..authority.home import open_home
    from ..broker_setup.broker_check import PLAIN_PORT, check_broker
    from ..broker_setup.checks import is_safe
    from ..clock import machine_clock
    from ..config import parse_address

    # What a probe is refused is what is told below.
    logging.getLogger("models.wire").setLevel(logging.CRITICAL)
    settings = settings_of(authority, None, config)
    home = open_home(settings.authority)
    host, port = parse_address("broker", address or home.fleet.broker)
    with tempfile.TemporaryDirectory() as scratch:
        findings = check_broker(
            home,
            host=host,
            port=port,
            scratch=Path(scratch),
            now=machine_clock(),
            more_ports=also_port or (),
        )
    ports = list(dict.fromkeys((port, PLAIN_PORT, *(also_port or ()))))
    lines = _lines_of(findings, where=f"{host}:{port}", ports=ports)
    safe = is_safe(findings)
    data = {
        "broker": f"{host}:{port}",
        "ports": ports,
        "safe": safe,
        "checks": [found.to_json() for found in findings],
    }
    say(data, lines, as_json=as_json)
    if not safe:
        raise typer.Exit(UNSAFE)


def _lines_of(findings: Sequence[Finding], *, where: str, ports: Sequence[int]) -> list[str]:
    """Tell a person what was found, and where nobody looked."""
    lines = []
    for found in findings:
        lines.append(f"{found.verdict.value:<8}{found.attempt.name}: {found.attempt.tried}")
        lines[-1] += f": {found.seen}"
        remedy = found.to_json()["remedy"]
        lines += [f"        {remedy}"] if remedy else []
    num_unsafe = sum(found.to_json()["verdict"] == "unsafe" for found in findings)
    return [
        *lines,
        f"{len(findings)} checks at {where}, {num_unsafe} unsafe",
        f"looked at ports {', '.join(map(str, ports))}; no others (--also-port), no WebSockets",
    ]
