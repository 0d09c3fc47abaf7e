"""Whatever a gateway says, a device's receiver neither raises nor keeps what is no step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.site_rounds.kept_step import STEP_FACT, kept_step
from edge_client.site_rounds.receiver import GatewayReceiver
from edge_client.site_rounds.settings import DeviceAt
from edge_client.telemetry_store import TelemetryStore
from models.wire.codec import canonical_json, encode, parse_object
from models.wire.envelope import VerifyKey, sign_payload, trusted_keys
from models.wire.site_rounds import CountOffer, MissingParts, StepRelease
from tests.property.test_agent_messages import JSON
from tests.support.edge_devices import NOW
from tests.support.examples import examples
from tests.support.site_devices import debited, site_store
from tests.support.site_power_cut import Gateway
from tests.support.training_tasks import KEYS, receipt_of, release_of

GATEWAY = Gateway(None)
SAID = {"grant": GATEWAY.grant(), "device": "device-1"}
OFFER = GATEWAY.offer_of()
GENUINE = [
    parse_object(encode(message))
    for message in (
        OFFER,
        CountOffer(
            **SAID,
            material="d" * 64,
            material_bytes=900,
            deadline_s=60,
            channel="metrics",
            index=3,
            cohort_size=100,
        ),
        MissingParts(**SAID, tag=OFFER.step("gateway-1").tag.hex(), parts=(0, 2)),
        StepRelease(**SAID, stream="s", index=0, entry=receipt_of(release_of()).entry),
    )
]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """One device for all examples: what one leaves behind, the next has to live with."""
    path = site_store(tmp_path_factory.mktemp("device"), days=2)
    counters, taken = AgentCounters(), []
    listener = Listener(
        path=path,
        device_id="device-1",
        trusted=trusted_keys(*(VerifyKey.from_bytes(key) for key in KEYS.values())),
        clock=lambda: NOW,
        counters=counters,
    )
    device_at = DeviceAt({"telemetry-db": str(path)}, KEYS)
    receiver = GatewayReceiver(
        listener,
        device_at=device_at,
        grant_time=lambda: NOW,
        changed=lambda: taken.append(1),
    )
    return path, receiver, counters, taken


@st.composite
def messages(draw):
    body = dict(draw(st.sampled_from(GENUINE)))
    inner = body["task"] = dict(body["task"]) if "task" in body else {}
    altered = draw(st.sampled_from([body, inner or body]))
    name = draw(st.sampled_from([*altered, "unknown"]))
    if draw(st.booleans()):
        altered.pop(name, None)
    else:
        altered[name] = draw(JSON)
    if not inner:
        body.pop("task", None)
    try:
        payload = canonical_json(body)
    except UnicodeEncodeError:
        payload = draw(st.binary(max_size=300))
    if draw(st.booleans()) or len(payload) > 2900:
        return draw(st.just(payload) | st.binary(max_size=300))
    return sign_payload(payload, GATEWAY.signing_key)


@settings(max_examples=examples(25))
@given(st.lists(messages(), min_size=1, max_size=5))
def test_no_message_of_a_gateway_stops_a_device(device, group):
    path, receiver, counters, taken = device
    before = len(taken) + sum(counters.refused.values())
    for message in group:
        receiver("t", message)

    assert len(taken) + sum(counters.refused.values()) - before == len(group)
    with TelemetryStore(path) as store:
        assert (store.fact(STEP_FACT) is None) == (kept_step(store) is None)
        assert store.outbox() == ()
    assert debited(path) == []
