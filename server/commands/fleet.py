"""`fedcell fleet`: the fleet's authorities, one-time tokens, and who may still speak."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .hub import AsJson, Config, Db, settings_from
from .hub import say as say_line

if TYPE_CHECKING:
    from datetime import datetime

    from ..authority.home import Fleet
    from ..config import ServerConfig

Authority = Annotated[
    str | None,
    typer.Option("--authority", metavar="DIR", help="Folder of the fleet's authorities."),
]
SuperLink = Annotated[
    str | None,
    typer.Option("--superlink", metavar="HOST:PORT", help="Where nodes meet the SuperLink."),
]
SuperLinkHost = Annotated[
    list[str] | None,
    typer.Option(
        "--superlink-host", metavar="HOST", help="Further names or addresses of the SuperLink."
    ),
]
ReleaseHost = Annotated[
    list[str] | None,
    typer.Option(
        "--release-host",
        metavar="HOST",
        help="Name or address of the server of release files; repeatable.",
    ),
]
BrokerFolder = Annotated[
    Path | None,
    typer.Option(
        "--broker-folder",
        metavar="DIR",
        help="Folder of 'server broker-config': write it anew, and have the broker read it.",
    ),
]

_DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    """Add the group `fleet` to the root command."""
    from .fleet_changes import revoke, rotate, status, supernode_keys
    from .fleet_services import certify
    from .fleet_sites import gateway

    group = typer.Typer(
        name="fleet",
        help="Enrol devices, renew and revoke their certificates, rotate authorities.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("init")(init)
    group.command("token")(token)
    group.command("serve")(serve)
    group.command("revoke")(revoke)
    group.command("rotate")(rotate)
    group.command("certify")(certify)
    group.command("gateway")(gateway)
    group.command("status")(status)
    group.command("supernode-keys")(supernode_keys)
    app.add_typer(group)


def init(
    *,
    name: Annotated[str, typer.Option(help="What the fleet is called.")] = "fleet",
    broker: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where devices meet the broker.")
    ],
    enrolment_host: Annotated[
        list[str],
        typer.Option(metavar="HOST", help="Name or address of the enrolment service; repeatable."),
    ],
    broker_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Further names or addresses of the broker."),
    ] = None,
    superlink: SuperLink = None,
    superlink_host: SuperLinkHost = None,
    release_host: ReleaseHost = None,
    server_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="FILE.public.json of the key that signs notices."),
    ] = None,
    life_days: Annotated[
        int, typer.Option(min=1, max=825, metavar="D", help="Life of a device's certificate.")
    ] = 30,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make both authorities, and the certificates of the fleet's own services."""
    from models.trusted_keys import read_trusted_keys

    from ..authority.home import Fleet
    from ..clock import machine_clock
    from ..config import parse_address

    settings = settings_of(authority, db, config)
    host, _ = parse_address("broker", broker)
    keys = {} if server_key is None else read_trusted_keys(server_key)
    fleet = Fleet(
        name=name,
        broker=broker,
        broker_hosts=tuple(dict.fromkeys([host, *(broker_host or ())])),
        enrolment_hosts=tuple(enrolment_host),
        server_keys={key_id: raw.hex() for key_id, raw in keys.items()},
        life_days=life_days,
    ).placed(
        superlink=checked_superlink(superlink, superlink_host),
        superlink_hosts=superlink_host,
        release_hosts=release_host,
    )
    pinned = _make_authorities(settings, fleet, now=machine_clock())
    say(
        {"authority": str(settings.authority), "ca_fingerprint": pinned},
        [
            f"made the authorities of {name} in {settings.authority}: keep it secret, and a copy",
            f"devices pin  {pinned}",
        ],
        as_json=as_json,
    )


