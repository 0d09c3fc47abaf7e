"""Subscriptions that come and go on a standing link, against a real Mosquitto."""

from random import Random

import pytest

from models.wire.link import LinkSettings
from models.wire.listening_link import ListeningLink
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(tmp_path):
    with mosquitto_in(tmp_path) as running:
        yield running


def listening(broker, **settings):
    quick = {"first_wait_s": 0.02, "longest_wait_s": 0.05}
    place = {"host": broker.host, "port": broker.port, "client_id": "a"}
    link = ListeningLink(LinkSettings(**place, **quick, **settings), jitter=Random(1))
    link.subscribe("always", Heard())
    return link


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_is_retained_is_heard_from_then_on_and_no_longer_than_wanted(broker, version):
    heard, connections = Heard(), []
    with link_to(broker, "b") as b, listening(broker, version=version) as a:
        a.on_connected(connections.append)
        b.publish("r/1", b"kept", retain=True).wait(5)
        assert not wait_until(lambda: heard.messages, 0.1)
        a.listen("r/+", heard)
        assert heard.wait_for(1) == [b"kept"]
        b.publish("r/2", b"live")
        assert heard.wait_for(2) == [b"kept", b"live"]
        # The same subscription again brings again what is retained, and counts as no connection.
        a.listen("r/+", heard)
        assert heard.wait_for(3)[2] == b"kept"
        a.listen_no_more("r/+")
        received = a.counters.received
        b.publish("r/3", b"late").wait(5)
        assert not wait_until(lambda: a.counters.received > received, 0.2)
    assert connections == []
    assert len(heard.messages) == 3


def test_what_is_wanted_while_offline_is_heard_with_the_next_connection(broker):
    heard = Heard()
    with listening(broker) as a:
        broker.stop()
        assert wait_until(lambda: not a.is_connected)
        a.listen("r/+", heard)
        broker.start()
        assert wait_until(lambda: a.is_connected)
        with link_to(broker, "b") as b:
            b.publish("r/1", b"hello")
            assert heard.wait_for(1) == [b"hello"]


def test_what_was_wanted_goes_on_where_the_broker_forgot_the_session(broker):
    heard = Heard()
    with listening(broker) as a:
        a.listen("r/+", heard)
        broker.kill()
        broker.start()
        assert wait_until(lambda: a.counters.losses == 1 and a.is_connected)
        with link_to(broker, "b") as b:
            b.publish("r/1", b"hello")
            assert heard.wait_for(1) == [b"hello"]


def test_what_comes_under_a_filter_that_is_wanted_no_more_is_dropped(broker):
    heard = Heard()
    with listening(broker) as a:
        a.listen("r/+", heard)
        broker.stop()
        assert wait_until(lambda: not a.is_connected)
        a.listen_no_more("r/+")
        broker.start()
        assert wait_until(lambda: a.is_connected)
        with link_to(broker, "b") as b:
            b.publish("r/1", b"hello")
            assert wait_until(lambda: a.counters.unrouted == 1)
    assert heard.messages == []
