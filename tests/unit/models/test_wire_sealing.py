"""Sealed messages: who can open them, and what an altered one leads to."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from models.wire.codec import encode
from models.wire.envelope import SIGNED_PREFIX, SigningKey, sign_payload, trusted_keys
from models.wire.errors import MessageTooLargeError, SealError, SignatureError, WireError
from models.wire.sealing import (
    PADDED_TO,
    SEALED_INFO,
    OpeningKey,
    SealKey,
    is_sealed,
    open_message,
    padded,
    seal_envelope,
)
from tests.support.examples import examples
from tests.support.wire_messages import notice

SERVER = SigningKey.from_bytes(bytes(range(32)))
TRUSTED = trusted_keys(SERVER.verify_key)
DEVICE = OpeningKey.from_bytes(bytes(range(64, 96)))
TOPIC = "fedcell/v1/00/d/device-1/dn/notify"
PAYLOAD = padded(encode(notice()))


def sealed(payload=PAYLOAD, *, signer=SERVER, to=DEVICE.seal_key, topic=TOPIC):
    return seal_envelope(sign_payload(payload, signer), to, topic=topic)


def opened(message, *, topic=TOPIC, trusted=TRUSTED, key=DEVICE):
    return open_message(message, topic=topic, trusted=trusted, opening_key=key)


def extract_and_expand(suite, *, salt, label, ikm, expansions):
    """LabeledExtract and LabeledExpand of RFC 9180, section 4, from HMAC alone."""
    prk = hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")
    return [
        hmac.digest(
            prk,
            length.to_bytes(2, "big") + b"HPKE-v1" + suite + name + context + b"\x01",
            hashlib.sha256,
        )[:length]
        for name, context, length in expansions
    ]


def opened_by_hand(message, secret, info):
    """RFC 9180, base mode, written out from its sections 4.1 and 5.1: the oracle."""
    enc, ciphertext = message[:32], message[32:]
    private = X25519PrivateKey.from_private_bytes(secret)
    public = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    (shared_secret,) = extract_and_expand(
        b"KEM\x00\x20",
        salt=b"",
        label=b"eae_prk",
        ikm=shared,
        expansions=[(b"shared_secret", enc + public, 32)],
    )
    suite = b"HPKE\x00\x20\x00\x01\x00\x03"
    context = b"\x00" + b"".join(
        hmac.digest(b"", b"HPKE-v1" + suite + label + value, "sha256")
        for label, value in ((b"psk_id_hash", b""), (b"info_hash", info))
    )
    key, nonce = extract_and_expand(
        suite,
        salt=shared_secret,
        label=b"secret",
        ikm=b"",
        expansions=[(b"key", context, 32), (b"base_nonce", context, 12)],
    )
    return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"")


def test_what_is_sealed_to_a_device_opens_there_and_is_what_was_signed():
    assert opened(sealed()) == PAYLOAD
    assert is_sealed(sealed())


def test_any_implementation_of_the_rfc_opens_a_sealed_message():
    message = sealed()

    inside = opened_by_hand(message[9:], bytes(range(64, 96)), SEALED_INFO + TOPIC.encode())

    SERVER.verify_key.verify(inside[8:72], SIGNED_PREFIX + inside[72:])
    assert inside[:8].hex() == SERVER.verify_key.key_id
    assert inside[72:] == PAYLOAD
    assert message[:9] == b"\x01" + bytes.fromhex(DEVICE.seal_key.key_id)


def test_signed_messages_of_servers_that_seal_nothing_open_as_before():
    assert opened(sign_payload(PAYLOAD, SERVER)) == PAYLOAD
    assert opened(sign_payload(PAYLOAD, SERVER), key=None) == PAYLOAD


def test_a_sealed_notice_says_nothing_in_the_clear_and_always_has_one_length():
    lengths = {
        len(sealed(padded(encode(notice(language=word))))) for word in ("de", "deu", "de-AT")
    }

    assert lengths == {641}
    assert len(PAYLOAD) % PADDED_TO == 0
    assert b"battery" not in sealed()
    assert sealed() != sealed()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (sealed(to=OpeningKey.from_bytes(bytes(32)).seal_key), "sealed_to_another_key"),
        (sealed(topic="elsewhere"), "bad_seal"),
        (sealed()[:-1], "bad_seal"),
        (sealed()[:30], "bad_seal"),
        (sealed()[:5], "sealed_to_another_key"),
        (sealed(signer=SigningKey.from_bytes(bytes(32))), "unknown_key"),
        (DEVICE.seal_key.seal(b"short", topic=TOPIC), "not_an_envelope"),
        (b"\x01" + bytes(5000), "oversize"),
        (b"\x02" + sealed()[1:], "not_json"),
    ],
)
def test_what_cannot_be_opened_or_believed_is_refused_with_its_reason(message, reason):
    with pytest.raises(WireError) as refused:
        opened(message)

    assert refused.value.reason == reason


def test_a_signature_for_another_payload_does_not_pass_inside_a_seal():
    inside = bytes.fromhex(SERVER.verify_key.key_id) + SERVER.sign(b"x") + PAYLOAD

    with pytest.raises(SignatureError, match="bad_signature"):
        opened(DEVICE.seal_key.seal(inside, topic=TOPIC))


def test_a_device_without_a_key_says_so():
    with pytest.raises(SealError, match="no_opening_key"):
        opened(sealed(), key=None)


def test_keys_come_back_from_their_bytes_and_hide_them():
    again = OpeningKey.from_bytes(DEVICE.to_bytes())

    assert again.seal_key.to_bytes() == DEVICE.seal_key.to_bytes()
    assert DEVICE.to_bytes().hex() not in repr(DEVICE)
    assert OpeningKey.generate().to_bytes() != OpeningKey.generate().to_bytes()
    with pytest.raises(SealError, match="bad_key"):
        SealKey.from_bytes(bytes(31))
    with pytest.raises(SealError, match="bad_key"):
        sealed(to=SealKey.from_bytes(bytes(32)))
    with pytest.raises(SealError, match="bad_key"):
        OpeningKey.from_bytes(bytes(5))


def test_what_no_device_can_hold_is_neither_sealed_nor_opened():
    with pytest.raises(MessageTooLargeError):
        sealed(b" " * 4000)


@settings(max_examples=examples(150))
@given(st.binary(max_size=200), st.integers(0, 640), st.integers(1, 255))
def test_no_bytes_lead_to_anything_but_a_wire_error(noise, position, flip):
    altered = bytearray(sealed())
    altered[position] ^= flip
    for message in (b"\x01" + noise, bytes(altered)):
        with pytest.raises(WireError):
            opened(message)
