"""Codecs: what is encoded comes back, and nothing but a WireError ever comes out of decoding."""

import json
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.wire import topics
from models.wire.codec import MAX_PAYLOAD_BYTES, canonical_json, specification
from models.wire.envelope import SigningKey, open_signed, sign_payload, trusted_keys
from models.wire.errors import WireError
from models.wire.fields import Choice, Flag, Moment, Text, Whole
from models.wire.messages import MESSAGES, decode, encode, schemas

VALIDATORS = {name: jsonschema.Draft202012Validator(body) for name, body in schemas().items()}
KEY = SigningKey.from_bytes(bytes(range(32)))
DEVICE_IDS = st.text(
    st.characters(codec="utf-8", exclude_characters="+#/\x7f", min_codepoint=0x21),
    min_size=1,
    max_size=16,
).filter(lambda text: not text.startswith(("$", topics.HUB_CLIENT_ID)))
MOMENTS = st.integers(0, 253_402_300_799).map(lambda second: datetime.fromtimestamp(second, UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def values_of(kind):
    match kind:
        case Choice():
            return st.sampled_from(list(kind.members))
        case Flag():
            return st.booleans()
        case Whole():
            return st.integers(kind.low, kind.high)
        case Moment():
            return MOMENTS
        case Text():
            return st.from_regex(kind.pattern, fullmatch=True).filter(
                lambda text: (
                    len(text) <= kind.max_length
                    and not any("\ud800" <= character <= "\udfff" for character in text)
                )
            )
    raise AssertionError(kind)


@st.composite
def messages(draw):
    message = draw(st.sampled_from(list(MESSAGES.values())))
    values = {
        name: draw(values_of(declared.kind))
        for name, (declared, required) in specification(message).items()
        if name != "device" and (required or draw(st.booleans()))
    }
    try:
        return message(device=draw(DEVICE_IDS), **values)
    except WireError:
        # Fields that contradict each other, or an id of more bytes than are allowed.
        return None


@given(messages())
def test_a_message_comes_back_and_fits_its_schema(message):
    if message is None:
        return
    payload = encode(message)

    assert decode(payload, type(message)) == message
    assert encode(decode(payload, type(message))) == payload
    assert VALIDATORS[message.TYPE].is_valid(json.loads(payload))


@given(st.binary(max_size=200))
def test_bytes_never_raise_anything_but_a_wire_error(payload):
    for message in MESSAGES.values():
        with pytest.raises(WireError):
            decode(payload, message)


@given(st.data(), st.sampled_from(list(MESSAGES.values())))
def test_json_of_any_shape_never_raises_anything_but_a_wire_error(data, message):
    names = [*specification(message), "type", "other"]
    body = data.draw(st.dictionaries(st.sampled_from(names), JSON)) | {"type": message.TYPE}

    with pytest.raises(WireError):
        decode(json.dumps(body).encode(), message)


@given(st.text())
def test_a_topic_is_taken_apart_or_refused(text):
    with pytest.raises(WireError):
        topics.parse(text)


@given(DEVICE_IDS, st.sampled_from(list(topics.Up)))
def test_every_device_has_its_topics(device, kind):
    if len(device.encode()) > topics.MAX_DEVICE_ID_BYTES:
        return
    topic = topics.up(device, kind)

    assert topics.parse(topic) == topics.DeviceTopic(device, kind)
    assert not set(topic) & set("+#\0")


@given(st.binary(max_size=2000))
def test_a_signed_payload_comes_back(payload):
    envelope = sign_payload(payload, KEY)

    assert len(envelope) <= MAX_PAYLOAD_BYTES
    assert open_signed(envelope, trusted_keys(KEY.verify_key)) == payload


@given(st.binary(max_size=200) | st.dictionaries(st.text(), JSON).map(lambda b: repr(b).encode()))
def test_what_is_no_envelope_never_raises_anything_but_a_wire_error(envelope):
    with pytest.raises(WireError):
        open_signed(envelope, trusted_keys(KEY.verify_key))


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(body):
    backwards = dict(reversed(list(body.items())))
    try:
        written = canonical_json(body)
    except UnicodeEncodeError:
        return

    assert canonical_json(backwards) == written
    assert json.loads(written) == body
