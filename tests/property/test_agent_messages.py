"""Whatever comes over the wire, a device's receivers neither raise nor keep what is no message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.link.config_receiver import ConfigurationReceiver
from edge_client.link.configuration import STOPPABLE, in_force
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.notice_receiver import NoticeReceiver
from edge_client.store.mailbox import Purpose
from models.wire.codec import canonical_json, parse_object
from models.wire.envelope import SigningKey, sign_payload, trusted_keys
from models.wire.messages import encode
from models.wire.sealing import OpeningKey, seal_envelope
from tests.support.edge_devices import NOW, new_store
from tests.support.examples import examples
from tests.support.wire_messages import configuration, notice

SERVER = SigningKey.from_bytes(bytes(range(32)))
OPENING = OpeningKey.from_bytes(bytes(range(64, 96)))
TOPIC = "t"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NOTICE, CONFIGURATION = parse_object(encode(notice())), parse_object(encode(configuration()))


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """One device for all examples: what one leaves behind, the next has to live with."""
    with new_store(tmp_path_factory.mktemp("device")) as store:
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        counters = AgentCounters()
        listener = Listener(
            path=store.path,
            device_id="device-1",
            trusted=trusted_keys(SERVER.verify_key),
            clock=lambda: NOW,
            counters=counters,
            opening_key=OPENING,
        )
        notices = NoticeReceiver(listener, wake=lambda: None)
        configurations = ConfigurationReceiver(listener, changed=lambda: None)
        yield store, notices, configurations, counters


@st.composite
def altered(draw, genuine):
    """A message of the server's with one field exchanged, added or taken away."""
    body = dict(genuine)
    name = draw(st.sampled_from([*genuine, "unknown"]))
    if draw(st.booleans()):
        body.pop(name, None)
    else:
        body[name] = draw(JSON)
    return body


@st.composite
def messages(draw):
    body = draw(altered(NOTICE) | altered(CONFIGURATION) | JSON)
    try:
        payload = canonical_json(body)
    except UnicodeEncodeError:
        payload = draw(st.binary(max_size=300))
    shape = draw(st.sampled_from(["bare", "signed", "sealed", "noise"]))
    if shape == "noise" or len(payload) > 2000:
        return draw(st.binary(max_size=300))
    if shape == "bare":
        return payload
    envelope = sign_payload(payload, SERVER)
    return envelope if shape == "signed" else seal_envelope(envelope, OPENING.seal_key, topic=TOPIC)


@settings(max_examples=examples(50))
@given(st.lists(messages(), min_size=1, max_size=5))
def test_no_message_stops_a_device(device, group):
    store, notices, configurations, counters = device
    looked_at = sum(counters.refused.values()) + counters.repeated + counters.configurations
    kept = len(store.notices())
    notices.take([(TOPIC, message) for message in group])
    for message in group:
        configurations(TOPIC, message)
    looked_at_now = sum(counters.refused.values()) + counters.repeated + counters.configurations

    assert looked_at_now - looked_at + len(store.notices()) - kept == 2 * len(group)
    assert all(kept.message_id and kept.sequence >= 0 for kept in store.notices())
    assert set(in_force(store)) <= {*STOPPABLE, "sequence", "received_at", "predict_every_h"}
    assert all(said.granted for said in store.consents().values())
