from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.errors import ConsentMissingError, NoticeRefusedError, StoreBusyError
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.notice_receiver import NoticeReceiver, answer_notice
from edge_client.store.mailbox import Mailbox, Purpose
from models.telemetry import DeviceId
from models.wire.codec import decode, encode
from models.wire.envelope import SigningKey, sign_payload, trusted_keys
from models.wire.errors import DeliverAgainError
from models.wire.messages import Ack, NoticeState
from models.wire.sealing import OpeningKey, seal_envelope
from models.wire.topics import Up, up
from tests.support.edge_devices import NOW, new_store
from tests.unit.edge_client.test_notices import a_notice

SERVER = SigningKey.from_bytes(bytes(range(32)))
STRANGER = SigningKey.from_bytes(bytes(range(1, 33)))


class Receiving:
    """A receiver on a store of its own."""

    def __init__(self, store):
        self.store = store
        self.counters = AgentCounters()
        self.woken = 0
        self.now = NOW
        self.receive = NoticeReceiver(
            Listener(
                path=store.path,
                device_id="device-1",
                trusted=trusted_keys(SERVER.verify_key),
                clock=lambda: self.now,
                counters=self.counters,
            ),
            wake=self.wake,
        )

    def wake(self):
        self.woken += 1

    def hears(self, notice, key=SERVER):
        self.receive("topic", sign_payload(encode(notice), key))

    def acks(self):
        return [decode(message.payload, Ack) for message in self.store.outbox()]


@pytest.fixture
def receiving(tmp_path):
    with new_store(tmp_path) as store:
        store.set_consent(Purpose.NOTICES, granted=True, now=NOW)
        yield Receiving(store)


def test_genuine_notice_is_kept_and_acknowledged_before_it_returns(receiving):
    receiving.hears(a_notice())
    (kept,) = receiving.store.notices()
    assert (kept.message_id, kept.state, kept.version) == ("a" * 32, NoticeState.RECEIVED, 2)
    (ack,) = receiving.acks()
    assert (ack.correlation, ack.state, ack.version) == ("a" * 32, NoticeState.RECEIVED, 2)
    assert receiving.store.outbox()[0].topic == up("device-1", Up.ACK)
    assert receiving.woken == 1


def test_repeated_notice_is_kept_once_and_acknowledged_again(receiving):
    receiving.hears(a_notice())
    receiving.store.set_notice_state("a" * 32, NoticeState.SHOWN)
    receiving.hears(a_notice())
    assert len(receiving.store.notices()) == 1
    assert [ack.state for ack in receiving.acks()] == [NoticeState.RECEIVED, NoticeState.SHOWN]
    assert receiving.counters.repeated == 1
    assert receiving.counters.refused == {}


def test_strangers_and_broken_messages_are_counted_and_dropped(receiving):
    receiving.hears(a_notice(), key=STRANGER)
    receiving.hears(replace(a_notice(), device=DeviceId("device-2")))
    receiving.receive("topic", b"\x00")
    receiving.receive("topic", b"{}")
    altered = bytearray(sign_payload(encode(a_notice()), SERVER))
    altered[altered.index(b"body") + 12] ^= 1
    receiving.receive("topic", bytes(altered))
    assert receiving.store.notices() == ()
    assert receiving.store.outbox() == ()
    assert sum(receiving.counters.refused.values()) == 5
    assert receiving.counters.refused["unknown_key"] == 1
    assert receiving.counters.refused["foreign_device"] == 1
    assert receiving.counters.refused["bad_signature"] == 1


def test_old_sequence_under_a_new_name_is_a_replay(receiving):
    receiving.hears(replace(a_notice(), sequence=7))
    receiving.hears(replace(a_notice(), id="c" * 32, sequence=7))
    assert len(receiving.store.notices()) == 1
    assert receiving.counters.refused == {"replayed": 1}


def test_expired_notice_is_refused_with_tolerance_for_wrong_clocks(receiving):
    receiving.now = a_notice().expires + timedelta(days=1, seconds=1)
    receiving.hears(a_notice())
    assert receiving.counters.refused == {"expired": 1}
    receiving.now = a_notice().expires + timedelta(hours=23)
    receiving.hears(a_notice())
    assert len(receiving.store.notices()) == 1


def test_without_consent_nothing_is_kept_and_nothing_leaves(receiving):
    receiving.store.set_consent(Purpose.NOTICES, granted=False, now=NOW)
    receiving.hears(a_notice())
    assert receiving.store.notices() == ()
    assert receiving.store.outbox() == ()
    assert receiving.counters.refused == {"no_consent": 1}


