"""Keys, certificate requests and a certificate that a device makes: P-256, for Flower P-384.

The private halves never leave the device; what leaves is the request, and a public key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import JoinError

_NO_PASSWORD = serialization.NoEncryption()
_ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a device goes by in its certificate.

    Attributes:
        serial: its number, 40 hex digits.
        not_before: since when it holds.
        not_after: until when.
    """

    serial: str
    not_before: datetime
    not_after: datetime


def make_request(device_id: str) -> tuple[str, str]:
    """Make a key for MQTT, and return it and the request for its certificate, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = request.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _NO_PASSWORD
    )
    return private.decode("ascii"), signed.public_bytes(serialization.Encoding.PEM).decode("ascii")


def make_supernode_key() -> tuple[str, str]:
    """Make a key for Flower, and return it and its public half, both in OpenSSH form."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, _NO_PASSWORD
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode("ascii"), public.decode("ascii")


def make_loopback_certificate() -> tuple[bytes, bytes]:
    """Make a key for a server on loopback, and return it and its certificate, both PEM.

    Nobody else vouches for it: who shall believe it is given the certificate itself. It holds
    always, for a device's clock may be wrong, and is of use as long as its key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedcell node on loopback")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
    )
    loopback = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    for extension, is_critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (loopback, False),
    ):
        builder = builder.add_extension(extension, critical=is_critical)
    made = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _NO_PASSWORD
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def checked_certificate(pem: str, *, key_pem: str, device_id: str) -> CertificateFacts:
    """Look at a certificate before it is kept.

    Raises:
        JoinError: it is none, or is for another key or device.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
        public_key = certificate.public_key()
    except (ValueError, TypeError):
        raise _refused("is no certificate in PEM form") from None
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [entry.value for entry in names] != [device_id]:
        raise _refused(f"is not for {device_id}")
    if public_key != key.public_key():
        raise _refused("is for another key than the one that was made here")
    return CertificateFacts(
        serial=f"{certificate.serial_number:040x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def pinned_authorities(pem: bytes, *, fingerprint: str) -> str:
    """Return the one authority whose fingerprint was given, of all that a service names, PEM.

    Raises:
        JoinError: none has it.
    """
    try:
        named = x509.load_pem_x509_certificates(pem)
    except ValueError:
        named = []
    for certificate in named:
        if certificate.fingerprint(hashes.SHA256()).hex() == fingerprint:
            return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
    what = "names no authority with this fingerprint: this is not the fleet's service"
    remedy = "check the address and --ca-fingerprint; tell the operator"
    raise JoinError("enrolment service", what, remedy)


def _refused(what: str) -> JoinError:
    return JoinError("the certificate that came", what, "tell the operator; nothing was kept")
