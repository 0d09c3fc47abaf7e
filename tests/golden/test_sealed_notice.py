"""A notice sealed once opens for ever."""

from models.wire.envelope import SigningKey, trusted_keys
from models.wire.messages import Notice, decode
from models.wire.sealing import OpeningKey, open_message
from tests.golden.make_sealed_notice import DEVICE_KEY_BYTES, FILE, SERVER_KEY_BYTES, TOPIC
from tests.support.wire_messages import notice


def test_a_notice_sealed_in_layout_1_opens_and_means_what_it_meant():
    payload = open_message(
        FILE.read_bytes(),
        topic=TOPIC,
        trusted=trusted_keys(SigningKey.from_bytes(SERVER_KEY_BYTES).verify_key),
        opening_key=OpeningKey.from_bytes(DEVICE_KEY_BYTES),
    )

    assert decode(payload, Notice) == notice()
