"""What changes who may speak: revocation, rotation, certificates; and how things are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fleet import Authority, BrokerFolder, say, settings_of
from .hub import AsJson, Config, Db

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from ..authority.home import AuthorityHome

NOT_YET = 1
_SHOWN_DEVICES = 20


def revoke(
    *,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Which devices.")],
    because: Annotated[str, typer.Option(help="Why; kept with the device.")] = "",
    broker_folder: BrokerFolder = None,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Shut devices out: their certificates, their tokens, and what they have connected."""
    from ..authority.enrolment import revoke as shut_out
    from ..authority.home import locked_home
    from ..clock import machine_clock
    from ..storage.database import open_database

    settings, now = settings_of(authority, db, config), machine_clock()
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as home,
        database.transaction() as connection,
    ):
        for device in devices:
            shut_out(connection, device, because=because, now=now)
        told = tell_broker(connection, home, broker_folder, now=now)
    say(
        {"revoked": devices, "broker": told},
        [f"revoked {len(devices)}: {', '.join(devices)}", broker_line(told)],
        as_json=as_json,
    )


def rotate(
    *,
    which: Annotated[str, typer.Argument(metavar="device|server", help="Which authority.")],
    finish: Annotated[
        bool, typer.Option("--finish", help="Retire the old one, once every device has renewed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if devices have not; they must join again.")
    ] = False,
    broker_folder: BrokerFolder = None,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Put a new authority beside the old one, and with --finish in its place."""
    from ..authority.home import Kind, locked_home
    from ..authority.services import begin_rotation, devices_behind, finish_rotation
    from ..clock import machine_clock
    from ..errors import SettingError
    from ..storage.database import open_database

    if which not in set(Kind):
        raise SettingError("which", f"there is no authority {which!r}", "give device or server")
    kind = Kind(which)
    settings, now = settings_of(authority, db, config), machine_clock()
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as opened,
        database.transaction() as connection,
    ):
        home = opened
        behind: tuple[str, ...] = ()
        if finish:
            behind = devices_behind(connection, home, kind, now=now)
            if not behind or force:
                home = finish_rotation(connection, home, kind, now=now)
        else:
            home = begin_rotation(home, kind, now=now)
        is_done = not behind or force
        told = tell_broker(connection, home, broker_folder, now=now) if is_done else None
    lines = [f"{one.file}: {one.state.value}" for one in home.fleet.of(kind)]
    if behind:
        named = ", ".join(behind[:_SHOWN_DEVICES])
        verb = "must join again" if force else "would be lost, and has to renew first"
        lines.append(f"{len(behind)} devices {verb}: {named}")
    say(
        {
            "authority": which,
            "finished": finish and is_done,
            "behind": list(behind),
            "generations": {one.file: one.state.value for one in home.fleet.of(kind)},
            "broker": told,
        },
        [*lines, broker_line(told)] if is_done else lines,
        as_json=as_json,
    )
    if not is_done:
        raise typer.Exit(NOT_YET)


def status(
    *,
    devices: Annotated[bool, typer.Option("--devices", help="Name every device.")] = False,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show authorities, certificates that end soon, and how many devices are enrolled."""
    from ..authority.home import open_home
    from ..authority.services import service_states
    from ..authority.sites import site_states
    from ..clock import machine_clock
    from ..storage.database import open_database
    from ..storage.enrolments import Enrolments
    from .fleet_services import due_line, service_lines, services_json
    from .fleet_sites import sites_json, sites_lines

    settings, now = settings_of(authority, db, config), machine_clock()
    home = open_home(settings.authority)
    with (
        open_database(settings.db, must_exist=True) as database,
        database.reading() as connection,
    ):
        enrolments = Enrolments(connection)
        enrolled, revoked = enrolments.num_devices()
        current = list(enrolments.current())
        tokens = enrolments.open_tokens(now=now)
        sites = site_states(connection)
    over = [device.device_id for device, held in current if held.not_after <= now]
    services = service_states(home, now=now)
    data: dict[str, Any] = {
        "fleet": home.fleet.name,
        "authorities": {one.file: one.state.value for one in home.fleet.generations},
        **services_json(services),
        "enrolled": enrolled,
        "revoked": revoked,
        "over": over,
        "open_tokens": tokens,
        "gateways": sites_json(sites, now=now),
    }
    lines = [
        f"fleet        {home.fleet.name}",
        *(f"{one.file:<12} {one.state.value}" for one in home.fleet.generations),
        *service_lines(services),
        f"enrolled     {enrolled}, revoked {revoked}, open tokens {tokens}",
        f"over         {len(over)} devices whose certificate has ended",
        *sites_lines(sites, now=now),
        *due_line(services),
    ]
    if devices:
        listed = {device.device_id: held.not_after.isoformat() for device, held in current}
        data["devices"] = listed
        lines += [f"  {name}  until {end}" for name, end in listed.items()]
    say(data, lines, as_json=as_json)


def supernode_keys(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="One file a device, as flwr reads it.")],
    federation: Annotated[str, typer.Option(help="As flwr calls it.")] = "fleet",
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the SuperNodes' public keys of devices that are not shut out, for Flower."""
    from models.durable_file import write_durably

    from ..authority.supernodes import enrolled_supernodes
    from ..storage.database import open_database

    settings = settings_of(authority, db, config)
    with (
        open_database(settings.db, must_exist=True) as database,
        database.reading() as connection,
    ):
        keys = dict(enrolled_supernodes(connection))
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}.pub" for name in keys}
    for name, path in files.items():
        write_durably(path, f"{keys[name]} {name}\n".encode())
    say(
        {"keys": {name: str(path) for name, path in files.items()}},
        [f"flwr supernode register {path} {federation}" for path in files.values()],
        as_json=as_json,
    )


def tell_broker(
    connection: Connection, home: AuthorityHome, folder: Path | None, *, now: datetime
) -> dict[str, Any] | None:
    """Write a broker's folder anew and have it read; None where no folder was named."""
    from ..broker_setup.broker_folder import chosen_place, have_it_read, write_broker_folder

    if folder is None:
        return None
    place = chosen_place(folder, host=None, port=None, user=None)
    write_broker_folder(connection, home, place, now=now)
    return {"folder": str(folder), "process": have_it_read(folder)}


def broker_line(told: dict[str, Any] | None) -> str:
    """Say what became of the broker."""
    if told is None:
        return "the broker learns of it by: fedcell server broker-config --out DIR --reload"
    if told["process"] is None:
        return f"{told['folder']} is written; no broker runs there"
    return f"{told['folder']} is written, and the broker (process {told['process']}) reads it"