def test_consent_withdrawn_later_stops_repeated_acknowledgements(receiving):
    receiving.hears(a_notice())
    receiving.store.set_consent(Purpose.NOTICES, granted=False, now=NOW)
    receiving.hears(a_notice())
    assert receiving.store.outbox() == ()


def test_store_that_cannot_take_it_leaves_the_message_with_the_broker(receiving, monkeypatch):
    def disk_is_full(*_arguments, **_named):
        raise StoreBusyError("device.db", "database or disk is full", "free some space")

    monkeypatch.setattr(Mailbox, "keep_notice", disk_is_full)
    with pytest.raises(DeliverAgainError, match="full"):
        receiving.hears(a_notice())
    assert receiving.store.notices() == ()
    assert receiving.store.outbox() == ()


def test_answer_moves_the_notice_on_and_tells_the_server_once(receiving):
    receiving.hears(a_notice())
    for _ in range(2):
        answer_notice(
            receiving.store, "a" * 32, NoticeState.ACCEPTED, device_id="device-1", now=NOW
        )
    assert [(ack.state, ack.version) for ack in receiving.acks()] == [
        (NoticeState.RECEIVED, 2),
        (NoticeState.ACCEPTED, 3),
    ]


def test_answer_after_withdrawal_changes_nothing(receiving):
    receiving.hears(a_notice())
    receiving.store.set_consent(Purpose.NOTICES, granted=False, now=NOW)
    with pytest.raises(ConsentMissingError):
        answer_notice(
            receiving.store, "a" * 32, NoticeState.ACCEPTED, device_id="device-1", now=NOW
        )
    assert receiving.store.notice("a" * 32).state is NoticeState.RECEIVED


def test_notices_that_came_together_are_kept_in_one_transaction(receiving, monkeypatch):
    begun = []
    monkeypatch.setattr(
        Mailbox, "_begin", lambda self, real=Mailbox._begin: (begun.append(1), real(self))[1]
    )
    good = [replace(a_notice(), id=f"{n:032x}", sequence=n) for n in range(1, 21)]
    messages = [("topic", sign_payload(encode(notice), SERVER)) for notice in good]
    receiving.receive.take([*messages, ("topic", b"poison"), messages[0]])

    assert len(begun) == 1
    assert [kept.sequence for kept in receiving.store.notices()] == list(range(1, 21))
    assert len(receiving.acks()) == 21
    assert (receiving.counters.repeated, receiving.counters.refused) == (1, {"not_json": 1})


def test_a_stopped_device_keeps_no_notice_and_says_nothing(receiving):
    receiving.store.keep_fact("configuration", {"sequence": 1, "notices": False})
    receiving.hears(a_notice())

    assert receiving.store.notices() == receiving.store.outbox() == ()
    assert receiving.counters.refused == {"stopped": 1}


def test_noise_fills_counters_and_not_the_log(receiving, caplog):
    receiving.receive.take([("topic", b"noise")] * 50)
    receiving.receive.take([("topic", b"{}")] * 50)

    assert receiving.counters.refused == {"not_json": 50, "not_an_envelope": 50}
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2


def test_an_answer_on_a_stopped_device_is_kept_and_not_told(receiving):
    receiving.hears(a_notice())
    before = receiving.acks()
    receiving.store.keep_fact("configuration", {"sequence": 1, "notices": False})
    answer_notice(receiving.store, "a" * 32, NoticeState.ACCEPTED, device_id="device-1", now=NOW)

    assert receiving.store.notice("a" * 32).state is NoticeState.ACCEPTED
    assert receiving.acks() == before


def test_sealed_notice_is_opened_with_the_devices_own_key(receiving):
    opening = OpeningKey.generate()
    sealed = seal_envelope(sign_payload(encode(a_notice()), SERVER), opening.seal_key, topic="t")
    receiving.receive("t", sealed)
    assert receiving.counters.refused == {"no_opening_key": 1}

    heard_before = receiving.receive._listener
    receiving.receive = NoticeReceiver(
        replace(heard_before, opening_key=opening), wake=receiving.wake
    )
    receiving.receive("t", sealed)
    assert [kept.message_id for kept in receiving.store.notices()] == ["a" * 32]


def test_refusal_names_its_reason():
    error = NoticeRefusedError("replayed", "sequence 3 is not above 7")
    assert error.exit_code == 5
    assert "replayed" in str(error)
