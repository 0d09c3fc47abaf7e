"""How much does a link that loses nothing cost against paho by itself?

Both send the same messages to the same Mosquitto on loopback at QoS 1 with the same window, in
turns; ours keeps each in the store's outbox first, and takes it out in groups once it is confirmed.
"""

from __future__ import annotations

import statistics
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.notice_receiver import NoticeReceiver
from edge_client.link.sending import AHEAD, GROUP, OutboxSender
from edge_client.link.traffic import TrafficMeter
from edge_client.store.mailbox import Mailbox, Purpose
from models.wire.codec import encode
from models.wire.envelope import SigningKey, sign_payload, trusted_keys
from models.wire.link import IN_FLIGHT_WINDOW
from models.wire.sealing import OpeningKey, padded, seal_envelope
from models.wire.topics import Down, Up, down, up
from tests.support.brokers import link_to, mosquitto_in, wait_until
from tests.support.edge_devices import NOW, new_store
from tests.support.figures import Figures
from tests.support.wire_messages import ack, notice

pytestmark = pytest.mark.broker

ROUNDS = 15
MESSAGES = 800
TOPIC = up("device-1", Up.ACK)
PAYLOAD = encode(ack())
FIGURES = Figures("edge")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with mosquitto_in(tmp_path_factory.mktemp("link")) as running:
        yield running


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as store:
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        yield store


class BarePaho:
    """paho as its documentation shows it."""

    def __init__(self, broker):
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="bare", protocol=mqtt.MQTTv5
        )
        self.client.max_inflight_messages_set(IN_FLIGHT_WINDOW)
        self.client.max_queued_messages_set(0)
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        assert wait_until(self.client.is_connected)

    def send(self, count):
        """Return the seconds until the broker has acknowledged so many messages."""
        began = time.perf_counter()
        sent = [self.client.publish(TOPIC, PAYLOAD, qos=1) for _ in range(count)]
        for one in sent:
            one.wait_for_publish(30)
        return time.perf_counter() - began

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class OurLink:
    """The store's outbox on its way: into the store, to the broker, out of the store."""

    def __init__(self, broker, store):
        self.store = store
        self.link = link_to(broker, "ours")
        self.meter = TrafficMeter(2**50, clock=lambda: NOW)
        self.link.on_traffic(self.meter.observe)
        self.link.connect()
        self.counters = AgentCounters()
        self.sender = OutboxSender(store, self.link, meter=self.meter, counters=self.counters)

    def send(self, count):
        """Return the seconds until so many messages are durable, sent, and out of the outbox."""
        before = self.counters.confirmed
        began = time.perf_counter()
        self.store.put_out_many(Purpose.NOTICES, [(TOPIC, PAYLOAD)] * count)
        self.sender.pump()
        took_s = time.perf_counter() - began
        assert self.counters.confirmed - before == count
        assert self.store.outbox() == ()
        return took_s

    def close(self):
        self.link.close()


def median_and_spread(values):
    return statistics.median(values), (min(values), max(values))


def test_a_link_that_loses_nothing_is_nearly_as_fast_as_one_that_may(broker, store):
    bare, ours = BarePaho(broker), OurLink(broker, store)
    ratios, rates = [], []
    try:
        for party in (bare, ours):
            party.send(MESSAGES // 4)
        for round_number in range(ROUNDS):
            order = (bare, ours) if round_number % 2 else (ours, bare)
            took_s = {party: party.send(MESSAGES) for party in order}
            ratios.append(took_s[bare] / took_s[ours])
            rates.append(MESSAGES / took_s[ours])
    finally:
        bare.close()
        ours.close()
    assert GROUP >= 20
    assert AHEAD > IN_FLIGHT_WINDOW
    ratio, spread = median_and_spread(ratios)
    FIGURES.add(
        "link_rate_against_paho",
        ratio,
        unit="ratio",
        target=0.8,
        better="higher",
        spread=spread,
        against=f"paho at QoS 1, window {IN_FLIGHT_WINDOW}, {MESSAGES} messages of 512 bytes",
    )
    rate, spread = median_and_spread(rates)
    FIGURES.add(
        "link_messages_per_s", rate, unit="1/s", target=None, better="higher", spread=spread
    )
    assert ratio >= 0.8


def test_a_single_message_leaves_within_milliseconds(broker, store):
    bare, ours = BarePaho(broker), OurLink(broker, store)
    bare_ms, ours_ms = [], []
    try:
        for party in (bare, ours):
            party.send(20)
        for _ in range(50):
            bare_ms.append(1e3 * bare.send(1))
            ours_ms.append(1e3 * ours.send(1))
    finally:
        bare.close()
        ours.close()
    value, spread = median_and_spread(ours_ms)
    against = f"paho alone: {statistics.median(bare_ms):.2f} ms, nothing on disk"
    FIGURES.add(
        "link_latency_of_one_message",
        value,
        unit="ms",
        target=None,
        better="lower",
        spread=spread,
        against=against,
    )
    assert value < 1000


def test_notices_that_come_together_are_kept_together(broker, store):
    """Sealed and signed notices, opened, verified, kept and acknowledged in the store's outbox."""
    server, opening = SigningKey.from_bytes(bytes(range(32))), OpeningKey.generate()
    topic = down("device-1", Down.NOTIFY)
    sequence, groups, rates = 0, [], []
    receiver = NoticeReceiver(
        Listener(
            path=store.path,
            device_id="device-1",
            trusted=trusted_keys(server.verify_key),
            clock=lambda: NOW,
            counters=AgentCounters(),
            opening_key=opening,
        ),
        wake=lambda: None,
    )
    arrived = threading.Semaphore(0)

    def take(messages):
        receiver.take(messages)
        groups.append(len(messages))
        arrived.release(len(messages))

    device, speaker = link_to(broker, "device-1"), link_to(broker, "speaker")
    device.subscribe_in_groups(topic, take)
    with device, speaker:
        for _ in range(7):
            sealed = []
            for _ in range(200):
                sequence += 1
                said = notice(id=f"{sequence:032x}", sequence=sequence)
                envelope = sign_payload(padded(encode(said)), server)
                sealed.append(seal_envelope(envelope, opening.seal_key, topic=topic))
            began = time.perf_counter()
            for message in sealed:
                speaker.publish(topic, message)
            for _ in sealed:
                assert arrived.acquire(timeout=30)
            rates.append(len(sealed) / (time.perf_counter() - began))
    with Mailbox(store.path) as mailbox:
        assert len(mailbox.notices()) == sequence
    rate, spread = median_and_spread(rates)
    FIGURES.add(
        "link_notices_kept_per_s",
        rate,
        unit="1/s",
        target=None,
        better="higher",
        spread=spread,
        against=f"sealed notices of {len(sealed[0])} bytes, {statistics.mean(groups):.1f} a group",
    )
    assert max(groups) == 20
