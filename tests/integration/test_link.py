"""The link against a real Mosquitto, and against what calls itself a broker and is none."""

import logging
import socket
import threading
import time
from contextlib import contextmanager
from random import Random

import pytest

from models.wire.errors import DeliverAgainError, LinkError, MessageTooLargeError
from models.wire.link import WAITING_MESSAGES as WAITING
from models.wire.link import Link, LinkSettings, MqttVersion, Will
from server import broker as broker_module
from server.broker import BrokerKind, free_port, running_broker
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until

pytestmark = pytest.mark.broker


def hearing_link(broker, client_id, handler, **settings):
    link = link_to(broker, client_id, **settings)
    link.subscribe("t/#", handler)
    return link


@pytest.fixture
def broker(tmp_path):
    with mosquitto_in(tmp_path) as running:
        yield running


def test_a_message_arrives_once_the_link_is_connected(broker):
    heard = Heard()
    with hearing_link(broker, "a", heard) as a, link_to(broker, "b") as b:
        delivery = b.publish("t/1", b"hello")

        assert delivery.wait(5)
        assert heard.wait_for(1) == [b"hello"]
        assert a.version is MqttVersion.V5
        assert (b.counters.published, b.counters.confirmed) == (1, 1)
        assert a.counters.bytes_in == b.counters.bytes_out == len("t/1") + len(b"hello")


def test_an_exception_in_a_handler_is_contained_and_counted(broker):
    heard = Heard()

    def handler(topic, payload):
        if payload == b"poison":
            raise RuntimeError(payload)
        heard(topic, payload)

    with hearing_link(broker, "a", handler) as a, link_to(broker, "b") as b:
        for payload in (b"1", b"poison", b"2"):
            b.publish("t", payload)

        assert heard.wait_for(2) == [b"1", b"2"]
        assert a.counters.handler_errors == 1
        assert a.is_connected


def test_what_a_handler_could_not_keep_comes_again(broker):
    heard, refusals = Heard(), []

    def handler(topic, payload):
        if payload == b"2" and len(refusals) < 3:
            refusals.append(payload)
            raise DeliverAgainError("the disk is full")
        heard(topic, payload)

    with hearing_link(broker, "a", handler) as a, link_to(broker, "b") as b:
        for payload in (b"1", b"2", b"3"):
            b.publish("t", payload).wait(5)

        assert wait_until(lambda: {b"1", b"2", b"3"} <= set(heard.payloads))
        assert len(refusals) == 3
        assert a.counters.left_unacknowledged == 3


def test_an_oversize_message_is_not_sent(broker):
    with link_to(broker, "a") as link:
        with pytest.raises(MessageTooLargeError):
            link.publish("t", b"x" * 4097)

        assert link.publish("t", b"x" * 4096).wait(5)
        assert link.counters.published == 1


def test_what_is_sent_while_a_device_is_away_waits_for_it(broker):
    away, back = Heard(), Heard()
    with hearing_link(broker, "a", away):
        pass
    with link_to(broker, "b") as b:
        b.publish("t", b"kept").wait(5)
        b.publish("t", b"short-lived", expires_in_s=1).wait(5)
    time.sleep(2.1)  # Mosquitto counts whole seconds

    with hearing_link(broker, "a", back):
        back.wait_for(1)
        time.sleep(0.1)

    assert (away.payloads, back.payloads) == ([], [b"kept"])


def test_a_killed_broker_that_forgot_the_session_is_subscribed_to_again(broker, caplog):
    heard, sessions = Heard(), []
    a = hearing_link(broker, "a", heard)
    a.on_connected(sessions.append)
    with caplog.at_level(logging.INFO, "models.wire.link"), a, link_to(broker, "b") as b:
        broker.kill()
        assert wait_until(lambda: not a.is_connected and not b.is_connected)
        offline = b.publish("t", b"said while nobody listened")
        time.sleep(0.3)
        broker.start()
        assert wait_until(lambda: a.is_connected)
        assert wait_until(lambda: b.is_connected)

        assert offline.wait(5)
        b.publish("t", b"again").wait(5)
        assert wait_until(lambda: b"again" in heard.payloads)
        assert sessions == [False, False]
        assert a.counters.losses == 1

    lines = [record.getMessage() for record in caplog.records]
    assert sum("connection lost" in line for line in lines) == 2
    assert sum("is back" in line for line in lines) == 2


def test_a_broker_that_was_stopped_in_order_keeps_the_session(broker):
    heard, sessions = Heard(), []
    with hearing_link(broker, "a", heard):
        pass
    with link_to(broker, "b") as b:
        b.publish("t", b"kept").wait(5)
    broker.stop()
    broker.start()

    a = hearing_link(broker, "a", heard)
    a.on_connected(sessions.append)
    with a:
        assert heard.wait_for(1) == [b"kept"]
    assert sessions == [True]


