"""A device on a network that fails: what was acknowledged stays, the agent lives, counters tell."""

import json
import logging
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from edge_client.agent import AgentParts, AgentPlan, DeviceAgent, run_agent
from edge_client.client import EdgeClient
from edge_client.link import sending
from edge_client.link.counters import AgentCounters
from edge_client.store.mailbox import MAX_WAITING_MESSAGES, Mailbox, Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId
from models.wire import topics
from models.wire.codec import canonical_json, encode
from models.wire.envelope import SigningKey, sign_payload
from models.wire.messages import Ack, Birth, NoticeState, Status, Summary, recognise
from models.wire.topics import Down, Up, down, up
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.flaky_network import relay_to
from tests.support.line_bundle import trusted_keys, write_line_bundle
from tests.support.wire_messages import configuration
from tests.unit.edge_client.test_notices import a_notice

pytestmark = pytest.mark.broker

KEY = SigningKey.from_bytes(bytes(range(32)))
KEYS = {KEY.verify_key.key_id: KEY.verify_key.to_bytes()}
TEN_YEARS = timedelta(days=3652)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_line_bundle(tmp_path_factory.mktemp("bundle") / "line.zip")


@pytest.fixture
def broker(tmp_path):
    with mosquitto_in(tmp_path) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "device.db"
    with TelemetryStore.create(path, profile=PROFILE) as store:
        store.record_many(fading_life(), now=NOW)
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
    return path


class RunningAgent:
    """An agent in a thread of its own, at a place that may be a relay."""

    def __init__(self, path, bundle, place, **choices):
        self.path, self.bundle, self.place = path, bundle, place
        self.now = choices.pop("now", NOW)
        self._waits = choices.pop("waits", True)
        self._parts = choices.pop("parts", AgentParts())
        self.plan = AgentPlan(poll_s=0.05, **choices)
        self.shown = []
        self.agent = self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            with EdgeClient(
                self.path, self.bundle, trusted_keys=trusted_keys(), key=self._parts.store_key
            ) as client:
                run_agent(
                    client,
                    broker=(self.place.host, self.place.port),
                    server_keys=KEYS,
                    plan=self.plan,
                    clock=lambda: self.now,
                    on_start=self._started,
                    on_report=lambda _report: None,
                    show=lambda message_id, _notice: self.shown.append(message_id),
                    parts=self._parts,
                )
        except Exception as error:  # noqa: BLE001 - raised again where the agent is left
            self.error = error

    def _started(self, agent):
        quick = replace(agent._link.settings, first_wait_s=0.02, longest_wait_s=0.1)
        agent._link.settings = quick
        self.agent = agent

    def __enter__(self):
        self._thread.start()
        assert wait_until(lambda: self.agent is not None)
        if self._waits:
            assert wait_until(lambda: self.is_connected or self.error)
        return self

    def __exit__(self, *_):
        self.agent.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    @property
    def counters(self):
        return self.agent.counters

    @property
    def is_connected(self):
        return self.agent._link.is_connected


class Server:
    """Says what a test tells it to say, and remembers what it heard."""

    def __init__(self, broker):
        self.heard = Heard()
        self.link = link_to(broker, topics.HUB_CLIENT_ID)
        for kind in Up:
            self.link.subscribe(topics.from_all_devices(kind), self.heard)

    def __enter__(self):
        self.link.connect()
        return self

    def __exit__(self, *_):
        self.link.close()

    def notify(self, number, **changes):
        notice = replace(a_notice(), id=f"{number:032x}", sequence=number, **changes)
        self.send(sign_payload(encode(notice), KEY))

    def send(self, payload, *, kind=Down.NOTIFY):
        self.link.publish(down("device-1", kind), payload)

    def messages(self, kind):
        found = [recognise(topic, payload) for topic, payload in self.heard.messages]
        return [message for message in found if isinstance(message, kind)]

    def acked(self, state=NoticeState.SHOWN):
        return {int(ack.correlation, 16) for ack in self.messages(Ack) if ack.state is state}


