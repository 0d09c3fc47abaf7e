"""One certificate by an authority of the fleet, as it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.enrolments import KeptCertificate
from .certificates import certificate_pem, certify, key_digest, serial_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from .home import AuthorityHome, Kind


def issue(
    home: AuthorityHome,
    kind: Kind,
    public_key: EllipticCurvePublicKey,
    *,
    name: str,
    life: timedelta,
    now: datetime,
    hosts: Sequence[str] = (),
) -> KeptCertificate:
    """Certify a key by the generation that signs; keeping it is the caller's.

    Args:
        home: the authorities.
        kind: which of them.
        public_key: what is certified.
        name: a device's id, or a service's name.
        life: for how long, at most as long as the authority.
        now: aware time.
        hosts: names and addresses of a server; none: the certificate is for a client.
    """
    issuing = home.fleet.issuing(kind)
    certificate = certify(
        public_key,
        name=name,
        authority=home.certificate(issuing),
        authority_key=home.key(issuing),
        now=now,
        end=now + life,
        hosts=hosts,
    )
    return KeptCertificate(
        serial=serial_of(certificate),
        authority=kind.value,
        generation=issuing.number,
        name=name,
        key_digest=key_digest(public_key),
        pem=certificate_pem(certificate).decode("ascii"),
        issued_at=now,
        not_after=certificate.not_valid_after_utc,
    )
