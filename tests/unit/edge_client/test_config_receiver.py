"""The server's configuration on a device: who is believed, what it narrows, and for how long."""

from datetime import timedelta

import pytest

from edge_client.errors import StoppedError, StoreBusyError
from edge_client.link.config_receiver import ConfigurationReceiver
from edge_client.link.configuration import (
    CONFIGURATION_FACT,
    allowed,
    in_force,
    require_prediction,
    stopped,
)
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.store.mailbox import Mailbox, Purpose
from models.telemetry import DeviceId
from models.wire.codec import canonical_json, encode, parse_object
from models.wire.envelope import SigningKey, sign_payload, trusted_keys
from models.wire.errors import DeliverAgainError
from models.wire.sealing import OpeningKey, padded, seal_envelope
from models.wire.topics import Down, down
from tests.support.edge_devices import NOW, new_store
from tests.support.wire_messages import configuration, notice

SERVER = SigningKey.from_bytes(bytes(range(32)))
STRANGER = SigningKey.from_bytes(bytes(32))
OPENING = OpeningKey.from_bytes(bytes(range(64, 96)))
TOPIC = down("device-1", Down.CONFIG)


class Configured:
    """A device that takes configurations."""

    def __init__(self, store):
        self.store = store
        self.now = NOW
        self.changes = 0
        self.counters = AgentCounters()
        self.receive = ConfigurationReceiver(
            Listener(
                path=store.path,
                device_id="device-1",
                trusted=trusted_keys(SERVER.verify_key),
                clock=lambda: self.now,
                counters=self.counters,
                opening_key=OPENING,
            ),
            changed=self.changed,
        )

    def changed(self):
        self.changes += 1

    def hears(self, *, key=SERVER, **fields):
        self.receive(TOPIC, sign_payload(encode(configuration(**fields)), key))


@pytest.fixture
def device(tmp_path):
    with new_store(tmp_path) as store:
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        yield Configured(store)


def test_a_configuration_stops_what_it_names_and_is_kept(device, tmp_path):
    device.hears(training=False, notices=False, predict_every_h=48)

    assert stopped(device.store) == ("training", "notices")
    assert in_force(device.store)["predict_every_h"] == 48
    assert [allowed(device.store, purpose) for purpose in Purpose] == [False, True, False]
    assert all(said.granted for said in device.store.consents().values())
    with Mailbox(tmp_path / "device.db") as again:
        assert stopped(again) == ("training", "notices")
    assert device.changes == 1


def test_it_can_only_narrow_what_the_owner_gave(device):
    device.store.set_consent(Purpose.SUMMARIES, granted=False, now=NOW)
    device.hears(training=True, summaries=True)

    assert not allowed(device.store, Purpose.SUMMARIES)
    assert stopped(device.store) == ()


def test_the_next_one_takes_its_place_and_the_owners_word_counts_again(device):
    device.hears(training=False)
    device.hears(sequence=2, training=None)

    assert allowed(device.store, Purpose.TRAINING)
    assert in_force(device.store)["sequence"] == 2


def test_one_that_comes_again_changes_nothing_and_an_older_one_is_a_replay(device):
    device.hears(sequence=5)
    device.hears(sequence=5)
    device.hears(sequence=4, training=None)

    assert stopped(device.store) == ("training",)
    assert device.counters.refused == {"replayed": 1}
    assert device.counters.configurations == 2


def test_an_expired_one_is_refused_with_tolerance_and_one_in_force_stays(device):
    late = configuration().expires + timedelta(days=1, seconds=1)
    device.now = late
    device.hears()
    assert (stopped(device.store), device.counters.refused) == ((), {"expired": 1})
    device.now = late - timedelta(hours=1)
    device.hears()
    device.now = late + timedelta(days=4000)
    assert stopped(device.store) == ("training",)


def test_strangers_other_devices_and_other_messages_are_refused(device):
    device.hears(key=STRANGER)
    device.hears(device=DeviceId("device-2"))
    device.receive(TOPIC, sign_payload(encode(notice()), SERVER))
    device.receive(TOPIC, b"\xff")

    assert in_force(device.store) == {}
    assert device.counters.refused == {
        "unknown_key": 1,
        "foreign_device": 1,
        "wrong_type": 1,
        "not_json": 1,
    }
    assert device.changes == 0


def test_a_sealed_one_is_opened_for_its_own_topic_alone(device):
    envelope = sign_payload(padded(encode(configuration())), SERVER)
    sealed = seal_envelope(envelope, OPENING.seal_key, topic=TOPIC)
    device.receive(down("device-1", Down.NOTIFY), sealed)
    assert device.counters.refused == {"bad_seal": 1}
    device.receive(TOPIC, sealed)
    assert stopped(device.store) == ("training",)


def test_fields_of_later_versions_are_ignored(device):
    body = parse_object(encode(configuration())) | {"schema_version": 2, "self_destruct": True}
    device.receive(TOPIC, sign_payload(canonical_json(body), SERVER))

    assert set(in_force(device.store)) == {"sequence", "received_at", "training"}


def test_what_waits_under_a_stopped_purpose_no_longer_leaves(device):
    device.store.put_out(Purpose.SUMMARIES, "t/summary", b"s")
    device.store.put_out(Purpose.NOTICES, "t/ack", b"a")
    device.hears(training=None, summaries=False)

    assert [message.payload for message in device.store.outbox()] == [b"a"]


def test_values_in_the_store_that_cannot_be_are_left_out(device):
    device.store.keep_fact(
        CONFIGURATION_FACT,
        {"sequence": 3, "training": "no", "prediction": False, "predict_every_h": 10_000},
    )
    assert stopped(device.store) == ("prediction",)
    assert "predict_every_h" not in in_force(device.store)
    device.store.keep_fact(CONFIGURATION_FACT, ["nonsense"])
    assert in_force(device.store) == {}


def test_prediction_that_is_stopped_says_so(device):
    require_prediction(device.store)
    device.hears(training=None, prediction=False)
    with pytest.raises(StoppedError, match="fedcell-device status") as refused:
        require_prediction(device.store)
    assert refused.value.exit_code == 1


def test_store_that_cannot_take_it_leaves_it_with_the_broker(device, monkeypatch):
    def disk_is_full(*_arguments, **_named):
        raise StoreBusyError("device.db", "database or disk is full", "free some space")

    monkeypatch.setattr(Mailbox, "keep_fact", disk_is_full)
    with pytest.raises(DeliverAgainError, match="full"):
        device.hears()
    assert in_force(device.store) == {}
