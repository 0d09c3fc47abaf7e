"""Rounds over a real Mosquitto: a gateway speaks with its own site, and nobody speaks in its name.

The broker is configured by the fleet's own commands.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.wire import topics
from models.wire.announcements import release_topic
from models.wire.envelope import SigningKey
from models.wire.link_settings import LinkTls
from models.wire.site_credential import WEIGHTS_FILTER, weights_topic
from server.authority.enrolment import revoke
from server.authority.sites import write_site
from server.broker_setup.broker_folder import have_it_read
from server.broker_setup.configuration import ACCESS_FILE, RELEASES_CLIENT_ID
from server.storage.sites import Sites
from tests.support.brokers import Heard, wait_until
from tests.support.secured_fleets import secured_broker, secured_fleet

pytestmark = pytest.mark.broker

GATEWAY, OTHER_GATEWAY = "gate-1", "gate-2"
MEMBER, STRANGER = "meter-1", "meter-2"
SILENCE_S = 0.3
"""How long nothing has to come; what may pass takes a hundredth of it."""
CONTRIBUTION = topics.Up.CONTRIBUTION


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of two sites, each a gateway and one meter."""
    folder = tmp_path_factory.mktemp("sites")
    with secured_fleet(folder, now=datetime.now(UTC)) as fleet:
        home = fleet.home
        key = SigningKey.generate()
        home.keep(_believing(home.fleet, key))
        fleet.shown_by = {
            name: fleet.client(name) for name in (GATEWAY, OTHER_GATEWAY, MEMBER, STRANGER)
        }
        for gateway, meter in ((GATEWAY, MEMBER), (OTHER_GATEWAY, STRANGER)):
            _make_site(fleet, gateway, meter, key)
        with secured_broker(fleet) as running:
            running.key = key
            yield running


def _believing(fleet, key):
    public = key.verify_key
    return replace(fleet, server_keys={public.key_id: public.to_bytes().hex()})


def _make_site(fleet, gateway, meter, key):
    with fleet.database.transaction() as connection:
        write_site(
            connection,
            fleet.home,
            gateway,
            devices=[meter],
            most_devices=None,
            key=key,
            life=timedelta(days=90),
            now=datetime.now(UTC),
        )


def link_of(broker, name):
    return broker.link(name, broker.fleet.shown_by[name])


def listening(broker, name, *filters):
    link, heard = link_of(broker, name), Heard()
    for topic_filter in filters:
        link.subscribe(topic_filter, lambda _topic, _payload: None)
    link.on_traffic(lambda is_up, topic, size: None if is_up else heard(topic, b""))
    return link, heard


def test_a_gateway_hears_its_own_site_and_no_other(broker):
    everything = [topics.from_all_devices(kind) for kind in topics.Up]
    gateway, heard = listening(broker, GATEWAY, *everything, "#")
    with gateway, link_of(broker, MEMBER) as member, link_of(broker, STRANGER) as stranger:
        said = [
            link.publish(topics.up(name, kind), b"sealed")
            for link, name in ((stranger, STRANGER), (member, MEMBER))
            for kind in (CONTRIBUTION, topics.Up.RECEIPT, topics.Up.SUMMARY)
        ]
        assert all(one.wait(5) for one in said)
        heard.wait_for(2)
        wait_until(lambda: len(heard.messages) > 2, SILENCE_S)

    assert {topic for topic, _ in heard.messages} == {
        topics.up(MEMBER, CONTRIBUTION),
        topics.up(MEMBER, topics.Up.RECEIPT),
    }


def test_a_site_that_answers_all_at_once_loses_nothing(broker):
    said = 400
    gateway, heard = link_of(broker, GATEWAY), Heard()

    def take(topic, payload):
        time.sleep(0.001)
        heard(topic, payload)

    gateway.subscribe(topics.from_all_devices(CONTRIBUTION), take)
    with gateway, link_of(broker, MEMBER) as member:
        parts = [
            member.publish(topics.up(MEMBER, CONTRIBUTION), number.to_bytes(2, "big") * 2000)
            for number in range(said)
        ]
        assert all(one.wait(10) for one in parts)
        assert wait_until(lambda: len(heard.messages) == said, 10)

    assert [payload[:2] for payload in heard.payloads] == [
        number.to_bytes(2, "big") for number in range(said)
    ]


def test_a_gateway_asks_its_own_site_alone(broker):
    own, foreign = (topics.down(name, topics.Down.ROUND) for name in (MEMBER, STRANGER))
    member, heard = listening(broker, MEMBER, own, WEIGHTS_FILTER)
    with member, link_of(broker, GATEWAY) as gateway:
        assert gateway.publish(own, b"offer").wait(5)
        assert gateway.publish(weights_topic(GATEWAY, 0), b"weights", retain=True).wait(5)
        assert len(heard.wait_for(2)) == 2
        assert not gateway.publish(foreign, b"offer").wait(5)
        assert not gateway.publish(topics.down(MEMBER, topics.Down.NOTIFY), b"notice").wait(5)
        assert not gateway.publish(topics.down(MEMBER, topics.Down.CONFIG), b"stop").wait(5)
        assert not gateway.publish(weights_topic(OTHER_GATEWAY, 0), b"weights").wait(5)
        assert not gateway.publish(topics.up(MEMBER, CONTRIBUTION), b"answer").wait(5)
        assert gateway.publish(weights_topic(GATEWAY, 0), b"", retain=True).wait(5)


