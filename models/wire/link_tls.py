"""What a link's TLS accepts: the fleet's authorities, this side's certificate, TLS 1.2 or later.

`ssl` is imported where a context is made, and not before: a link in the clear runs without it, and
with it takes some 5.8 MB more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from .link_settings import LinkTls

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which `ssl` has no name."""


def tls_context(tls: LinkTls) -> ssl.SSLContext:
    """Return a context of files as they are now.

    Raises:
        OSError: a file is missing, or holds something else.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Memory for a session that no link ever resumes.
    context.options |= ssl.OP_NO_TICKET
    context.load_verify_locations(cafile=str(tls.authorities))
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), None if tls.key is None else str(tls.key))
    if not tls.looks_at_time:
        context.verify_flags |= NO_CHECK_TIME
    return context
