"""The outbox on its way to the broker, with a link that answers when a test lets it."""

import pytest

from edge_client.errors import StoreBusyError
from edge_client.link.counters import AgentCounters
from edge_client.link.sending import AHEAD, GROUP, MAX_ATTEMPTS, STALLED_S, OutboxSender
from edge_client.link.traffic import TrafficMeter
from edge_client.store.mailbox import Mailbox, Purpose
from models.wire.delivery import Unconfirmed
from models.wire.errors import LinkError
from models.wire.topics import Up, up
from tests.support.edge_devices import NOW, new_store

ACK, SUMMARY = up("device-1", Up.ACK), up("device-1", Up.SUMMARY)


class AnsweringLink:
    """Answers what it is given at once, later, or with a refusal."""

    def __init__(self):
        self.is_connected = True
        self.is_full = False
        self.answers = True
        self.refuses = False
        self.published = []
        self.renewed = 0
        self.unconfirmed = Unconfirmed()

    def publish(self, topic, payload):
        if self.is_full:
            raise LinkError(host="h", port=1, what="full", remedy="wait")
        self.published.append((topic, payload))
        delivery = self.unconfirmed.expect(len(self.published))
        if self.answers:
            self.unconfirmed.answer(len(self.published), refused=self.refuses)
        return delivery

    def answer_all(self):
        for packet_id in range(1, len(self.published) + 1):
            self.unconfirmed.answer(packet_id, refused=False)

    def renew(self):
        self.renewed += 1


class Sending:
    """A sender with all that it works with."""

    def __init__(self, store, *, bytes_per_day=2**40):
        self.store, self.link = store, AnsweringLink()
        self.elapsed_s = 0.0
        self.counters = AgentCounters()
        self.meter = TrafficMeter(bytes_per_day, clock=lambda: NOW)
        self.sender = OutboxSender(
            store,
            self.link,
            meter=self.meter,
            counters=self.counters,
            elapsed_s=lambda: self.elapsed_s,
        )

    def put(self, count, *, purpose=Purpose.NOTICES, topic=ACK):
        self.store.put_out_many(purpose, [(topic, b"%d" % n) for n in range(count)])

    def pump(self):
        self.sender.pump(patience_s=0.01)

    @property
    def waiting(self):
        return len(self.store.outbox())


@pytest.fixture
def sending(tmp_path):
    with new_store(tmp_path) as store:
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        yield Sending(store)


def test_confirmations_are_noted_in_groups(sending, monkeypatch):
    begun = []
    monkeypatch.setattr(
        Mailbox, "_begin", lambda self, real=Mailbox._begin: (begun.append(1), real(self))[1]
    )
    sending.put(200)
    begun.clear()
    sending.pump()

    assert (sending.waiting, sending.counters.confirmed) == (0, 200)
    assert len(sending.link.published) == 200
    assert len(begun) <= 200 // 20
    assert GROUP >= 20


def test_what_is_on_its_way_is_not_sent_a_second_time(sending):
    sending.link.answers = False
    sending.put(3)
    for _ in range(4):
        sending.pump()
    assert (len(sending.link.published), sending.waiting) == (3, 3)
    sending.link.answer_all()
    sending.pump()
    assert (sending.waiting, sending.counters.confirmed) == (0, 3)


def test_only_so_many_are_handed_over_ahead(sending):
    sending.link.answers = False
    sending.put(AHEAD + 30)
    sending.pump()
    assert len(sending.link.published) == AHEAD


def test_a_connection_without_answers_is_renewed(sending):
    sending.link.answers = False
    sending.put(1)
    sending.pump()
    sending.elapsed_s = STALLED_S + 1
    sending.pump()
    assert sending.link.renewed == 1
    sending.elapsed_s += STALLED_S / 2
    sending.pump()
    assert sending.link.renewed == 1


def test_a_lost_connection_is_not_taken_for_a_dead_one(sending):
    sending.link.answers = False
    sending.put(1)
    sending.pump()
    sending.link.is_connected = False
    sending.elapsed_s = 10 * STALLED_S
    sending.pump()
    assert sending.link.renewed == 0


def test_what_the_broker_refuses_is_tried_a_few_times_and_passed_by_others(sending):
    sending.link.refuses = True
    sending.put(1)
    for _ in range(MAX_ATTEMPTS + 3):
        sending.pump()
    assert len(sending.link.published) == MAX_ATTEMPTS
    sending.link.refuses = False
    sending.put(1)
    sending.pump()
    assert (sending.waiting, sending.counters.confirmed) == (1, 1)


def test_offline_or_full_everything_stays_in_the_store(sending):
    sending.put(2)
    sending.link.is_connected = False
    sending.pump()
    sending.link.is_connected, sending.link.is_full = True, True
    sending.pump()
    assert (sending.link.published, sending.waiting) == ([], 2)
    sending.link.is_full = False
    sending.pump()
    assert sending.waiting == 0


def test_above_the_budget_a_summary_waits_and_an_acknowledgement_passes(sending):
    sending.meter.bytes_per_day = 1
    sending.meter.observe(True, SUMMARY, 1024)
    sending.put(1, purpose=Purpose.SUMMARIES, topic=SUMMARY)
    sending.put(1)
    sending.pump()
    assert [topic for topic, _ in sending.link.published] == [ACK]
    sending.meter.bytes_per_day = 2**40
    sending.pump()
    assert sending.waiting == 0


def test_confirmations_that_the_disk_refuses_are_noted_later(sending, monkeypatch):
    def disk_is_full(*_):
        raise StoreBusyError("device.db", "disk is full", "free some")

    sending.put(2)
    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "sent", disk_is_full)
        with pytest.raises(StoreBusyError):
            sending.pump()
    sending.pump()
    assert (sending.waiting, sending.counters.confirmed) == (0, 2)
    assert len(sending.link.published) == 2
