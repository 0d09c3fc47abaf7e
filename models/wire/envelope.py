"""Signed payloads: who said it, checked before anything in it is believed.

An envelope is a JSON object of four strings: `alg` ("ed25519"), `kid` (which key), `body` (the
payload) and `sig`, the last two in base64url without padding. The signature covers a fixed prefix
and the bytes of the payload, so a signature made for something else never passes as a message's.
Ed25519 as in RFC 8032, from `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .codec import MAX_PAYLOAD_BYTES, canonical_json, parse_object
from .errors import MessageTooLargeError, SignatureError, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "ed25519"
SIGNED_PREFIX = b"fedcell/v1/message\n"
KEY_ID_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half of a key that signs."""

    _key: Ed25519PublicKey

    @staticmethod
    def from_bytes(raw: bytes) -> VerifyKey:
        """Return the key of 32 raw bytes.

        Raises:
            SignatureError: they are no Ed25519 key.
        """
        try:
            return VerifyKey(Ed25519PublicKey.from_public_bytes(raw))
        except ValueError:
            raise SignatureError("bad_key", f"{len(raw)} bytes are no Ed25519 key") from None

    @staticmethod
    def from_pem(pem: bytes) -> VerifyKey:
        """Return the key of a PEM file (SubjectPublicKeyInfo).

        Raises:
            SignatureError: it holds no Ed25519 key.
        """
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise SignatureError("bad_key", "not a public key in PEM form") from None
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError("bad_key", "not an Ed25519 key")
        return VerifyKey(key)

    def to_bytes(self) -> bytes:
        """Return the 32 raw bytes."""
        return self._key.public_bytes_raw()

    def to_pem(self) -> bytes:
        """Return the key as a PEM file."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> str:
        """The key's name: the first 16 hex digits of SHA-256 of its raw bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:KEY_ID_CHARACTERS]

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            SignatureError: `bad_signature`.
        """
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            raise SignatureError("bad_signature", f"not signed by key {self.key_id}") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs; its bytes never stand in its repr."""

    _key: Ed25519PrivateKey

    @staticmethod
    def generate() -> SigningKey:
        """Make a key from the operating system's entropy."""
        return SigningKey(Ed25519PrivateKey.generate())

    @staticmethod
    def from_bytes(raw: bytes) -> SigningKey:
        """Return the key of 32 raw bytes.

        Raises:
            SignatureError: they are no Ed25519 key.
        """
        try:
            return SigningKey(Ed25519PrivateKey.from_private_bytes(raw))
        except ValueError:
            raise SignatureError("bad_key", f"{len(raw)} bytes are no Ed25519 key") from None

    @staticmethod
    def from_pem(pem: bytes) -> SigningKey:
        """Return the key of a PEM file (PKCS 8, not encrypted).

        Raises:
            SignatureError: it holds no such key.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SignatureError("bad_key", "not an unencrypted private key in PEM form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureError("bad_key", "not an Ed25519 key")
        return SigningKey(key)

    def to_bytes(self) -> bytes:
        """Return the 32 raw bytes, which is what signs a model bundle too."""
        return self._key.private_bytes_raw()

    def to_pem(self) -> bytes:
        """Return the key as a PEM file; whoever holds it can sign."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of `data`."""
        return self._key.sign(data)


def sign_payload(payload: bytes, key: SigningKey) -> bytes:
    """Return the envelope of a payload, canonical and signed.

    Raises:
        MessageTooLargeError: it would not fit into a message.
    """
    envelope = canonical_json(
        {
            "alg": ALGORITHM,
            "body": _to_text(payload),
            "kid": key.verify_key.key_id,
            "sig": _to_text(key.sign(SIGNED_PREFIX + payload)),
        }
    )
    if len(envelope) > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(size=len(envelope), limit=MAX_PAYLOAD_BYTES)
    return envelope


def open_signed(envelope: bytes, trusted: Mapping[str, VerifyKey]) -> bytes:
    """Return the payload of an envelope whose signature holds.

    Args:
        envelope: what came over the wire.
        trusted: keys that may speak, by key id.

    Raises:
        WireError: it is no envelope.
        SignatureError: `unknown_key` or `bad_signature`; nothing in it may be believed.
    """
    key_id, signature, payload = signed_parts(envelope)
    key = trusted.get(key_id)
    if key is None:
        raise SignatureError("unknown_key", f"no trusted key has the id {key_id[:40]!r}")
    key.verify(signature, SIGNED_PREFIX + payload)
    return payload


def signed_parts(envelope: bytes) -> tuple[str, bytes, bytes]:
    """Take an envelope apart without believing it: key id, signature and payload.

    Raises:
        WireError: it is no envelope.
        SignatureError: `unknown_algorithm`.
    """
    fields = parse_object(envelope)
    parts = [fields.get(name) for name in ("alg", "kid", "body", "sig")]
    if not all(isinstance(part, str) for part in parts):
        raise WireError("not_an_envelope", "alg, kid, body and sig must be strings")
    algorithm, key_id, body, signature = (str(part) for part in parts)
    if algorithm != ALGORITHM:
        raise SignatureError("unknown_algorithm", f"only {ALGORITHM} is known")
    return key_id, _to_bytes(signature), _to_bytes(body)


def trusted_keys(*keys: VerifyKey) -> dict[str, VerifyKey]:
    """Return keys by their ids, as `open_signed` takes them."""
    return {key.key_id: key for key in keys}


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _to_bytes(text: str) -> bytes:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise WireError("not_an_envelope", "body and sig must be base64url") from None
    if _to_text(data) != text:
        # One payload has one envelope: surplus bits and padding are refused.
        raise WireError("not_an_envelope", "body and sig must be base64url without padding")
    return data
