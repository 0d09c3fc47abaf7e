import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from models.wire.envelope import (
    SIGNED_PREFIX,
    SigningKey,
    VerifyKey,
    open_signed,
    sign_payload,
    trusted_keys,
)
from models.wire.errors import MessageTooLargeError, SignatureError, WireError

KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(32))
TRUSTED = trusted_keys(KEY.verify_key)
PAYLOAD = b'{"type":"notice"}'


def altered(envelope: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(envelope) | changes).encode()


def test_a_signed_payload_comes_back_as_it_was():
    assert open_signed(sign_payload(PAYLOAD, KEY), TRUSTED) == PAYLOAD


def test_any_ed25519_implementation_can_check_an_envelope():
    envelope = json.loads(sign_payload(PAYLOAD, KEY))
    public = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    body = base64.urlsafe_b64decode(envelope["body"] + "==")

    public.verify(base64.urlsafe_b64decode(envelope["sig"] + "=="), SIGNED_PREFIX + body)

    assert body == PAYLOAD
    assert envelope["alg"] == "ed25519"


def test_signing_is_deterministic():
    assert sign_payload(PAYLOAD, KEY) == sign_payload(PAYLOAD, KEY)


@pytest.mark.parametrize(
    ("envelope", "error", "reason"),
    [
        (sign_payload(PAYLOAD, OTHER), SignatureError, "unknown_key"),
        (altered(sign_payload(PAYLOAD, KEY), body="e30"), SignatureError, "bad_signature"),
        (
            altered(sign_payload(PAYLOAD, OTHER), kid=KEY.verify_key.key_id),
            SignatureError,
            "bad_signature",
        ),
        (altered(sign_payload(PAYLOAD, KEY), sig="AAAA"), SignatureError, "bad_signature"),
        (altered(sign_payload(PAYLOAD, KEY), alg="none"), SignatureError, "unknown_algorithm"),
        (altered(sign_payload(PAYLOAD, KEY), kid=7), WireError, "not_an_envelope"),
        (altered(sign_payload(PAYLOAD, KEY), body="e30="), WireError, "not_an_envelope"),
        (altered(sign_payload(PAYLOAD, KEY), body="e31"), WireError, "not_an_envelope"),
        (altered(sign_payload(PAYLOAD, KEY), body="e+0"), WireError, "not_an_envelope"),
        (altered(sign_payload(PAYLOAD, KEY), body="é"), WireError, "not_an_envelope"),
        (PAYLOAD, WireError, "not_an_envelope"),
        (b"no json", WireError, "not_json"),
    ],
)
def test_what_is_not_signed_by_a_trusted_key_is_refused(envelope, error, reason):
    with pytest.raises(error) as refused:
        open_signed(envelope, TRUSTED)

    assert refused.value.reason == reason


def test_every_altered_byte_of_an_envelope_is_noticed():
    envelope = sign_payload(PAYLOAD, KEY)
    accepted = []
    for place in range(len(envelope)):
        damaged = bytearray(envelope)
        damaged[place] ^= 1
        try:
            accepted.append((place, open_signed(bytes(damaged), TRUSTED)))
        except WireError:
            continue

    assert accepted == []


def test_an_envelope_that_would_not_fit_is_not_made():
    with pytest.raises(MessageTooLargeError):
        sign_payload(b"x" * 4000, KEY)


def test_keys_survive_their_files():
    again = SigningKey.from_pem(KEY.to_pem())

    assert again.to_bytes() == bytes(range(32))
    assert VerifyKey.from_pem(KEY.verify_key.to_pem()).to_bytes() == KEY.verify_key.to_bytes()
    assert VerifyKey.from_bytes(KEY.verify_key.to_bytes()).key_id == KEY.verify_key.key_id


def test_other_keys_are_refused():
    foreign = x25519.X25519PrivateKey.generate()
    private = foreign.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = foreign.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    for make, content in (
        (SigningKey.from_pem, private),
        (SigningKey.from_pem, b"nothing"),
        (SigningKey.from_bytes, b"short"),
        (VerifyKey.from_pem, public),
        (VerifyKey.from_pem, b"nothing"),
        (VerifyKey.from_bytes, b"short"),
    ):
        with pytest.raises(SignatureError) as refused:
            make(content)
        assert refused.value.reason == "bad_key"


def test_a_key_does_not_show_itself():
    assert KEY.to_bytes().hex() not in repr(KEY)
    assert "private" not in repr(KEY).lower() or "object at" in repr(KEY)
