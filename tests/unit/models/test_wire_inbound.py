"""Messages that come together: handed over in groups, acknowledged in order, poison alone gone."""

import pytest

from models.wire.errors import DeliverAgainError
from models.wire.inbound import GROUP, Arrived, Inbound, Route, pattern_of
from models.wire.link_settings import LinkCounters


class Mail:
    """An inbound side, and what it acknowledged and handed over."""

    def __init__(self):
        self.counters = LinkCounters()
        self.inbound = Inbound(self.counters)
        self.acknowledged = []
        self.groups = []
        self.bad = set()
        self.full = set()

    def take(self, messages):
        payloads = [payload for _, payload in messages]
        self.groups.append(payloads)
        if self.full & set(payloads):
            raise DeliverAgainError("the disk is full")
        if self.bad & set(payloads):
            raise RuntimeError("poison")

    def one(self, topic, payload):
        self.take([(topic, payload)])

    def come(self, *payloads, topic="t/many"):
        for payload in payloads:
            self.inbound.receive(Arrived(topic, payload, int(payload), 1), self.acknowledge)

    def acknowledge(self, packet_id, _qos):
        self.acknowledged.append(packet_id)

    def end_of_group(self):
        self.inbound.hand_over(self.acknowledge)


@pytest.fixture
def mail():
    mail = Mail()
    mail.inbound.routes += [
        Route(pattern_of("t/many"), many=mail.take),
        Route(pattern_of("t/one"), one=mail.one),
    ]
    return mail


def test_a_group_is_acknowledged_after_it_was_kept(mail):
    mail.come(b"1", b"2", b"3")
    assert (mail.groups, mail.acknowledged) == ([], [])
    mail.end_of_group()
    assert (mail.groups, mail.acknowledged) == ([[b"1", b"2", b"3"]], [1, 2, 3])
    assert mail.counters.received == 3


def test_a_full_group_does_not_wait_for_more(mail):
    mail.come(*(b"%d" % n for n in range(1, GROUP + 2)))
    assert [len(group) for group in mail.groups] == [GROUP]
    assert mail.inbound.has_group


def test_acknowledgements_keep_the_order_of_the_messages(mail):
    mail.come(b"1", b"2")
    mail.come(b"3", topic="t/one")
    mail.come(b"4", topic="elsewhere")
    assert mail.acknowledged == [1, 2, 3, 4]
    assert mail.counters.unrouted == 1


def test_poison_in_a_group_is_gone_alone(mail):
    mail.bad = {b"2"}
    mail.come(b"1", b"2", b"3")
    mail.end_of_group()
    assert mail.groups[1:] == [[b"1"], [b"2"], [b"3"]]
    assert mail.acknowledged == [1, 2, 3]
    assert (mail.counters.handler_errors, mail.counters.received) == (1, 2)


def test_a_group_that_cannot_be_kept_stays_with_the_broker_and_all_after_it(mail):
    mail.full = {b"2"}
    mail.come(b"1", b"2")
    mail.end_of_group()
    mail.come(b"3", topic="t/one")
    mail.come(b"4")
    mail.end_of_group()
    assert (mail.acknowledged, mail.groups) == ([], [[b"1", b"2"]])
    assert mail.inbound.is_held
    assert mail.counters.left_unacknowledged == 2


def test_a_disk_that_fills_up_among_poison_holds_the_rest(mail):
    mail.bad = {b"1"}
    mail.full = {b"3"}
    mail.come(b"1", b"2")
    mail.end_of_group()
    mail.come(b"3", topic="t/one")
    assert mail.acknowledged == [1, 2]
    assert mail.inbound.is_held
