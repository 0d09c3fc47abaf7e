"""Theft on a real Mosquitto: what a fleet's configuration refuses, and what happens without it."""

from datetime import UTC, datetime, timedelta

import pytest

from models.wire import topics
from models.wire.link_settings import LinkTls
from server.authority.enrolment import revoke
from server.broker import LOOPBACK, free_port
from server.broker_setup.broker_folder import have_it_read
from server.broker_setup.configuration import ACCESS_FILE, CONFIGURATION_FILE
from tests.support.brokers import Heard, wait_until
from tests.support.secured_fleets import SecuredBroker, secured_broker, secured_fleet

pytestmark = pytest.mark.broker

OWN, OTHER = "device-1", "device-2"
UP = topics.up(OTHER, topics.Up.REPLY)
DOWN = topics.down(OTHER, topics.Down.NOTIFY)
SILENCE_S = 0.3
"""How long nothing has to come; what may pass takes a hundredth of it."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A fleet's broker, and two devices' certificates."""
    folder = tmp_path_factory.mktemp("secured")
    with secured_fleet(folder, now=datetime.now(UTC)) as fleet, secured_broker(fleet) as running:
        running.own, running.other = fleet.client(OWN), fleet.client(OTHER)
        yield running


@pytest.fixture(scope="module")
def open_broker(broker, tmp_path_factory):
    """The same broker without identities and access list: what its configuration is there for."""
    folder = tmp_path_factory.mktemp("open")
    text = (broker.folder / CONFIGURATION_FILE).read_text()
    port = free_port()
    kept = [
        line
        for line in text.splitlines()
        if not line.startswith(("acl_file", "use_", "allow_", "listener", "pid_file", "persist"))
    ]
    kept[1:1] = [f"listener {port} {LOOPBACK}", f"pid_file {folder / 'mosquitto.pid'}"]
    (folder / "open.conf").write_text("\n".join([*kept, "allow_anonymous true"]) + "\n")
    running = SecuredBroker(broker.fleet, folder, port)
    running.own, running.other = broker.own, broker.other
    running.start(folder / "open.conf")
    yield running
    running.stop()


def heard_by(broker, client_id, tls, topic_filter):
    link, heard = broker.link(client_id, tls), Heard()
    link.subscribe(topic_filter, _ignore)
    # Whatever comes, also under a filter that the link itself would not know a message by.
    link.on_traffic(lambda is_up, topic, size: None if is_up else heard(topic, b""))
    return link, heard


def _ignore(_topic, _payload):
    """Let the observer of the traffic count."""


def try_to_read(broker, topic_filter):
    """Have the other device speak, and return what the thief and the hub heard of it."""
    thief, stolen = heard_by(broker, OWN, broker.own, topic_filter)
    hub, arrived = heard_by(broker, topics.HUB_CLIENT_ID, broker.fleet.hub, UP)
    with hub, thief, broker.link(OTHER, broker.other) as other:
        said = [other.publish(UP, b"private %d" % number) for number in range(10)]
        assert all(one.wait(5) for one in said)
        arrived.wait_for(10)
        stolen.wait_for(10, SILENCE_S)
    return stolen.messages, arrived.messages


@pytest.mark.parametrize("topic_filter", [UP, "#", topics.from_all_devices(topics.Up.REPLY)])
def test_device_hears_nothing_of_another(broker, topic_filter):
    stolen, arrived = try_to_read(broker, topic_filter)

    assert stolen == []
    assert len(arrived) == 10


def test_device_hears_everything_of_others_where_nothing_protects_them(open_broker):
    assert len(try_to_read(open_broker, "#")[0]) == 10


def test_shared_subscription_steals_nothing_from_a_hub_that_subscribes_plainly(broker):
    shared = f"$share/hub/{topics.from_all_devices(topics.Up.REPLY)}"

    stolen, arrived = try_to_read(broker, shared)

    assert stolen == []
    assert len(arrived) == 10


def test_shared_subscription_steals_from_a_hub_that_shares(broker):
    shared = f"$share/hub/{topics.from_all_devices(topics.Up.REPLY)}"
    hub, arrived = heard_by(broker, topics.HUB_CLIENT_ID, broker.fleet.hub, shared)
    thief, _ = heard_by(broker, OWN, broker.own, shared)
    with hub, thief, broker.link(OTHER, broker.other) as other:
        said = [other.publish(UP, b"private") for _ in range(20)]
        assert all(one.wait(5) for one in said)
        wait_until(lambda: len(arrived.messages) > 15, SILENCE_S)

    assert 5 <= len(arrived.messages) <= 15


@pytest.mark.parametrize(
    "topic",
    [
        UP,
        DOWN,
        topics.down(OWN, topics.Down.NOTIFY),
        "fedcell/v1/all/release",
        "fedcell/v1/ring/canary/release",
        "anything/else",
    ],
)
def test_device_may_speak_on_its_own_topics_alone(broker, topic):
    victim, heard = heard_by(broker, OTHER, broker.other, DOWN)
    with victim, broker.link(OWN, broker.own) as device:
        assert not device.publish(topic, b"forged").wait(5)
        assert device.publish(topics.up(OWN, topics.Up.REPLY), b"own").wait(5)
        wait_until(lambda: heard.messages, SILENCE_S)

    assert heard.messages == []


def test_forged_notice_arrives_where_nothing_protects(open_broker):
    victim, heard = heard_by(open_broker, OTHER, open_broker.other, DOWN)
    with victim, open_broker.link(OWN, open_broker.own) as device:
        assert device.publish(DOWN, b"forged").wait(5)
        assert len(heard.wait_for(1)) == 1


