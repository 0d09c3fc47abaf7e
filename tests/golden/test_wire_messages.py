"""Messages of schema version 1, as recorded, load for ever and mean the same."""

import pytest

from models.wire.announcements import decode_announcement
from models.wire.envelope import SigningKey, open_signed, trusted_keys
from models.wire.messages import Configuration, Notice, decode, encode
from tests.golden.make_wire_messages import FOLDER, KEY_BYTES
from tests.support.wire_messages import announcement, configuration, notice, one_of_each


@pytest.mark.parametrize("message", one_of_each(), ids=lambda message: message.TYPE)
def test_a_recorded_message_means_what_it_meant(message):
    payload = (FOLDER / f"{message.TYPE}_v1.json").read_bytes()

    assert decode(payload, type(message)) == message
    assert encode(message) == payload


def test_a_recorded_signature_holds():
    envelope = (FOLDER / "signed_notice_v1.json").read_bytes()
    trusted = trusted_keys(SigningKey.from_bytes(KEY_BYTES).verify_key)

    assert decode(open_signed(envelope, trusted), Notice) == notice()


def test_a_recorded_ring_means_what_it_meant():
    payload = (FOLDER / "configuration_ring_v1.json").read_bytes()

    assert decode(payload, Configuration) == configuration(ring="canary")
    assert encode(configuration(ring="canary")) == payload


def test_a_recorded_announcement_means_what_it_meant():
    payload = (FOLDER / "release_v1.json").read_bytes()
    envelope = (FOLDER / "signed_release_v1.json").read_bytes()
    trusted = trusted_keys(SigningKey.from_bytes(KEY_BYTES).verify_key)

    assert decode_announcement(payload) == announcement()
    assert encode(announcement()) == payload
    assert open_signed(envelope, trusted) == payload
