"""The link of whoever announces releases, under a name and a certificate of its own.

A broker of a secured fleet gives a client the name in its certificate: with the hub's, the process
that carries releases would drive the hub out, and the hub it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..authority.certificates import certificate_of_pem, common_name
from ..broker_setup.configuration import RELEASES_CLIENT_ID
from ..errors import CertificateError, SettingError
from ..hub_process import broker_link

if TYPE_CHECKING:
    from random import Random

    from models.wire.link import Link

    from ..config import ServerConfig

_REMEDY = (
    "fedcell fleet certify releases, and set release_tls_certificate and release_tls_key to "
    "releases.pem and releases.key"
)


def announcing_link(settings: ServerConfig, *, jitter: Random) -> Link:
    """Return the link by which releases are announced, not connected yet.

    Args:
        settings: of the server.
        jitter: spreads waits.

    Raises:
        SettingError: an address or file cannot be used, or the certificate is another service's.
    """
    own = settings.announcing()
    tls = own.broker_tls()
    if tls is not None and tls.certificate is not None:
        setting = "release_tls_certificate"
        try:
            name = common_name(certificate_of_pem(tls.certificate.read_bytes()))
        except OSError as error:
            what = f"{tls.certificate} cannot be read: {error.strerror}"
            raise SettingError(setting, what, _REMEDY) from None
        except CertificateError as error:
            raise SettingError(setting, f"{tls.certificate} {error}", _REMEDY) from None
        if name != RELEASES_CLIENT_ID:
            what = f"{tls.certificate} is the certificate of {name}, not of {RELEASES_CLIENT_ID}"
            raise SettingError(setting, what, _REMEDY)
    return broker_link(own, client_id=RELEASES_CLIENT_ID, jitter=jitter)