def test_a_broker_that_is_killed_forgets_everything_and_nothing_is_lost(path, bundle, broker):
    with relay_to(broker.host, broker.port) as relay, RunningAgent(path, bundle, relay) as device:
        with Server(broker) as server:
            server.notify(1)
            assert wait_until(lambda: server.acked() == {1})
        relay.stop()
        broker.kill()
        assert wait_until(lambda: not device.is_connected)
        for left in broker.directory.glob("*.db"):
            left.unlink()
        with Mailbox(path) as mailbox:
            mailbox.put_out(Purpose.SUMMARIES, up("device-1", Up.SUMMARY), encode_summary(path))
        broker.start()
        with Server(broker) as server:
            relay.start()
            assert wait_until(lambda: server.messages(Birth) and server.messages(Summary))
            server.notify(2)
            assert wait_until(lambda: server.acked() == {2})
        assert device.shown == [f"{1:032x}", f"{2:032x}"]
    with Mailbox(path) as mailbox:
        assert mailbox.outbox() == ()


def encode_summary(path):
    with EdgeClient(path) as client:
        client.predict(NOW)
        return encode(client.summary(NOW))


def test_an_agent_that_starts_without_a_broker_waits_for_it(path, bundle, broker, caplog):
    with (
        caplog.at_level(logging.WARNING),
        Server(broker) as server,
        relay_to(broker.host, broker.port) as relay,
    ):
        relay.stop()
        with RunningAgent(path, bundle, relay, waits=False) as device:
            assert wait_until(lambda: device.counters.predictions == 1)
            time.sleep(0.3)
            relay.start()
            assert wait_until(lambda: server.messages(Summary))
            server.notify(1)
            assert wait_until(lambda: server.acked() == {1})
    assert sum("again and again" in record.getMessage() for record in caplog.records) == 1


def test_a_half_open_link_is_found_out_and_renewed(path, bundle, broker, monkeypatch):
    monkeypatch.setattr(sending, "STALLED_S", 1.0)
    monkeypatch.setattr(sending.OutboxSender.pump, "__kwdefaults__", {"patience_s": 0.1})
    with relay_to(broker.host, broker.port) as relay, Server(broker) as server:
        with RunningAgent(path, bundle, relay) as device:
            assert wait_until(lambda: device.counters.confirmed == 1)
            relay.is_stuck = True
            with Mailbox(path) as mailbox:
                for number in range(30):
                    mailbox.put_out(Purpose.NOTICES, up("device-1", Up.ACK), an_ack(number))
            assert wait_until(lambda: not device.is_connected)
            relay.is_stuck = False
            assert wait_until(lambda: len(server.messages(Ack)) >= 30, timeout_s=30.0)
            assert wait_until(lambda: device.counters.confirmed >= 31)
        assert relay.connections >= 2
    with Mailbox(path) as mailbox:
        assert mailbox.outbox() == ()
    assert {int(ack.correlation, 16) for ack in server.messages(Ack)} == set(range(30))


def an_ack(number):
    return encode(
        Ack(
            id=f"{1000 + number:032x}",
            device=DeviceId("device-1"),
            sequence=number,
            issued=NOW,
            correlation=f"{number:032x}",
            state=NoticeState.RECEIVED,
            version=2,
        )
    )


def test_a_slow_link_delivers_everything_once(path, bundle, broker):
    with (
        relay_to(broker.host, broker.port, bytes_per_s=40_000.0) as relay,
        Server(broker) as server,
    ):
        with Mailbox(path) as mailbox:
            for number in range(60):
                mailbox.put_out(Purpose.NOTICES, up("device-1", Up.ACK), an_ack(number))
        with RunningAgent(path, bundle, relay) as device:
            assert wait_until(lambda: device.counters.confirmed == 61)
        assert relay.connections == 1
    assert [int(ack.correlation, 16) for ack in server.messages(Ack)] == list(range(60))


def test_bytes_are_counted_as_they_pass_on_the_wire(path, bundle, broker):
    """The estimate against a relay that counts: within a twentieth, both ways."""
    with relay_to(broker.host, broker.port) as relay, Server(broker) as server:
        with RunningAgent(path, bundle, relay):
            for number in range(1, 21):
                server.notify(number)
            assert wait_until(lambda: server.acked() == set(range(1, 21)))
        up_bytes, down_bytes = relay.bytes_up, relay.bytes_down
    with Mailbox(path) as mailbox:
        counted = mailbox.traffic(0)
    kinds = {(one.direction, one.kind): one.messages for one in counted}
    assert kinds == {
        ("up", "connection"): 1,
        ("down", "connection"): 1,
        ("up", "birth"): 1,
        ("up", "status"): 2,
        ("up", "summary"): 1,
        ("up", "ack"): 40,
        ("down", "notify"): 20,
    }
    total = sum(one.num_bytes for one in counted)
    assert abs(total - (up_bytes + down_bytes)) < 0.05 * (up_bytes + down_bytes)


