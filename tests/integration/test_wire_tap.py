"""Everything that leaves a device, to the byte, stands on the page that says what leaves."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.common.serde import message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto

import edge_client.flower_app
from edge_client.agent import AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId, Reading
from models.training.local_epochs import new_flat_weights
from models.wire.codec import encode
from models.wire.counts import COUNTS_RECORD, Bins
from models.wire.envelope import SigningKey
from models.wire.messages import NoticeState, recognise
from models.wire.rounds import DeviceReceipt, LocalRecipe
from privacy import CountAnswer, Participation
from server.broker import BrokerKind, running_broker
from server.config import ServerConfig
from server.counts.run_counts import CountsPlan, DriftReference
from server.engine.flower_messages import ask_for_devices
from server.engine.rounds import RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.hub_process import connected_hub
from server.runs.folder import RunFolder
from server.signer import load_signer, make_key_file
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.flaky_network import relay_to
from tests.support.flower_grid import GridInMemory
from tests.support.line_bundle import trusted_keys, write_line_bundle
from tests.support.wire_tap import (
    CONNECT,
    LINK_PACKETS,
    PUBLISH,
    named_on_the_page,
    packets_in,
    will_of,
)

NAMED = named_on_the_page()
REFERENCE = DriftReference((Bins("health_margin", (0.5,)),), {"health_margin": (0.2, 0.7, 0.1)})


def require_named(topic, payload):
    """Hold one payload against the page: its kind, its fields, and not a byte beside them."""
    body = json.loads(payload)
    kind = body.pop("type")
    assert set(body) <= NAMED[kind], (kind, set(body) - NAMED[kind])
    assert topic.split("/")[-2] == "up"
    assert encode(recognise(topic, payload)) == payload
    return kind


@pytest.mark.broker
def test_every_byte_of_a_device_on_mqtt_is_on_the_page(tmp_path):
    make_key_file(tmp_path / "key.pem")
    key = load_signer(tmp_path / "key.pem").verify_key
    store_path = tmp_path / "device.db"
    with TelemetryStore.create(
        store_path, profile=replace(PROFILE, device_id=DeviceId("tapped"))
    ) as store:
        store.record_many(fading_life(last_capacity_mah=2410.0), now=NOW)
        for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
            store.set_consent(purpose, granted=True, now=NOW)
    with (
        running_broker(tmp_path / "broker", kind=BrokerKind.MOSQUITTO) as broker,
        relay_to(broker.host, broker.port) as wire,
    ):
        config = ServerConfig(
            db=f"sqlite:///{tmp_path / 'hub.db'}",
            broker=f"{broker.host}:{broker.port}",
            key=tmp_path / "key.pem",
            human_contact="0800 123 456",
        )
        stop = threading.Event()
        with connected_hub(config, clock=lambda: NOW) as hub:
            working = threading.Thread(target=hub.run, args=(stop,))
            working.start()
            bundle = write_line_bundle(tmp_path / "line.zip")
            with EdgeClient(store_path, bundle, trusted_keys=trusted_keys()) as client:
                run_agent(
                    client,
                    broker=(wire.host, wire.port),
                    server_keys={key.key_id: key.to_bytes()},
                    plan=AgentPlan(
                        until=Until.ACKED, timeout_s=15.0, answer=NoticeState.ACCEPTED, poll_s=0.1
                    ),
                    clock=lambda: NOW,
                    on_start=lambda _agent: None,
                    on_report=lambda _report: None,
                    show=lambda _id, _shown: None,
                )
            stop.set()
            working.join()
        packets = packets_in(wire.sent_up)

    assert {packet.kind for packet in packets} <= LINK_PACKETS | {PUBLISH}
    published = [packet for packet in packets if packet.kind == PUBLISH]
    wills = [will_of(packet) for packet in packets if packet.kind == CONNECT]
    kinds = [require_named(packet.topic, packet.payload) for packet in published]
    assert [require_named(*will) for will in wills] == ["status"] * len(wills)
    assert {"summary", "ack", "birth", "status"} <= set(kinds)


class TappedNode:
    """A real ClientApp over a real store; keeps the bytes of each answer as Flower carries them."""

    def __init__(self, store, *, policy_keys):
        self.context = Context(
            run_id=1,
            node_id=1,
            node_config={
                "telemetry-db": str(store),
                "power-supplies": "/nowhere",
                "policy-keys": str(policy_keys),
            },
            state=RecordDict(),
            run_config={},
        )
        self.sent = []

    def __call__(self, message):
        reply = edge_client.flower_app.app(message=message, context=self.context)
        assert not reply.has_error()
        self.sent.append(message_to_proto(reply).SerializeToString())
        return [reply.content]


def require_round_named(sent):
    """Hold the bytes of one answer against the page, and make them again from what it names."""
    proto = MessageProto.FromString(sent)
    envelope = {field.name: value for field, value in proto.metadata.ListFields()}
    assert set(envelope) <= NAMED["envelope of an answer"], envelope
    content = recorddict_from_proto(proto.content)
    named = NAMED["count answer" if COUNTS_RECORD in content else "round contribution"]
    leaves = {}
    for record in content.values():
        for name, value in record.items():
            assert name in named, name
            leaves[name] = value
    again = MessageProto()
    for name, value in envelope.items():
        setattr(again.metadata, name, value)
    again.content.CopyFrom(recorddict_to_proto(content))
    assert again.SerializeToString() == sent
    return leaves


def test_every_byte_of_a_device_in_rounds_is_on_the_page(tmp_path):
    now = datetime.now(UTC)
    store_path = tmp_path / "device.db"
    with TelemetryStore.create(
        store_path, profile=replace(PROFILE, device_id=DeviceId("tapped"))
    ) as store:
        readings = [
            Reading(at=now - timedelta(days=300 - day), full_charge_capacity_mah=2900.0 - day)
            for day in range(300)
        ]
        store.record_many(readings, now=now)
        store.set_consent(Purpose.TRAINING, granted=True, now=now)
    key = SigningKey.from_bytes(bytes(range(32)))
    keys = tmp_path / "policy-keys.json"
    keys.write_text(json.dumps({key.verify_key.key_id: key.verify_key.to_bytes().hex()}))
    node = TappedNode(store_path, policy_keys=keys)
    grid = GridInMemory({1: node})
    run = PlannedRun(
        config=RoundsConfig(
            stream="tapped-stream",
            num_rounds=2,
            cohort_size=1,
            clipping_norm=1.0,
            epsilon=8.0,
            delta=1e-5,
            recipe=LocalRecipe(least_rows=1),
            deadline_s=5.0,
            update_share=0.85,
        ),
        folder=RunFolder(tmp_path / "run"),
        start=new_flat_weights(seed=1),
        signing_key=key,
        counts=CountsPlan(drift=REFERENCE, asks_similar_devices=True),
    )
    stop = threading.Event()
    roster = ask_for_devices(grid, num_nodes=1, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: now)

    answers = [require_round_named(sent) for sent in node.sent]
    assert [set(answer) for answer in answers[:1]] == [{"device_ids"}]
    counts = [answer for answer in answers if "channel" in answer]
    assert [answer["channel"] for answer in counts] == ["drift", "similar_devices"]
    for answer in counts:
        assert set(answer) == NAMED["count answer"]
        assert answer["flat"].numpy().tolist().count(1) == 1
        assert set(answer["flat"].numpy().tolist()) == {0, 1}
    updates = [answer for answer in answers if "flat" in answer and "channel" not in answer]
    assert len(updates) == 2
    for answer in updates:
        assert answer["flat"].numpy().dtype == np.int64
        (receipt,) = map(DeviceReceipt.from_line, answer["receipts"])
        assert receipt.pseudonym != "tapped"
        assert set(json.loads(answer["receipts"][0])) == {
            "pseudonym",
            "participations",
            "mu_squared",
            "head",
        }
    assert any(np.any(answer["flat"].numpy()) for answer in updates)
    known = ({"device_ids"}, set(), set(updates[0]), NAMED["count answer"])
    assert all(set(answer) in known for answer in answers)
    with TelemetryStore(store_path) as store:
        events = read_device_ledger(store.path, store).events
    assert sum(isinstance(event, Participation) for event in events) == 2
    assert sum(isinstance(event, CountAnswer) for event in events) == 2
