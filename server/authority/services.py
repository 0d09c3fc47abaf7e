"""Certificates of the fleet's own services, revocation lists, and the rotation of authorities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from models.durable_file import write_durably
from models.wire.topics import HUB_CLIENT_ID

from ..errors import AuthorityError, CertificateError
from ..storage.enrolments import Enrolments
from .certificates import certificate_of_pem, key_pem, new_key, revocation_list
from .home import Kind, State, write_private
from .issuing import issue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography.x509 import Certificate
    from sqlalchemy import Connection

    from .home import AuthorityHome

SERVICE_LIFE = timedelta(days=397)
DUE_BEFORE = timedelta(days=60)
"""So long before its end a service's certificate is to be made anew."""
REVOKED_PROBE = "fedcell-hub-revoked-probe"
"""A certificate that is revoked from its first moment: a broker that lets it in reads no list.

Its name begins like the server's, which no device may bear.
"""


class Service(StrEnum):
    """What the fleet runs itself, and certifies by its server authority."""

    BROKER = "broker"
    ENROLMENT = "enrolment"
    HUB = "hub"
    RELEASES = "releases"
    """Announces releases: a client of the broker's, beside the hub."""
    RELEASE_FILES = "release-files"
    """Serves the files of releases over HTTPS."""
    SUPERLINK = "superlink"


_NAMED_BY = {
    Service.BROKER: "fedcell fleet init --broker HOST:PORT",
    Service.ENROLMENT: "fedcell fleet init --enrolment-host HOST",
    Service.RELEASE_FILES: "fedcell fleet certify release-files --release-host HOST",
    Service.SUPERLINK: "fedcell fleet certify superlink --superlink HOST:PORT",
}


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """Where a service's certificate and key are.

    Attributes:
        certificate: PEM file.
        key: PEM file, mode 0600.
    """

    certificate: Path
    key: Path


def service_files(home: AuthorityHome, name: str) -> ServiceFiles:
    """Return where a service's files are."""
    return ServiceFiles(home.folder / f"{name}.pem", home.folder / f"{name}.key")


def hosts_of(home: AuthorityHome, service: Service) -> tuple[str, ...] | None:
    """Return for which names and addresses a service is certified, None for a client."""
    fleet = home.fleet
    hosts: dict[Service, tuple[str, ...]] = {
        Service.BROKER: fleet.broker_hosts,
        Service.ENROLMENT: fleet.enrolment_hosts,
        Service.RELEASE_FILES: fleet.release_hosts,
        Service.SUPERLINK: fleet.superlink_hosts,
    }
    return hosts.get(service)


def services_of(home: AuthorityHome) -> tuple[Service, ...]:
    """Return the services that this fleet has: clients, and servers whose hosts it names."""
    return tuple(one for one in Service if hosts_of(home, one) != ())


def certify_service(
    connection: Connection, home: AuthorityHome, service: Service, *, now: datetime
) -> Certificate:
    """Make a new key and certificate for a service, in place of what it had.

    Raises:
        AuthorityError: the fleet does not say where the service is, or the disk refuses.
    """
    hosts = hosts_of(home, service)
    if hosts == ():
        what = f"the fleet has no {service.value}: it names no host of it"
        raise AuthorityError(home.folder, what, f"name one: {_NAMED_BY[service]}")
    name = HUB_CLIENT_ID
    if service is not Service.HUB:
        name = f"{HUB_CLIENT_ID}-{service.value}"
    files = service_files(home, service.value)
    return _certify(connection, home, files, name=name, hosts=hosts or (), now=now)