def test_after_thirty_days_offline_the_latest_is_said_and_old_notices_are_not_shown(
    path, bundle, broker
):
    with RunningAgent(path, bundle, broker):
        pass
    with Server(broker) as server:
        server.notify(1)
        server.notify(2, expires=a_notice().issued + timedelta(days=60))
    for day in range(1, 31):
        with EdgeClient(path, bundle, trusted_keys=trusted_keys()) as client:
            agent = DeviceAgent(
                client,
                link_to(broker, "nobody"),
                plan=AgentPlan(),
                clock=lambda day=day: NOW + timedelta(days=day),
                counters=AgentCounters(),
                on_report=lambda _report: None,
                show=lambda _id, _notice: None,
            )
            agent._predict_where_due()
    with Mailbox(path) as mailbox:
        assert len(mailbox.outbox()) <= 7
        waiting = len(mailbox.outbox())

    with (
        Server(broker) as server,
        RunningAgent(path, bundle, broker, now=NOW + timedelta(days=30)) as device,
    ):
        assert wait_until(lambda: server.acked() == {2})
        assert device.counters.refused == {"expired": 1}
        assert wait_until(lambda: len(server.messages(Summary)) >= waiting)
    assert device.shown == [f"{2:032x}"]


def test_the_outbox_is_bounded_however_long_the_broker_is_away(path):
    with Mailbox(path) as mailbox:
        with mailbox.transaction():
            for number in range(MAX_WAITING_MESSAGES + 50):
                mailbox.put_out(Purpose.NOTICES, up("device-1", Up.ACK), b"%d" % number)
        waiting = mailbox.outbox()
    assert len(waiting) == MAX_WAITING_MESSAGES
    assert waiting[-1].payload == b"%d" % (MAX_WAITING_MESSAGES + 49)


@pytest.mark.parametrize("wrong", [TEN_YEARS, -TEN_YEARS], ids=["ahead", "behind"])
def test_a_clock_ten_years_off_stops_nobody(path, bundle, broker, wrong):
    """Ahead, notices count as over and are refused; behind, they are shown; both send on."""
    with Server(broker) as server, RunningAgent(path, bundle, broker, now=NOW + wrong) as device:
        assert wait_until(lambda: server.messages(Status))
        server.notify(1)
        if wrong > timedelta(0):
            assert wait_until(lambda: device.counters.refused == {"expired": 1})
        else:
            assert wait_until(lambda: server.acked() == {1})
        device.now = NOW
        server.notify(2)
        assert wait_until(lambda: 2 in server.acked())
        births = server.messages(Birth)
    assert births[0].issued == NOW + wrong


def test_a_clock_that_jumps_back_stops_neither_predictions_nor_notices(
    path, bundle, broker, monkeypatch
):
    elapsed = [1000.0]
    monkeypatch.setattr("edge_client.agent.elapsed_s", lambda: elapsed[0])
    with Server(broker) as server, RunningAgent(path, bundle, broker) as device:
        assert wait_until(lambda: device.counters.predictions == 1)
        device.now = NOW - timedelta(days=3)
        server.notify(1)
        assert wait_until(lambda: server.acked() == {1})
        elapsed[0] += 86_401.0
        device.agent.wake()
        assert wait_until(lambda: device.counters.predictions == 2)


def test_duplicates_and_disorder_show_each_notice_at_most_once(path, bundle, broker):
    order = [1, 2, 2, 1, 4, 3, 4, 5, 1, 5]
    with Server(broker) as server, RunningAgent(path, bundle, broker) as device:
        assert wait_until(lambda: device.is_connected)
        for number in order:
            server.notify(number)
        assert wait_until(lambda: server.acked() == {1, 2, 4, 5})
        assert wait_until(lambda: device.counters.repeated == 5)
    assert sorted(device.shown) == [f"{number:032x}" for number in (1, 2, 4, 5)]
    assert device.counters.refused == {"replayed": 1}


