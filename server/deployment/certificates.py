"""Certificates of a deployment: one of the fleet's for nodes, one of its own on loopback.

Nodes know the proxy by the fleet's authority over services. Between proxy, SuperLink and SuperExec
on this machine stands an authority that signs once and whose key is then forgotten: so a
certificate of the fleet says nothing about loopback, and renewing it starts no SuperLink anew.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from models.durable_file import write_durably

from ..authority.certificates import (
    certificate_of_pem,
    certificate_pem,
    certify,
    key_pem,
    make_authority,
    new_key,
)
from ..authority.home import Kind, write_private
from ..authority.services import Service, certify_service, service_files, service_states
from ..errors import CertificateError
from .errors import DeploymentError, DeploymentRefusedError
from .place import INNER_NAME, LOOPBACK

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from ..authority.home import AuthorityHome
    from .place import Deployment

INNER_LIFE = timedelta(days=3650)
INNER_RENEWED_BEFORE = timedelta(days=365)


def keep_certificate(
    connection: Connection, home: AuthorityHome, deployment: Deployment, *, now: datetime
) -> bool:
    """Write the certificate of the fleet's SuperLink, made anew where its end is near.

    Returns:
        Whether it is another than the one that was here.

    Raises:
        AuthorityError: the fleet names no SuperLink, or its files cannot be used.
        OSError: the folder or the disk refuses.
    """
    states = {one.service: one for one in service_states(home, now=now)}
    state = states.get(Service.SUPERLINK)
    if state is None or state.is_due:
        certify_service(connection, home, Service.SUPERLINK, now=now)
    files = service_files(home, Service.SUPERLINK.value)
    write_durably(deployment.authorities, home.trusted_pem(Kind.SERVER))
    certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
    if _content(deployment.certificate) == certificate and _content(deployment.key) == key:
        return False
    # The key first: a certificate without its key would be taken for whole.
    write_private(deployment.key, key)
    write_durably(deployment.certificate, certificate)
    return True


def keep_inner_certificate(deployment: Deployment, *, now: datetime) -> bool:
    """Make the certificate for loopback, unless there is one that holds for long.

    Returns:
        Whether it was made now.

    Raises:
        OSError: the folder or the disk refuses.
    """
    if _holds_for_long(deployment, now=now):
        return False
    authority, authority_key = make_authority("fedcell loopback", now=now, life=INNER_LIFE)
    key = new_key()
    made = certify(
        key.public_key(),
        name="fedcell superlink",
        authority=authority,
        authority_key=authority_key,
        now=now,
        end=now + INNER_LIFE,
        hosts=(INNER_NAME, LOOPBACK),
    )
    write_private(deployment.inner_key, key_pem(key))
    write_durably(deployment.inner_authority, certificate_pem(authority))
    write_durably(deployment.inner_certificate, certificate_pem(made))
    return True


def require_certificates(deployment: Deployment, *, now: datetime) -> datetime:
    """Return until when the certificate for nodes holds.

    Raises:
        DeploymentError: one is missing or damaged.
        DeploymentRefusedError: one is over, or does not hold yet.
    """
    _require(deployment, deployment.inner_certificate, now=now)
    return _require(deployment, deployment.certificate, now=now)


def _require(deployment: Deployment, path: Path, *, now: datetime) -> datetime:
    remedy = f"make a new one: fedcell rounds deployment {deployment.folder}"
    try:
        certificate = certificate_of_pem(path.read_bytes())
    except OSError as error:
        raise DeploymentError(path, f"cannot be read: {error.strerror}", remedy) from None
    except CertificateError as error:
        raise DeploymentError(path, str(error), remedy) from None
    end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now >= end:
        raise DeploymentRefusedError(path, f"ended on {end:%Y-%m-%d}", remedy)
    if now < start:
        what = f"holds from {start:%Y-%m-%d} on"
        raise DeploymentRefusedError(path, what, "set this machine's clock")
    return end


def _holds_for_long(deployment: Deployment, *, now: datetime) -> bool:
    try:
        certificate = certificate_of_pem(deployment.inner_certificate.read_bytes())
    except (OSError, CertificateError):
        return False
    is_whole = deployment.inner_key.is_file() and deployment.inner_authority.is_file()
    return is_whole and certificate.not_valid_after_utc - now >= INNER_RENEWED_BEFORE


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
