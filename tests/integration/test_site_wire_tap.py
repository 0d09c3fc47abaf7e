"""Every byte that leaves a device behind a gateway stands on the page that says what leaves."""

from dataclasses import fields

import pytest

from models.wire.codec import encode
from models.wire.contribution import Answer
from models.wire.messages import recognise
from models.wire.parts import Part, read_part
from models.wire.topics import Up, up
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.flaky_network import relay_to
from tests.support.line_bundle import write_line_bundle
from tests.support.site_devices import POLICY, SiteAgent, SiteDriver, site_store, step_of
from tests.support.wire_tap import (
    LINK_PACKETS,
    PUBLISH,
    named_on_the_page,
    packets_in,
)

pytestmark = pytest.mark.broker

UNSUBSCRIBE = 10
CONTRIBUTION = up("device-1", Up.CONTRIBUTION)
BEYOND = POLICY.num_rounds
"""A step that the policy does not have: every ledger refuses it."""
READABLE = {"tag", "digest", "number", "num_parts"}
"""What anybody on the way can read of a part; its chunk is of what is sealed."""


def tapped_step(folder, *, index=0):
    """Return all packets of a device that answers a step, and the driver that heard it."""
    folder.mkdir()
    path = site_store(folder / "device")
    bundle = write_line_bundle(folder / "line.zip")
    with (
        mosquitto_in(folder) as broker,
        relay_to(broker.host, broker.port) as wire,
        SiteDriver(broker) as driver,
    ):
        driver.broadcast()
        with SiteAgent(path, bundle, wire):
            offer = driver.offer(index=index)
            answer = driver.wait_for_answer(offer, path)
            driver.release(offer)
            assert wait_until(lambda: step_of(path).ending is not None)
        packets = packets_in(wire.sent_up)
    return packets, driver, offer, answer


def test_every_byte_of_a_device_behind_a_gateway_is_on_the_page(tmp_path):
    packets, driver, offer, answer = tapped_step(tmp_path / "one")

    assert {packet.kind for packet in packets} <= LINK_PACKETS | {PUBLISH, UNSUBSCRIBE}
    published = [packet for packet in packets if packet.kind == PUBLISH]
    others = [packet for packet in published if packet.topic != CONTRIBUTION]
    told = [recognise(one.topic, one.payload) for one in others]
    assert {message.TYPE for message in told} == {"birth", "status"}
    assert [encode(message) for message in told] == [one.payload for one in others]
    parts = [packet.payload for packet in published if packet.topic == CONTRIBUTION]
    assert parts == driver.parts_of(offer)
    assert len(parts) == driver.form(offer).num_parts

    # The parts are a header that anybody can read, and of the whole the gateway knows each byte.
    named = named_on_the_page()["contribution"]
    assert {one.name for one in fields(Part)} - {"chunk"} == READABLE
    assert {one.name for one in fields(Answer)} | {"signature"} == named - READABLE
    assert sum(len(read_part(part).chunk) for part in parts) == driver.form(offer).sealed_bytes
    assert answer.values.any()


def test_a_device_that_is_refused_by_its_ledger_sends_what_looks_alike(tmp_path):
    gave, refused = (
        tapped_step(tmp_path / name, index=index) for name, index in (("one", 0), ("two", BEYOND))
    )
    assert [step[3].values.any() for step in (gave, refused)] == [True, False]
    assert shown(gave[0]) == shown(refused[0])


def shown(packets):
    """Return what of a step's packets may not depend on what was decided."""
    return [
        (packet.topic, len(packet.payload), read_part(packet.payload).num_parts)
        for packet in packets
        if packet.kind == PUBLISH and packet.topic == CONTRIBUTION
    ]
