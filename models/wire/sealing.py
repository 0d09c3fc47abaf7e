"""Sealed payloads: signed by the server first, then readable by one device alone.

A sealed message is binary, which no JSON text can be taken for:

    byte 0         1, the version of this layout
    bytes 1 to 8   which key it is sealed to: the first 8 bytes of SHA-256 of the raw public key
    the rest       HPKE in one shot (RFC 9180, base mode): encapsulated key (32 bytes), ciphertext

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. `info` is a fixed prefix and
the topic: what was sealed for one topic opens under no other. (The single shot of `cryptography`
takes no associated data; `info` enters the key schedule and binds as well.) Inside stand the id of
the signing key (8 bytes), the Ed25519 signature (64 bytes) of `SIGNED_PREFIX` and the payload, as
in an envelope, and the payload, padded with spaces to a multiple of 256 bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from .codec import MAX_PAYLOAD_BYTES
from .envelope import KEY_ID_CHARACTERS, SIGNED_PREFIX, open_signed, signed_parts
from .errors import MessageTooLargeError, SealError, SignatureError, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .envelope import VerifyKey

SEALED_INFO = b"fedcell/v1/sealed\n"
LAYOUT = b"\x01"
PADDED_TO = 256
KEY_BYTES = 32
KEY_ID_BYTES = KEY_ID_CHARACTERS // 2
SIGNATURE_BYTES = 64
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


@dataclass(frozen=True, slots=True)
class SealKey:
    """The public half of a device's key: whoever has it can seal to the device."""

    _key: X25519PublicKey

    @staticmethod
    def from_bytes(raw: bytes) -> SealKey:
        """Return the key of 32 raw bytes.

        Raises:
            SealError: `bad_key`.
        """
        try:
            return SealKey(X25519PublicKey.from_public_bytes(raw))
        except ValueError:
            raise SealError("bad_key", f"{len(raw)} bytes are no X25519 key") from None

    def to_bytes(self) -> bytes:
        """Return the 32 raw bytes."""
        return self._key.public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The key's name: the first 16 hex digits of SHA-256 of its raw bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:KEY_ID_CHARACTERS]

    def seal(self, plaintext: bytes, *, topic: str) -> bytes:
        """Return what only the device can read, and only as a message on this topic.

        Raises:
            SealError: `bad_key`: the key is one of the few points that hide nothing.
        """
        try:
            ciphertext = SUITE.encrypt(plaintext, self._key, SEALED_INFO + topic.encode())
        except (ValueError, InvalidTag):
            raise SealError("bad_key", f"nothing can be sealed to {self.key_id}") from None
        return LAYOUT + bytes.fromhex(self.key_id) + ciphertext


@dataclass(frozen=True, slots=True)
class OpeningKey:
    """The private half, which never leaves its device; its bytes never stand in its repr."""

    _key: X25519PrivateKey

    @staticmethod
    def generate() -> OpeningKey:
        """Make a key from the operating system's entropy."""
        return OpeningKey(X25519PrivateKey.generate())

    @staticmethod
    def from_bytes(raw: bytes) -> OpeningKey:
        """Return the key of 32 raw bytes.

        Raises:
            SealError: `bad_key`.
        """
        try:
            return OpeningKey(X25519PrivateKey.from_private_bytes(raw))
        except ValueError:
            raise SealError("bad_key", f"{len(raw)} bytes are no X25519 key") from None

    def to_bytes(self) -> bytes:
        """Return the 32 raw bytes; whoever has them can read what is sealed to the device."""
        return self._key.private_bytes_raw()

    @property
    def seal_key(self) -> SealKey:
        """The public half."""
        return SealKey(self._key.public_key())

    def open(self, sealed: bytes, *, topic: str) -> bytes:
        """Return what was sealed to this key for this topic.

        Raises:
            SealError: `sealed_to_another_key`, or `bad_seal`: it was altered, cut, or made for
                another topic.
        """
        header = len(LAYOUT) + KEY_ID_BYTES
        if sealed[len(LAYOUT) : header].hex() != self.seal_key.key_id:
            raise SealError("sealed_to_another_key", f"this device's is {self.seal_key.key_id}")
        try:
            return SUITE.decrypt(sealed[header:], self._key, SEALED_INFO + topic.encode())
        except (InvalidTag, ValueError):
            raise SealError("bad_seal", "it was altered, or sealed for another topic") from None


def is_sealed(message: bytes) -> bool:
    """Tell whether a message is sealed; an envelope, which is JSON, never is."""
    return message.startswith(LAYOUT)


def seal_envelope(envelope: bytes, key: SealKey, *, topic: str) -> bytes:
    """Seal what `sign_payload` has made.

    Args:
        envelope: a signed envelope.
        key: of the device.
        topic: on which the message will travel.

    Raises:
        WireError: it is no envelope.
        SealError: nothing can be sealed to this key.
        MessageTooLargeError: sealed, it would not fit into a message.
    """
    signer, signature, payload = signed_parts(envelope)
    sealed = key.seal(bytes.fromhex(signer) + signature + payload, topic=topic)
    if len(sealed) > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(size=len(sealed), limit=MAX_PAYLOAD_BYTES)
    return sealed


def padded(payload: bytes) -> bytes:
    """Fill a JSON payload with spaces, so that the length of what is sealed says little."""
    return payload.ljust(-(-len(payload) // PADDED_TO) * PADDED_TO)


def open_message(
    message: bytes, *, topic: str, trusted: Mapping[str, VerifyKey], opening_key: OpeningKey | None
) -> bytes:
    """Return the payload of a message from the server: sealed and signed, or signed alone.

    Args:
        message: what came over the wire.
        topic: on which it came.
        trusted: keys that may speak, by key id.
        opening_key: the device's own; None where it has no identity.

    Raises:
        WireError: it is neither.
        SealError: it cannot be opened here.
        SignatureError: nobody who is trusted said it.
    """
    if len(message) > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(size=len(message), limit=MAX_PAYLOAD_BYTES)
    if not is_sealed(message):
        return open_signed(message, trusted)
    if opening_key is None:
        raise SealError("no_opening_key", "it is sealed, and this device has no key to open it")
    inside = opening_key.open(message, topic=topic)
    head = KEY_ID_BYTES + SIGNATURE_BYTES
    if len(inside) < head:
        raise WireError("not_an_envelope", "too short for a signature")
    signer, signature, payload = (
        inside[:KEY_ID_BYTES].hex(),
        inside[KEY_ID_BYTES:head],
        inside[head:],
    )
    key = trusted.get(signer)
    if key is None:
        raise SignatureError("unknown_key", f"no trusted key has the id {signer!r}")
    key.verify(signature, SIGNED_PREFIX + payload)
    return payload