def test_hub_reaches_devices_and_announces_no_release(broker):
    device, heard = heard_by(broker, OTHER, broker.other, DOWN)
    device.subscribe("fedcell/v1/all/release", heard)
    with device, broker.link(topics.HUB_CLIENT_ID, broker.fleet.hub) as hub:
        assert hub.publish(DOWN, b"notice").wait(5)
        assert not hub.publish("fedcell/v1/all/release", b"manifest").wait(5)
        assert not hub.publish(topics.down(OTHER, topics.Down.ROUND), b"offer").wait(5)
        heard.wait_for(1)

    assert [topic for topic, _ in heard.messages] == [DOWN]


def steal_name(broker, client_id):
    """Connect as another device's client id, and tell whether that one was pushed out."""
    with broker.link(OTHER, broker.other, first_wait_s=5.0, longest_wait_s=5.0) as victim:
        with broker.link(client_id, broker.own):
            wait_until(lambda: victim.counters.losses, SILENCE_S)
        return victim.counters.losses


@pytest.mark.parametrize("client_id", [OTHER, topics.HUB_CLIENT_ID])
def test_client_id_cannot_be_stolen(broker, client_id):
    assert steal_name(broker, client_id) == 0


def test_client_id_is_stolen_where_names_are_free(open_broker):
    assert steal_name(open_broker, OTHER) == 1


def test_only_certificates_of_the_fleet_that_hold_are_let_in(broker):
    fleet, now = broker.fleet, datetime.now(UTC)
    day = timedelta(days=1)

    assert broker.lets_in(OWN, broker.own)
    assert not broker.lets_in(OWN, LinkTls(authorities=broker.own.authorities))
    assert not broker.lets_in(OWN, fleet.signed_by_a_rogue(OWN))
    assert not broker.lets_in("old", fleet.signed_by_us("old", start=now - 2 * day, end=now - day))
    assert not broker.lets_in("new", fleet.signed_by_us("new", start=now + day, end=now + 2 * day))
    # A certificate for servers passes for no client.
    folder = fleet.home.folder
    server = LinkTls(
        authorities=broker.own.authorities,
        certificate=folder / "broker.pem",
        key=folder / "broker.key",
    )
    assert not broker.lets_in("fedcell-hub-broker", server)


def test_revoked_device_falls_silent_at_once_and_is_not_let_in_again(broker):
    fleet = broker.fleet
    tls = fleet.client("device-3")
    topic = topics.up("device-3", topics.Up.REPLY)
    hub, arrived = heard_by(broker, topics.HUB_CLIENT_ID, fleet.hub, topic)
    with hub, broker.link("device-3", tls) as device:
        assert device.publish(topic, b"before").wait(5)
        assert len(arrived.wait_for(1)) == 1
        with fleet.database.transaction() as connection:
            revoke(connection, "device-3", because="stolen", now=datetime.now(UTC))
        broker.write()
        assert have_it_read(broker.folder) == broker.process.pid

        assert wait_until(lambda: not device.publish(topic, b"after").wait(5))
        told = len(arrived.messages)
        assert not device.publish(topic, b"after").wait(5)
        assert not broker.lets_in("device-3", tls)
        assert broker.lets_in(OWN, broker.own)

    assert len(arrived.messages) == told
    assert "user device-3\ntopic deny #" in (broker.folder / ACCESS_FILE).read_text()


def test_devices_that_are_revoked_in_one_second_are_all_shut_out(broker):
    fleet = broker.fleet
    names = [f"device-{number}" for number in range(10, 14)]
    shown = {name: fleet.client(name) for name in names}
    assert broker.lets_in(names[-1], shown[names[-1]])
    for name in names:
        with fleet.database.transaction() as connection:
            revoke(connection, name, because="stolen", now=datetime.now(UTC))
        broker.write()
        have_it_read(broker.folder)

    assert wait_until(lambda: not broker.lets_in(names[-1], shown[names[-1]]))
    assert not any(broker.lets_in(name, shown[name]) for name in names)
    assert broker.lets_in(OWN, broker.own)


def test_broker_that_starts_outlives_being_told_to_read(broker, tmp_path):
    starting = SecuredBroker(broker.fleet, tmp_path / "starting", free_port())
    starting.write()
    starting.begin()
    try:
        assert have_it_read(starting.folder) == starting.process.pid
        assert wait_until(lambda: starting.lets_in(OWN, broker.own))
    finally:
        starting.stop()


def test_broker_of_another_fleet_is_not_spoken_to(broker, tmp_path):
    with secured_fleet(tmp_path / "other", now=datetime.now(UTC)) as other:
        stranger = other.client(OWN)

        assert not broker.lets_in(OWN, stranger)
        # Nor does the device believe a broker that another authority speaks for.
        mixed = LinkTls(authorities=stranger.authorities, certificate=broker.own.certificate)
        assert not broker.lets_in(OWN, mixed)


def test_oversized_packet_ends_the_connection(broker):
    with broker.link(OWN, broker.own) as device:
        device._client.publish(topics.up(OWN, topics.Up.REPLY), b"x" * 100_000, qos=1)

        assert wait_until(lambda: device.counters.losses)


def test_a_device_fills_the_broker_with_no_more_than_it_has_topics(broker):
    """What it retained under shards of its own making stayed, and no command removed it."""
    own = f"d/{OWN}/up/{topics.Up.STATUS.value}"
    with broker.link(OWN, broker.own) as device:
        said = [
            device.publish(f"{topics.PREFIX}/{number:x}/{own}", b"x" * 4000, retain=True)
            for number in range(0x200)
        ]
        taken = [number for number, one in enumerate(said) if one.wait(5)]
        cleared = [
            device.publish(f"{topics.PREFIX}/{number:x}/{own}", b"", retain=True)
            for number in taken
        ]
        assert all(one.wait(5) for one in cleared)

    assert taken == list(range(0x10, 0x100))
