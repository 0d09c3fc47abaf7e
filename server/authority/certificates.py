"""X.509 for a fleet: two authorities, short-lived certificates, revocation lists. No IO.

Keys are ECDSA on P-256 (FIPS 186-5), which every TLS library of a broker and of a device speaks.
A certificate is the profile of RFC 5280 with one use: a device's, the hub's and a probe's are for
clients, a broker's and the enrolment service's for servers, and neither passes for the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

BACKDATED = timedelta(hours=24)
"""A certificate holds from a day before it is made: for devices and brokers whose clocks lag."""
MAX_REQUEST_BYTES = 4096


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a PEM file (PKCS 8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_of_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key of a PEM file.

    Raises:
        CertificateError: it holds none on P-256.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError("is no unencrypted private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("is no key on P-256")
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as a PEM file."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_of_pem(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM file.

    Raises:
        CertificateError: it holds none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CertificateError("is no certificate in PEM form") from None


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 of a certificate's DER form, 64 hex digits; what a device pins."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_of(certificate: x509.Certificate) -> str:
    """Return a certificate's serial number as 40 hex digits."""
    return f"{certificate.serial_number:040x}"


def common_name(certificate: x509.Certificate) -> str:
    """Return the name that a certificate is for, empty where it bears none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def key_digest(public_key: object) -> str:
    """Return SHA-256 of a public key's SubjectPublicKeyInfo, 64 hex digits."""
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise CertificateError("is not for a key on P-256")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def make_authority(
    name: str, *, now: datetime, life: timedelta
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a self-signed authority that signs end certificates and revocation lists alone.

    Args:
        name: common name.
        now: aware time.
        life: for how long it holds.
    """
    key = new_key()
    subject = _named(name)
    builder = _begun(subject, subject, key.public_key(), start=now - BACKDATED, end=now + life)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, hashes.SHA256()), key


def certify(
    public_key: ec.EllipticCurvePublicKey,
    *,
    name: str,
    authority: x509.Certificate,
    authority_key: CertificateIssuerPrivateKeyTypes,
    now: datetime,
    end: datetime,
    hosts: Sequence[str] = (),
    start: datetime | None = None,
) -> x509.Certificate:
    """Certify a key, for a client, or for a server at some hosts.

    Args:
        public_key: what is certified.
        name: common name: a device's id, or the name of a service.
        authority: who certifies.
        authority_key: with this key.
        now: aware time.
        end: until when it holds, at most as long as the authority.
        hosts: names and addresses of a server; none: the certificate is for a client.
        start: since when it holds; None: a day ago, and never before its authority.
    """
    last = min(end, authority.not_valid_after_utc)
    first = max(now - BACKDATED if start is None else start, authority.not_valid_before_utc)
    builder = _begun(_named(name), authority.subject, public_key, start=first, end=last)
    use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    for extension, is_critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([use]), False),
        (_issuer_identifier(authority), False),
    ):
        builder = builder.add_extension(extension, critical=is_critical)
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def requested_key(pem: bytes, *, name: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a certificate request, after its own signature was checked.

    Nothing else in a request is believed: name, use and life are the authority's to say.

    Args:
        pem: the request (PKCS 10).
        name: the device that asks; the request must bear it.

    Raises:
        CertificateError: it is none, is signed by another key, or is for another name or curve.
    """
    if len(pem) > MAX_REQUEST_BYTES:
        raise CertificateError(f"has {len(pem)} bytes, at most {MAX_REQUEST_BYTES} are read")
    try:
        request = x509.load_pem_x509_csr(pem)
        is_signed = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise CertificateError("is no certificate request in PEM form") from None
    if not is_signed:
        raise CertificateError("is not signed by the key that it asks for")
    if [entry.value for entry in names] != [name]:
        raise CertificateError(f"is not for {name}")
    is_on_curve = isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
        public_key.curve, ec.SECP256R1
    )
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not is_on_curve:
        raise CertificateError("is not for a key on P-256")
    return public_key


def revocation_list(
    serials: Iterable[tuple[str, datetime]],
    *,
    authority: x509.Certificate,
    authority_key: CertificateIssuerPrivateKeyTypes,
    number: int,
) -> bytes:
    """Return an authority's revocation list as a PEM file.

    It holds as long as the authority: a broker refuses every client once a list is over, and this
    one is replaced by a file and a signal, not fetched. Its time is its number, a day earlier:
    OpenSSL takes the later of two lists, so no two are of one second, and none lies ahead of a
    broker whose clock lags.

    Args:
        serials: of revoked certificates, 40 hex digits, and since when.
        authority: whose list it is.
        authority_key: its key.
        number: grows with each list; seconds since 1970.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(datetime.fromtimestamp(number, UTC) - BACKDATED)
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issuer_identifier(authority), critical=False)
    )
    for serial, since in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
        builder = builder.add_revoked_certificate(revoked.revocation_date(since).build())
    signed = builder.sign(authority_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def checked_supernode_key(text: str) -> str:
    """Return a SuperNode's public key in OpenSSH form, without a comment.

    Raises:
        CertificateError: it is none on P-384, which is what Flower makes.
    """
    try:
        key = serialization.load_ssh_public_key(text.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("is no public key in OpenSSH form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CertificateError("is no key on P-384")
    form = serialization.PublicFormat.OpenSSH
    return key.public_bytes(serialization.Encoding.OpenSSH, form).decode("ascii")


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issuer_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