def test_the_will_speaks_for_a_side_that_vanished(broker):
    heard = Heard()
    vanishing = link_to(broker, "v", will=Will(topic="t/v", payload=b"gone"))
    leaving = link_to(broker, "l", will=Will(topic="t/l", payload=b"gone"))
    with hearing_link(broker, "a", heard):
        with leaving:
            pass
        vanishing.connect()
        vanishing._client._sock.shutdown(socket.SHUT_RDWR)

        assert heard.wait_for(1) == [b"gone"]
        assert heard.messages[0][0] == "t/v"
    vanishing.close()

    late = Heard()
    with hearing_link(broker, "late", late):
        assert late.wait_for(1) == [b"gone"]


def test_a_hook_that_fails_does_not_end_the_link(broker):
    def hook(_session_present):
        raise RuntimeError("hook")

    heard = Heard()
    a = hearing_link(broker, "a", heard)
    a.on_connected(hook)
    with a, link_to(broker, "b") as b:
        b.publish("t", b"1")

        assert heard.wait_for(1) == [b"1"]
        assert a.counters.handler_errors == 1


def test_only_so_many_messages_wait_while_the_broker_is_away(broker):
    with link_to(broker, "a", first_wait_s=60.0, longest_wait_s=60.0) as link:
        broker.kill()
        assert wait_until(lambda: not link.is_connected)
        for _ in range(WAITING):
            link.publish("t", b"x")

        with pytest.raises(LinkError, match="2000 messages wait"):
            link.publish("t", b"x")


def test_a_message_that_nobody_handles_is_counted(broker):
    link = link_to(broker, "a")
    link.subscribe("t/+/only", Heard())
    with hearing_link(broker, "b", Heard()) as b:
        b.publish("t", b"1").wait(5)
        with link:
            b._inbound.routes.clear()
            b.publish("t/1", b"2").wait(5)

            assert wait_until(lambda: b.counters.unrouted == 1)


def test_the_version_can_be_set(broker):
    with link_to(broker, "a", version=MqttVersion.V311) as link:
        assert link.version is MqttVersion.V311
        assert link.publish("t", b"1", expires_in_s=5).wait(5)


def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(tmp_path, monkeypatch):
    configuration = broker_module.embedded_configuration
    monkeypatch.setattr(
        broker_module,
        "embedded_configuration",
        lambda *, port: configuration(port=port).replace("v5.1", "v4.1"),
    )
    heard = Heard()
    with (
        running_broker(tmp_path, kind=BrokerKind.EMBEDDED) as old,
        hearing_link(old, "a", heard) as a,
        link_to(old, "b") as b,
    ):
        b.publish("t", b"1").wait(5)

        assert heard.wait_for(1) == [b"1"]
        assert a.version is b.version is MqttVersion.V311


def test_a_broker_that_is_not_there_is_said_in_one_line():
    port = free_port()
    link = Link(LinkSettings(host="127.0.0.1", port=port, client_id="a"), jitter=Random(1))

    with pytest.raises(LinkError) as refused:
        link.connect()

    assert str(refused.value) == (
        f"MQTT broker 127.0.0.1:{port}: connection refused; start one with "
        "'fedcell server broker', or name the right host and port"
    )
    assert (refused.value.exit_code, refused.value.port) == (6, port)
    with pytest.raises(LinkError, match="call connect"):
        link.publish("t", b"1")


def test_subscribing_after_connecting_is_a_mistake(broker):
    with link_to(broker, "a") as link, pytest.raises(ValueError, match="before connecting"):
        link.subscribe("t", Heard())


@contextmanager
def answering(*replies):
    """Listen, and answer each connection in turn with bytes; None hangs up, b"" stays silent."""
    server = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        for reply in replies:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            connection.recv(1000)
            if reply is None:
                connection.close()
            else:
                connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        # Closing alone would leave a thread that accepts where it is.
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in held:
            connection.close()
        thread.join(1)


def stranger(port, **settings):
    values = {"host": "127.0.0.1", "port": port, "client_id": "a", "connect_timeout_s": 0.3}
    return Link(LinkSettings(**values | settings), jitter=Random(1))


@pytest.mark.parametrize(
    "replies",
    [(None, None), (b"",), (b"HTTP/1.1 400\r\n\r\n",) * 2],
    ids=["hangs up", "mute", "web"],
)
def test_what_is_no_broker_is_refused(replies):
    with answering(*replies) as port, pytest.raises(LinkError, match="does not answer as an MQTT"):
        stranger(port).connect()


def test_a_broker_that_refuses_is_named_with_its_reason():
    not_authorised = bytes([0x20, 0x03, 0x00, 0x87, 0x00])
    with answering(not_authorised) as port, pytest.raises(LinkError, match="Not authorized"):
        stranger(port).connect()


def test_garbage_from_a_broker_does_not_end_the_link():
    accepted = bytes([0x20, 0x03, 0x00, 0x00, 0x00])
    garbage = bytes([0x30, 0x04, 0xFF, 0xFF, 0x00, 0x00])
    with answering(accepted + garbage, accepted) as port:
        link = stranger(port, first_wait_s=0.01)
        with link:
            assert wait_until(lambda: link.counters.losses + link.counters.protocol_errors > 0)
            assert wait_until(lambda: link.is_connected)
            assert link._thread.is_alive()