def token(
    *,
    device: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The only device that may use it, also once enrolled."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 1,
    hours: Annotated[
        float, typer.Option(min=0.01, max=8760, metavar="H", help="Hours until it is over.")
    ] = 24.0,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make one-time tokens, each good for one device; they are shown now and never again."""
    from models.wire.topics import checked_device_id

    from ..authority.certificates import fingerprint
    from ..authority.home import Kind, open_home
    from ..authority.tokens import make_token
    from ..clock import machine_clock
    from ..errors import SettingError
    from ..storage.database import open_database

    settings = settings_of(authority, db, config)
    if device is not None:
        checked_device_id(device)
        if count != 1:
            raise SettingError("count", "is more than 1 for one device", "leave one of both out")
    home = open_home(settings.authority)
    pinned = fingerprint(home.certificate(home.fleet.issuing(Kind.SERVER)))
    life, now = timedelta(hours=hours), machine_clock()
    with (
        open_database(settings.db, must_exist=True) as database,
        database.transaction() as connection,
    ):
        made = [make_token(connection, life=life, now=now, device_id=device) for _ in range(count)]
    ends = (now + life).isoformat(timespec="seconds")
    host = home.fleet.enrolment_hosts[0]
    say(
        {"tokens": made, "ca_fingerprint": pinned, "expires_at": ends, "device": device},
        [
            *made,
            f"on the device, before {ends}:",
            f"  fedcell-device join https://{host}:8443 --token TOKEN --ca-fingerprint {pinned}",
        ],
        as_json=as_json,
    )


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104 - a service for devices
    port: Annotated[int, typer.Option(min=0, max=65_535, help="TCP port.")] = 8443,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enrol devices and renew their certificates over HTTPS, until SIGTERM or Ctrl-C."""
    import logging

    from ..authority.home import open_home
    from ..authority.serving import running_service, warn_of_due
    from ..clock import machine_clock
    from ..storage.database import open_database

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("server.authority").setLevel(logging.INFO)
    settings = settings_of(authority, db, config)
    home = open_home(settings.authority)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        open_database(settings.db, must_exist=True) as database,
        running_service(database, home, host=host, port=port, clock=machine_clock) as chosen,
    ):
        ready = {"event": "ready", "host": host, "port": chosen, "pid": os.getpid()}
        say(ready, [f"devices can join at port {chosen}"], as_json=as_json)
        warn_of_due(database, settings.authority, now=machine_clock())
        while not stop.wait(_DAY_S):
            warn_of_due(database, settings.authority, now=machine_clock())


def checked_superlink(
    address: str | None, hosts: list[str] | None, *, known: str = ""
) -> str | None:
    """Return where the SuperLink is, as it was told.

    Args:
        address: `host:port`, None where nothing was said.
        hosts: further names of it.
        known: where the fleet says that it is.

    Raises:
        SettingError: it is no address, or there are further names of none.
    """
    from ..config import parse_address
    from ..errors import SettingError

    if address is not None:
        parse_address("superlink", address)
    elif hosts and not known:
        raise SettingError("superlink", "is missing", "say where it is: --superlink HOST:PORT")
    return address


def _make_authorities(settings: ServerConfig, fleet: Fleet, *, now: datetime) -> str:
    """Make them, certify the services, and return what devices pin."""
    from ..authority.certificates import fingerprint
    from ..authority.home import Kind, make_home
    from ..authority.services import certify_revoked_probe, certify_service, services_of
    from ..storage.database import open_database

    with open_database(settings.db) as database:
        home = make_home(settings.authority, fleet, now=now)
        with database.transaction() as connection:
            for service in services_of(home):
                certify_service(connection, home, service, now=now)
            certify_revoked_probe(connection, home, now=now)
    return fingerprint(home.certificate(home.fleet.issuing(Kind.SERVER)))


def settings_of(authority: str | None, db: str | None, config: str | None) -> ServerConfig:
    """Put the settings together from flags, environment and file."""
    return settings_from({"authority": authority, "db": db, "config": config})


def say(answer: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    """Print an answer in the form that was asked for."""
    say_line(answer, "\n".join(lines), as_json=as_json)
