"""`fedcell server check-broker` at brokers that run: a safe one, and ones with a line taken out."""

from datetime import UTC, datetime

import pytest

from server.broker import LOOPBACK, free_port
from server.broker_setup.broker_check import check_broker
from server.broker_setup.checks import is_safe
from server.broker_setup.configuration import ACCESS_FILE, CONFIGURATION_FILE, PROBE_GATEWAY
from tests.support.brokers import mosquitto_in
from tests.support.command_line import fedcell
from tests.support.secured_fleets import SecuredBroker, secured_broker, secured_fleet

pytestmark = pytest.mark.broker

EVERYTHING = {
    "plain-text",
    "old-tls",
    "no-certificate",
    "rogue-authority",
    "expired-certificate",
    "revoked-certificate",
    "client-id-theft",
    "cross-device-publish",
    "cross-device-subscribe",
    "shared-subscription",
    "forged-release",
    "forged-weights",
    "forged-round",
    "other-site",
    "free-topics",
    "system-topics",
    "packet-size",
    "own-topics",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    with secured_fleet(folder, now=datetime.now(UTC)) as fleet, secured_broker(fleet) as running:
        yield running


def test_broker_as_it_is_configured_is_safe(broker):
    address = f"{LOOPBACK}:{broker.port}"
    folder = broker.fleet.home.folder

    ran = fedcell("server", "check-broker", "--broker", address, "--authority", folder, "--json")
    told = ran.json()

    assert {check["name"] for check in told["checks"]} == EVERYTHING
    assert [check for check in told["checks"] if check["verdict"] != "safe"] == []
    assert (ran.code, told["safe"]) == (0, True)
    (site,) = (check for check in told["checks"] if check["name"] == "other-site")
    assert site["seen"] == "heard its own site alone"


def test_ports_that_were_looked_at_are_said_and_a_plain_listener_on_another_is_found(
    broker, tmp_path
):
    """A broker of the same machine, on a port that nobody would guess."""
    address = f"{LOOPBACK}:{broker.port}"
    asked = ("server", "check-broker", "--broker", address)
    home = ("--authority", broker.fleet.home.folder)
    with mosquitto_in(tmp_path) as plain:
        ran = fedcell(*asked, "--also-port", plain.port, *home, "--json")
    told = ran.json()
    unsafe = {check["name"]: check for check in told["checks"] if check["verdict"] == "unsafe"}

    assert (ran.code, told["ports"]) == (1, [broker.port, 1883, plain.port])
    assert set(unsafe) == {"plain-text"}
    assert unsafe["plain-text"]["seen"] == f"let in on port {plain.port}"

    said = fedcell(*asked, "--also-port", free_port(), *home).out
    assert f"looked at ports {broker.port}, 1883, " in said
    assert "no others (--also-port), no WebSockets" in said
    assert "more-ports" in said


def unsafe_checks(broker, folder, *, without=(), extra=()):
    """Run a broker with lines taken out or added, and return what is found unsafe."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    text = (broker.folder / CONFIGURATION_FILE).read_text()
    taken = ("listener", "pid_file", "persist", *without)
    kept = [line for line in text.splitlines() if not line.startswith(taken)]
    kept[1:1] = [f"listener {port} {LOOPBACK}", f"pid_file {folder / 'mosquitto.pid'}", *extra]
    (folder / "changed.conf").write_text("\n".join(kept) + "\n")
    running = SecuredBroker(broker.fleet, folder, port)
    running.start(folder / "changed.conf")
    try:
        found = check_broker(
            broker.fleet.home, host=LOOPBACK, port=port, scratch=folder, now=datetime.now(UTC)
        )
    finally:
        running.stop()
    assert not is_safe(found)
    assert not [path for path in folder.iterdir() if path.name.startswith("probes-")]
    return {one.attempt.name for one in found if one.to_json()["verdict"] == "unsafe"}


def test_each_protection_that_is_taken_out_is_missed(broker, tmp_path):
    assert unsafe_checks(broker, tmp_path / "a", without=["acl_file", "sys_interval"]) == {
        "cross-device-publish",
        "cross-device-subscribe",
        "shared-subscription",
        "forged-release",
        "forged-weights",
        "forged-round",
        "other-site",
        "free-topics",
        "system-topics",
    }
    entrance = ["use_username_as_clientid", "crlfile", "max_packet_size"]
    assert unsafe_checks(broker, tmp_path / "b", without=entrance) == {
        "client-id-theft",
        "revoked-certificate",
        "packet-size",
    }


def test_a_gateway_that_may_hear_every_site_is_missed(broker, tmp_path):
    """Patterns in place of a site's own lines, as one would write them by hand."""
    rights = (broker.folder / ACCESS_FILE).read_text()
    place = "fedcell/v1/+/d/+"
    by_hand = rights.replace(
        f"user {PROBE_GATEWAY}\n",
        f"user {PROBE_GATEWAY}\ntopic read {place}/up/contribution\n",
    )
    (tmp_path / "by-hand.acl").write_text(f"{by_hand}pattern write {place}/dn/round\n")

    assert unsafe_checks(
        *(broker, tmp_path / "broker"),
        without=["acl_file"],
        extra=[f"acl_file {tmp_path / 'by-hand.acl'}"],
    ) == {"forged-round", "other-site"}


@pytest.mark.parametrize(
    "free",
    [
        "pattern write fedcell/v1/+/d/%u/up/reply",
        "pattern write fedcell/v1/+/d/%u/up/#",
        f"user {PROBE_GATEWAY}\ntopic write fedcell/v1/gateway/{PROBE_GATEWAY}/#",
    ],
)
def test_a_part_of_a_topic_that_is_free_is_found(broker, tmp_path, free):
    rights = (broker.folder / ACCESS_FILE).read_text()
    (tmp_path / "by-hand.acl").write_text(f"{rights}{free}\n")

    assert unsafe_checks(
        *(broker, tmp_path / "broker"),
        without=["acl_file"],
        extra=[f"acl_file {tmp_path / 'by-hand.acl'}"],
    ) == {"free-topics"}


def test_broker_without_identities_is_found_out(broker, tmp_path):
    found = unsafe_checks(
        broker,
        tmp_path,
        without=["require_certificate", "allow_anonymous", "use_", "acl_file"],
        extra=["allow_anonymous true"],
    )

    assert {"no-certificate", "client-id-theft", "cross-device-publish"} <= found


def test_broker_that_is_not_there_is_told_apart_from_a_safe_one(broker):
    nowhere = f"{LOOPBACK}:{free_port()}"

    ran = fedcell(
        *("server", "check-broker", "--broker", nowhere),
        *("--authority", broker.fleet.home.folder),
    )

    assert ran.is_refused(6, nowhere, "connection refused")