def poison(random):
    """Yield what no server sends: noise, deep and wrong JSON, altered and oversize messages."""
    genuine = sign_payload(encode(replace(a_notice(), id="e" * 32)), KEY)
    for _ in range(20):
        yield random.randbytes(random.randrange(600))
        altered = bytearray(genuine)
        altered[random.randrange(len(altered))] ^= 1 << random.randrange(8)
        yield bytes(altered)
        yield b"\x01" + random.randbytes(random.randrange(600))
    for text in ("[" * 4000, '{"a":' * 800, "null", "[]", '{"alg": 1}', '{"alg":"ed25519"}', "\0"):
        yield text.encode()
    for body in ([], {"type": "notice"}, {"type": "notice", "id": 7}, {"type": ["notice"]}):
        yield sign_payload(json.dumps(body).encode(), KEY)
    fields = json.loads(encode(a_notice()))
    for name in fields:
        for wrong in (None, -1, [], {"x": 1}, "\u0000", 2**70):
            yield sign_payload(canonical_json(fields | {name: wrong}), KEY)


def test_poison_of_every_kind_is_counted_and_the_next_notice_is_shown(path, bundle, broker):
    bad = list(poison(Random(5)))
    with Server(broker) as server, RunningAgent(path, bundle, broker) as device:
        assert wait_until(lambda: device.is_connected)
        for payload in bad:
            server.send(payload)
            server.send(payload[:4096], kind=Down.CONFIG)
        server.send(sign_payload(encode(configuration(training=False)), KEY), kind=Down.CONFIG)
        server.notify(1)
        assert wait_until(lambda: server.acked() == {1})
        assert wait_until(lambda: device.counters.configurations == 1)
        link = device.agent._link
        assert (link.counters.handler_errors, link.counters.losses) == (0, 0)
    assert sum(device.counters.refused.values()) == 2 * len(bad)
    assert device.shown == [f"{1:032x}"]
    with Mailbox(path) as mailbox:
        assert sum(mailbox.fact("refused_messages").values()) == 2 * len(bad)


@contextmanager
def bare_connection(broker):
    """Speak MQTT by hand: a connection that promises nothing and checks nothing."""
    with socket.create_connection((broker.host, broker.port)) as connection:
        client = b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x05rogue"
        connection.sendall(b"\x10" + bytes([len(client)]) + client)
        assert connection.recv(4)[:2] == b"\x20\x02"
        yield connection


def test_an_oversize_message_is_no_reconnect_loop(path, bundle, broker):
    topic = down("device-1", Down.NOTIFY).encode()
    body = len(topic).to_bytes(2, "big") + topic + b"x" * 5000
    length = bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    with Server(broker) as server, RunningAgent(path, bundle, broker) as device:
        assert wait_until(lambda: device.is_connected)
        with bare_connection(broker) as rogue:
            rogue.sendall(b"\x30" + length + body)
            time.sleep(0.3)
        server.notify(1)
        assert wait_until(lambda: server.acked() == {1})
        assert device.agent._link.counters.losses == 0


def test_over_budget_only_acknowledgements_and_notices_pass(path, bundle, broker):
    with Server(broker) as server, RunningAgent(path, bundle, broker, bytes_per_day=1):
        server.notify(1)
        assert wait_until(lambda: server.acked() == {1})
        assert server.messages(Summary) + server.messages(Birth) == []
        with Mailbox(path) as mailbox:
            waiting = [Purpose.SUMMARIES]
            assert wait_until(lambda: [m.purpose for m in mailbox.outbox()] == waiting)


def test_a_stopped_device_neither_predicts_nor_tells_nor_shows(path, bundle, broker):
    stop = configuration(training=None, prediction=False, summaries=False, notices=False)
    with TelemetryStore(path) as store:
        store.keep_fact("configuration", {"sequence": 0, "prediction": False, "summaries": False})
    with Server(broker) as server, RunningAgent(path, bundle, broker) as device:
        server.send(sign_payload(encode(stop), KEY), kind=Down.CONFIG)
        assert wait_until(
            lambda: any(b.configuration_sequence == stop.sequence for b in server.messages(Birth))
        )
        server.notify(1)
        assert wait_until(lambda: device.counters.refused == {"stopped": 1})
        assert (device.counters.predictions, device.shown) == (0, [])
        go_on = configuration(sequence=2, training=None, predict_every_h=1)
        server.send(sign_payload(encode(go_on), KEY), kind=Down.CONFIG)
        assert wait_until(lambda: server.messages(Summary))
        server.notify(2)
        assert wait_until(lambda: server.acked() == {2})
