"""`fedcell fleet gateway`: small devices that take part in rounds through one that is larger."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fleet import Authority, BrokerFolder, say, settings_of
from .fleet_changes import broker_line, tell_broker
from .hub import AsJson, Config, Db

if TYPE_CHECKING:
    from datetime import datetime

    from ..authority.sites import SiteState, WrittenSite


def gateway(
    *,
    name: Annotated[str, typer.Argument(metavar="ID", help="An enrolled device.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the site file.")],
    devices: Annotated[
        str | None,
        typer.Option(metavar="FILE|ID,...", help="Devices behind it; none: those that are."),
    ] = None,
    most_devices: Annotated[
        int | None,
        typer.Option(
            min=1, max=4_000, metavar="N", help="How many it may answer for; none: all of them."
        ),
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key that devices believe; none: the server's."),
    ] = None,
    days: Annotated[
        float, typer.Option(min=1, max=825, metavar="D", help="Days until it has to be renewed.")
    ] = 30.0,
    broker_folder: BrokerFolder = None,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make an enrolled device the gateway of others, or write its site file anew."""
    from models.durable_file import write_durably

    from ..authority.home import locked_home
    from ..authority.sites import write_site
    from ..clock import machine_clock
    from ..signer import load_signer
    from ..storage.database import open_database

    settings, now = settings_of(authority, db, config), machine_clock()
    signer = load_signer(signing_key or settings.key)
    named = None if devices is None else named_devices(devices)
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as home,
        database.transaction() as connection,
    ):
        made = write_site(
            connection,
            home,
            name,
            devices=named,
            most_devices=most_devices,
            key=signer.key,
            life=timedelta(days=days),
            now=now,
        )
        # The broker last: it shall grant nothing that is not kept.
        try:
            write_durably(out, made.content)
        except OSError as error:
            raise _unwritable(out, error) from None
        told = tell_broker(connection, home, broker_folder, now=now)
    said = {"gateway": name, "site": str(out), "broker": told, **_site_json(made)}
    say(said, [*_site_lines(name, out, made), broker_line(told)], as_json=as_json)


def named_devices(text: str) -> list[str]:
    """Return the devices that a file names line by line, or a text between commas.

    Raises:
        SettingError: it names none, or none can be called so.
    """
    from models.wire.errors import WireError
    from models.wire.topics import checked_device_id

    from ..errors import SettingError

    file = Path(text)
    try:
        words = file.read_text().split() if file.is_file() else text.split(",")
        names = [checked_device_id(word.strip()) for word in words if word.strip()]
    except (OSError, ValueError, WireError) as error:
        raise SettingError("devices", str(error), "give a file of names, or ID,ID") from None
    if not names:
        raise SettingError("devices", "names no device", "give a file of names, or ID,ID")
    return list(names)


def sites_json(states: tuple[SiteState, ...], *, now: datetime) -> dict[str, Any]:
    """Return for machines how the sites of all gateways are."""
    return {
        one.gateway: {
            "devices": list(one.devices),
            "most_devices": one.most_devices,
            "not_after": one.not_after.isoformat(),
            "current": one.is_current,
            "due": one.is_due(now),
        }
        for one in states
    }


def sites_lines(states: tuple[SiteState, ...], *, now: datetime) -> list[str]:
    """Return for people how the sites of all gateways are."""
    lines = []
    for one in states:
        ends = f"until {one.not_after.isoformat()}"
        anew = f"; write it anew: fedcell fleet gateway {one.gateway} --out FILE"
        what = anew if one.is_due(now) else ""
        lines.append(f"gateway      {one.gateway}: {len(one.devices)} devices, {ends}{what}")
    return lines


def _site_json(made: WrittenSite) -> dict[str, Any]:
    return {
        "devices": [one.device_id for one in made.devices],
        "left_out": list(made.left_out),
        "most_devices": made.credential.most_devices,
        "not_after": made.credential.not_after.isoformat(),
    }


def _site_lines(name: str, out: Path, made: WrittenSite) -> list[str]:
    ends = made.credential.not_after.isoformat()
    lines = [f"wrote {out}: {name} answers for {len(made.devices)} devices until {ends}"]
    if made.left_out:
        lines.append(f"left out, for they are shut out: {', '.join(made.left_out)}")
    return lines


def _unwritable(path: Path, error: OSError) -> Exception:
    from ..errors import AuthorityError

    return AuthorityError(path, f"cannot be written: {error.strerror}", "name another file")
