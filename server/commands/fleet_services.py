"""`fedcell fleet certify`: certificates of the fleet's own services, and when they are due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .fleet import (
    Authority,
    BrokerFolder,
    ReleaseHost,
    SuperLink,
    SuperLinkHost,
    checked_superlink,
    say,
    settings_of,
)
from .fleet_changes import tell_broker
from .hub import AsJson, Config, Db

if TYPE_CHECKING:
    from ..authority.services import ServiceState


def certify(
    *,
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="Which; none: all that the fleet has."),
    ] = None,
    superlink: SuperLink = None,
    superlink_host: SuperLinkHost = None,
    release_host: ReleaseHost = None,
    broker_folder: BrokerFolder = None,
    authority: Authority = None,
    db: Db = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make new keys and certificates for the fleet's own services; before a year is over.

    They are broker, enrolment, hub, releases, and where the fleet names hosts of them,
    release-files and superlink.
    """
    from ..authority.home import locked_home
    from ..authority.services import Service, certify_service, services_of
    from ..clock import machine_clock
    from ..errors import SettingError
    from ..storage.database import open_database

    for name in services or ():
        if name not in set(Service):
            known = ", ".join(Service)
            raise SettingError("service", f"there is no service {name!r}", f"give {known}")
    settings, now = settings_of(authority, db, config), machine_clock()
    ends: dict[str, str] = {}
    with (
        open_database(settings.db, must_exist=True) as database,
        locked_home(settings.authority) as opened,
        database.transaction() as connection,
    ):
        fleet = opened.fleet.placed(
            superlink=checked_superlink(superlink, superlink_host, known=opened.fleet.superlink),
            superlink_hosts=superlink_host,
            release_hosts=release_host,
        )
        home = opened if fleet == opened.fleet else opened.keep(fleet)
        for service in map(Service, services or services_of(home)):
            made = certify_service(connection, home, service, now=now)
            ends[service.value] = made.not_valid_after_utc.isoformat()
        told = tell_broker(connection, home, broker_folder, now=now)
    lines = [f"{name}: certified until {end}" for name, end in ends.items()]
    again = "start the services anew, or they go on with what they have read"
    say({"certified": ends, "broker": told}, [*lines, again], as_json=as_json)


def services_json(states: tuple[ServiceState, ...]) -> dict[str, Any]:
    """Return for machines until when services are certified, and which are due."""
    return {
        "services": {
            one.service.value: None if one.not_after is None else one.not_after.isoformat()
            for one in states
        },
        "due": [one.service.value for one in states if one.is_due],
    }


def service_lines(states: tuple[ServiceState, ...]) -> list[str]:
    """Return for people until when services are certified."""
    lines = []
    for one in states:
        end = (
            "no certificate yet" if one.not_after is None else f"until {one.not_after.isoformat()}"
        )
        lines.append(f"{one.service.value:<13} {end}{', due' if one.is_due else ''}")
    return lines


def due_line(states: tuple[ServiceState, ...]) -> list[str]:
    """Return what to type where certificates are due."""
    named = " ".join(one.service.value for one in states if one.is_due)
    return [f"due          fedcell fleet certify {named}, then start them anew"] if named else []