def test_a_device_speaks_in_no_gateways_name(broker):
    victim, heard = listening(
        broker, STRANGER, topics.down(STRANGER, topics.Down.ROUND), WEIGHTS_FILTER
    )
    with victim, link_of(broker, MEMBER) as device:
        for topic in (
            weights_topic(GATEWAY, 0),
            weights_topic(MEMBER, 0),
            topics.down(STRANGER, topics.Down.ROUND),
            topics.down(MEMBER, topics.Down.ROUND),
            topics.up(STRANGER, CONTRIBUTION),
        ):
            assert not device.publish(topic, b"forged").wait(5), topic
        wait_until(lambda: heard.messages, SILENCE_S)

    assert heard.messages == []


def test_the_hub_hears_no_contribution(broker):
    hub, heard = broker.link(topics.HUB_CLIENT_ID, broker.fleet.hub), Heard()
    hub.subscribe(topics.from_all_devices(CONTRIBUTION), heard)
    hub.subscribe(topics.from_all_devices(topics.Up.SUMMARY), heard)
    with hub, link_of(broker, MEMBER) as member:
        assert member.publish(topics.up(MEMBER, CONTRIBUTION), b"sealed").wait(5)
        assert member.publish(topics.up(MEMBER, topics.Up.SUMMARY), b"bands").wait(5)
        heard.wait_for(1)
        wait_until(lambda: len(heard.messages) > 1, SILENCE_S)

    assert [topic for topic, _ in heard.messages] == [topics.up(MEMBER, topics.Up.SUMMARY)]


def test_a_device_or_gateway_that_is_revoked_loses_its_lines_at_once(broker):
    fleet, now = broker.fleet, datetime.now(UTC)
    for name in ("gate-3", "meter-3", "meter-4"):
        fleet.shown_by[name] = fleet.client(name)
    with fleet.database.transaction() as connection:
        write_site(
            connection,
            fleet.home,
            "gate-3",
            devices=["meter-3", "meter-4"],
            most_devices=None,
            key=broker.key,
            life=timedelta(days=90),
            now=now,
        )
    rounds = {name: topics.down(name, topics.Down.ROUND) for name in ("meter-3", "meter-4")}
    broker.write()
    have_it_read(broker.folder)
    with link_of(broker, "gate-3") as gateway:
        assert wait_until(lambda: gateway.publish(rounds["meter-3"], b"offer").wait(5))

        _shut_out(broker, "meter-3")
        assert wait_until(lambda: not gateway.publish(rounds["meter-3"], b"offer").wait(5))
        assert gateway.publish(rounds["meter-4"], b"offer").wait(5)

        _shut_out(broker, "gate-3")
        assert wait_until(lambda: not gateway.publish(rounds["meter-4"], b"offer").wait(5))
        assert not gateway.publish(weights_topic("gate-3", 0), b"weights").wait(5)

    rights = (broker.folder / ACCESS_FILE).read_text()
    assert "user gate-3\ntopic deny #" in rights
    assert "meter-4" not in rights
    with fleet.database.reading() as connection:
        assert set(Sites(connection).granted()) == {GATEWAY, OTHER_GATEWAY}


def _shut_out(broker, name):
    with broker.fleet.database.transaction() as connection:
        revoke(connection, name, because="stolen", now=datetime.now(UTC))
    broker.write()
    have_it_read(broker.folder)


def services_tls(broker, name):
    folder = broker.fleet.home.folder
    return LinkTls(
        authorities=broker.fleet.shown_by[MEMBER].authorities,
        certificate=folder / f"{name}.pem",
        key=folder / f"{name}.key",
    )


def test_who_announces_releases_does_nothing_else(broker):
    tls = services_tls(broker, "releases")
    releases, heard = broker.link(RELEASES_CLIENT_ID, tls), Heard()
    releases.subscribe(topics.from_all_devices(topics.Up.SUMMARY), heard)
    releases.subscribe(topics.from_all_devices(CONTRIBUTION), heard)
    device, announced = link_of(broker, MEMBER), Heard()
    device.subscribe(release_topic("canary"), announced)
    with releases, device, broker.link(topics.HUB_CLIENT_ID, broker.fleet.hub) as hub:
        assert releases.publish(release_topic("canary"), b"manifest").wait(5)
        assert announced.wait_for(1) == [b"manifest"]
        assert not releases.publish(topics.down(MEMBER, topics.Down.NOTIFY), b"notice").wait(5)
        assert not releases.publish(weights_topic(GATEWAY, 0), b"weights").wait(5)
        assert device.publish(topics.up(MEMBER, topics.Up.SUMMARY), b"bands").wait(5)
        assert device.publish(topics.up(MEMBER, CONTRIBUTION), b"sealed").wait(5)
        wait_until(lambda: heard.messages, SILENCE_S)
        assert hub.counters.losses == 0

    assert heard.messages == []


@pytest.mark.parametrize("name", ["release-files", "superlink"])
def test_a_servers_certificate_passes_for_no_client(broker, name):
    assert not broker.lets_in(f"{topics.HUB_CLIENT_ID}-{name}", services_tls(broker, name))