def certify_revoked_probe(connection: Connection, home: AuthorityHome, *, now: datetime) -> None:
    """Make the certificate that is revoked from the beginning, by the authority over devices."""
    files = service_files(home, "revoked-probe")
    _certify(connection, home, files, name=REVOKED_PROBE, kind=Kind.DEVICE, now=now)
    Enrolments(connection).revoke_certificates(REVOKED_PROBE, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """How a service's certificate is.

    Attributes:
        service: which one.
        not_after: until when it holds, None where there is none yet.
        is_due: whether it has to be made anew: it is missing, ends soon, or is of an authority
            that does not sign any more.
    """

    service: Service
    not_after: datetime | None
    is_due: bool


def service_states(home: AuthorityHome, *, now: datetime) -> tuple[ServiceState, ...]:
    """Return how the certificates of a fleet's services are."""
    issuer = home.certificate(home.fleet.issuing(Kind.SERVER)).subject
    states = []
    for service in services_of(home):
        found = service_certificate(home, service)
        end = None if found is None else found.not_valid_after_utc
        is_good = (
            found is not None
            and found.not_valid_after_utc - now > DUE_BEFORE
            and found.issuer == issuer
        )
        states.append(ServiceState(service=service, not_after=end, is_due=not is_good))
    return tuple(states)


def service_certificate(home: AuthorityHome, service: Service) -> Certificate | None:
    """Return a service's certificate, None where it has none.

    Raises:
        AuthorityError: its file holds none, or cannot be read.
    """
    path = service_files(home, service.value).certificate
    remedy = f"make a new one: fedcell fleet certify {service.value}"
    try:
        return certificate_of_pem(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuthorityError(path, f"cannot be read: {error.strerror}", remedy) from None
    except CertificateError as error:
        raise AuthorityError(path, str(error), remedy) from None


def revocation_lists(
    connection: Connection, home: AuthorityHome, *, now: datetime
) -> tuple[AuthorityHome, bytes]:
    """Return the lists of all authorities that count, as one PEM file, under a new number."""
    # Above the one before, also where that is forgotten because a copy of the folder was put back.
    number = max(home.fleet.revocation_number + 1, int(now.timestamp()))
    lists = b"".join(
        revocation_list(
            Enrolments(connection).revoked(generation.kind.value, generation.number),
            authority=home.certificate(generation),
            authority_key=home.key(generation),
            number=number,
        )
        for kind in Kind
        for generation in home.fleet.trusted(kind)
    )
    return home.keep(replace(home.fleet, revocation_number=number)), lists


def begin_rotation(home: AuthorityHome, kind: Kind, *, now: datetime) -> AuthorityHome:
    """Let a new generation of an authority stand beside the old one.

    Over devices, the new one signs from now on and the broker trusts both. Over services, devices
    learn of the new one as they renew, and it signs once the rotation is finished.

    Raises:
        AuthorityError: a rotation has begun already.
    """
    if len(home.fleet.trusted(kind)) > 1:
        what = f"a rotation of the {kind.value} authority has begun"
        remedy = f"finish it: fedcell fleet rotate {kind.value} --finish"
        raise AuthorityError(home.folder, what, remedy)
    former = home.fleet.issuing(kind)
    home = home.add_generation(kind, now=now)
    if kind is Kind.SERVER:
        return home
    newest = home.fleet.of(kind)[-1]
    fleet = home.fleet.moved(former, State.TRUSTED, now=now)
    return home.keep(fleet.moved(newest, State.ISSUING, now=now))


def devices_behind(
    connection: Connection, home: AuthorityHome, kind: Kind, *, now: datetime
) -> tuple[str, ...]:
    """Return the devices that would be lost if a rotation were finished now.

    Raises:
        AuthorityError: no rotation has begun.
    """
    if len(home.fleet.trusted(kind)) < 2:
        remedy = f"begin one: fedcell fleet rotate {kind.value}"
        raise AuthorityError(home.folder, f"the {kind.value} authority is not rotated", remedy)
    newest = home.fleet.trusted(kind)[-1]
    if kind is Kind.DEVICE:
        return Enrolments(connection).behind(generation=newest.number, issued_before=None, now=now)
    return Enrolments(connection).behind(generation=0, issued_before=newest.since, now=now)


def finish_rotation(
    connection: Connection, home: AuthorityHome, kind: Kind, *, now: datetime
) -> AuthorityHome:
    """Retire the old generation; over services, certify them anew by the new one."""
    former, newest = home.fleet.trusted(kind)
    fleet = home.fleet.moved(former, State.RETIRED, now=now)
    if kind is Kind.SERVER:
        fleet = fleet.moved(newest, State.ISSUING, now=now)
        home = home.keep(fleet)
        for service in services_of(home):
            certify_service(connection, home, service, now=now)
        return home
    home = home.keep(fleet)
    certify_revoked_probe(connection, home, now=now)
    return home


def _certify(
    connection: Connection,
    home: AuthorityHome,
    files: ServiceFiles,
    *,
    name: str,
    now: datetime,
    hosts: Sequence[str] = (),
    kind: Kind = Kind.SERVER,
) -> Certificate:
    key = new_key()
    life = SERVICE_LIFE if kind is Kind.SERVER else timedelta(days=3650)
    kept = issue(home, kind, key.public_key(), name=name, life=life, now=now, hosts=hosts)
    Enrolments(connection).add_certificate(kept)
    pem = kept.pem.encode("ascii")
    try:
        # The key first: a certificate without its key would be taken for whole.
        write_private(files.key, key_pem(key))
        write_durably(files.certificate, pem)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise AuthorityError(files.key, what, "check the folder and the disk") from None
    return certificate_of_pem(pem)
