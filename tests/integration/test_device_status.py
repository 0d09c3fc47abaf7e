"""`fedcell-device status`, and what an agent notes for it: a device that has talked, seen whole."""

import json
from dataclasses import replace

import pytest

from edge_client.agent import AgentParts
from edge_client.cli import main
from edge_client.errors import CloneError
from edge_client.link.presence import birth_payload
from edge_client.provisioning.first_boot import add_identity
from edge_client.provisioning.identity import read_identity
from edge_client.store.mailbox import Mailbox, Purpose
from edge_client.telemetry_store import TelemetryStore
from edge_client.updates.slots import Refusal
from models.wire.codec import decode, encode
from models.wire.envelope import sign_payload
from models.wire.messages import Birth, ModelRefusal, Status
from models.wire.sealing import padded, seal_envelope
from models.wire.topics import Down, down
from tests.integration.test_link_faults import KEY, RunningAgent, Server
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store
from tests.support.line_bundle import write_line_bundle
from tests.unit.edge_client.test_notices import a_notice

HARDWARE, OTHER_HARDWARE = b"3d1219c7c4c5404aaa1f6d2a48adfda4", b"0f0e0d0c0b0a0908"
STORE_KEY = bytes(range(100, 132))


def store_key():
    return STORE_KEY


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "device.db"
    with TelemetryStore.create(path, profile=PROFILE, key=store_key) as store:
        store.record_many(fading_life(), now=NOW)
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        add_identity(store, hardware_id=HARDWARE)
    return path


@pytest.fixture
def status(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FEDCELL_DEVICE_CONFIG", raising=False)
    hardware, key = tmp_path / "machine-id", tmp_path / "key"
    hardware.write_bytes(HARDWARE)
    key.write_bytes(STORE_KEY)
    key.chmod(0o600)
    place = ["--store", str(tmp_path / "device.db"), "--hardware-id-file", str(hardware)]
    place += ["--store-key", str(key), "--now", NOW.isoformat()]

    def call(*arguments):
        assert main(["status", *arguments, *place]) == 0
        return capsys.readouterr().out

    call.hardware = hardware
    return call


@pytest.mark.broker
def test_a_device_that_has_talked_is_seen_whole(path, status, tmp_path):
    """Sealed store, sealed notice, real broker: each part of the state is what happened."""
    bundle = write_line_bundle(tmp_path / "line.zip")
    topic = down("device-1", Down.NOTIFY)
    seal_key = read_identity(path).opening_key.seal_key
    envelope = sign_payload(padded(encode(replace(a_notice(), id=f"{1:032x}"))), KEY)
    parts = AgentParts(hardware_id=HARDWARE, store_key=store_key)
    with mosquitto_in(tmp_path) as broker, Server(broker) as server:
        with RunningAgent(path, bundle, broker, parts=parts) as device:
            server.send(b"poison")
            server.send(seal_envelope(envelope, seal_key, topic=topic))
            assert wait_until(lambda: server.acked() == {1})
        assert wait_until(lambda: len(server.messages(Status)) >= 2)
    assert device.shown == [f"{1:032x}"]

    told = json.loads(status("--json"))
    assert told["identity"]["state"] == "bound"
    assert told["store"]["sealed"] is True
    assert told["last_prediction"]["status"] == "ok"
    assert told["last_prediction"]["model_version"].startswith("line-")
    assert told["consents"]["notices"] == {"granted": True, "in_force": True}
    assert told["configuration"] is None
    assert told["refused"] == {"readings": {}, "messages": {"not_json": 1}}
    link = told["link"]
    assert (link["waiting"], link["bytes_per_day"], link["is_over_budget"]) == (0, 65_536, False)
    assert link["connected_at"] == NOW.isoformat()
    kinds = {(one["day"], one["direction"], one["kind"]) for one in link["traffic"]}
    assert (f"{NOW:%Y-%m-%d}", "down", "notify") in kinds
    assert link["bytes_today"] == sum(one["bytes"] for one in link["traffic"])
    text = status()
    assert "consents       training, summaries, notices" in text
    assert "refused        not_json 1" in text


def test_the_owner_sees_what_is_stopped(path, status):
    with Mailbox(path, key=store_key) as mailbox:
        mailbox.keep_fact(
            "configuration",
            {
                "sequence": 7,
                "received_at": "2026-05-01T00:00:00+00:00",
                "training": False,
                "predict_every_h": 48,
            },
        )
    told = json.loads(status("--json"))
    assert told["consents"]["training"] == {"granted": True, "in_force": False}
    assert told["configuration"]["stopped"] == ["training"]
    text = status()
    assert "training (stopped from afar)" in text
    assert "training stopped, a prediction every 48 h (since 2026-05-01" in text


def test_a_copy_says_that_it_is_one(path, status):
    status.hardware.write_bytes(OTHER_HARDWARE)
    told = json.loads(status("--json"))
    assert told["identity"]["state"] == "refused"
    assert "this is a copy" in told["identity"]["what"]


def test_an_agent_on_other_hardware_says_nothing_at_all(path, tmp_path):
    agent = RunningAgent(
        path,
        tmp_path / "unread.zip",
        Nowhere(),
        parts=AgentParts(hardware_id=OTHER_HARDWARE, store_key=store_key),
    )
    agent._run()
    assert isinstance(agent.error, CloneError)


class Nowhere:
    """A broker that nobody shall get as far as asking."""

    host, port = "127.0.0.1", 1


def birth_of(store, refusal=None):
    payload = birth_payload(
        store, device_id="device-1", model_version="1.0.0", refusal=refusal, now=NOW
    )
    assert len(payload) == Birth.PADDED_BYTES
    return decode(payload, Birth)


def test_birth_tells_of_a_refused_model_and_the_configuration_in_force(tmp_path):
    with new_store(tmp_path) as store:
        nothing = birth_of(store)
        store.keep_fact("configuration", {"sequence": 9, "training": False})
        refused = birth_of(store, Refusal("1.2.0", "golden", "differs", "2026-05-01T00:00:00Z"))
        strange = birth_of(store, Refusal("no version at all", "new_rule", "?", ""))
    assert (nothing.refused_model, nothing.configuration_sequence) == (None, None)
    assert (refused.refused_model, refused.refused_because) == ("1.2.0", ModelRefusal.GOLDEN)
    assert refused.configuration_sequence == 9
    assert (strange.refused_model, strange.refused_because) == ("unnamed", ModelRefusal.OTHER)


def test_every_reason_of_a_refusal_can_be_told():
    from edge_client.updates.slots import RefusalReason

    assert {reason.value for reason in RefusalReason} <= {code.value for code in ModelRefusal}
