"""Who may be behind a gateway, what its site file says, and `fedcell fleet gateway` as typed."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.wire.envelope import SigningKey
from models.wire.site_credential import read_site
from server.authority.enrolment import revoke
from server.authority.serving import warn_of_due
from server.authority.sites import site_states, write_site
from server.errors import AuthorityError
from server.signer import load_signer, make_key_file
from tests.support.command_line import fedcell
from tests.support.secured_fleets import NOW, DeviceOnPaper, secured_fleet

METERS = ("meter-1", "meter-2", "meter-3")
DAYS = timedelta(days=90)


@pytest.fixture
def fleet(tmp_path):
    """A fleet of three meters and two that can be gateways, and the server's key."""
    with secured_fleet(tmp_path / "fleet") as made:
        key = make_key_file(tmp_path / "server.pem")
        home = made.home
        home.keep(replace(home.fleet, server_keys={key.key_id: key.to_bytes().hex()}))
        made.key = load_signer(tmp_path / "server.pem").key
        made.devices = {
            name: DeviceOnPaper(name, supernode="") for name in (*METERS, "gate-1", "gate-2")
        }
        for device in made.devices.values():
            made.enrol(device)
        yield made


def gateway(fleet, name, *devices, most=None, key=None):
    """Make a gateway of a device, or write its site anew, and return what the file says."""
    with fleet.database.transaction() as connection:
        made = write_site(
            connection,
            fleet.home,
            name,
            devices=devices or None,
            most_devices=most,
            key=key or fleet.key,
            life=DAYS,
            now=NOW,
        )
    trusted = {fleet.key.verify_key.key_id: fleet.key.verify_key}
    return read_site(made.content, trusted, NOW), made.left_out


def shut_out(fleet, name):
    with fleet.database.transaction() as connection:
        revoke(connection, name, because="stolen", now=NOW)


def states(fleet):
    with fleet.database.reading() as connection:
        return {one.gateway: one for one in site_states(connection)}


def names(site):
    return [one.device_id for one in site.devices]


def test_a_site_file_names_devices_with_the_keys_that_they_enrolled(fleet):
    site, _ = gateway(fleet, "gate-1", "meter-2", "meter-1", most=3)

    keys = fleet.devices["gate-1"]
    assert (site.credential.gateway, site.credential.most_devices) == ("gate-1", 3)
    assert site.credential.not_after == NOW + DAYS
    assert site.credential.verify_key == keys.signing_key.verify_key.to_bytes().hex()
    assert site.credential.seal_key == keys.opening_key.seal_key.to_bytes().hex()
    assert {one.device_id: one.verify_key for one in site.devices} == {
        name: fleet.devices[name].signing_key.verify_key.to_bytes().hex()
        for name in ("meter-1", "meter-2")
    }
    site.require_grants({fleet.key.verify_key.key_id: fleet.key.verify_key}, NOW)
    assert list(site.grants) == ["meter-1", "meter-2"]
    state = states(fleet)["gate-1"]
    assert (state.devices, state.most_devices, state.is_current) == (
        ("meter-1", "meter-2"),
        3,
        True,
    )


def test_a_device_is_behind_one_gateway_at_most(fleet):
    gateway(fleet, "gate-1", "meter-1", "meter-2")

    with pytest.raises(AuthorityError, match="meter-2: is behind gate-1"):
        gateway(fleet, "gate-2", "meter-2", "meter-3")

    assert set(states(fleet)) == {"gate-1"}
    assert names(gateway(fleet, "gate-1", "meter-1")[0]) == ["meter-1"]
    assert names(gateway(fleet, "gate-2", "meter-2", "meter-3")[0]) == ["meter-2", "meter-3"]


def test_a_revoked_device_is_out_of_the_site_that_is_written_anew(fleet):
    gateway(fleet, "gate-1", *METERS)
    shut_out(fleet, "meter-2")
    assert not states(fleet)["gate-1"].is_current

    site, _ = gateway(fleet, "gate-1")

    assert names(site) == ["meter-1", "meter-3"]
    assert site.credential.most_devices == 3
    assert states(fleet)["gate-1"].is_current
    assert gateway(fleet, "gate-1", *METERS)[1] == ("meter-2",)


def test_a_revoked_gateway_sets_its_devices_free(fleet):
    gateway(fleet, "gate-1", "meter-1", "meter-2")
    shut_out(fleet, "gate-1")

    assert states(fleet) == {}
    with pytest.raises(AuthorityError, match="gate-1: is shut out"):
        gateway(fleet, "gate-1", "meter-1")
    assert names(gateway(fleet, "gate-2", "meter-1", "meter-2")[0]) == ["meter-1", "meter-2"]


def test_keys_that_changed_ask_for_a_new_site(fleet):
    gateway(fleet, "gate-1", "meter-1")
    anew = DeviceOnPaper("meter-1", supernode="")
    fleet.enrol(anew, token=fleet.token(device_id="meter-1"))
    assert not states(fleet)["gate-1"].is_current

    (device,) = gateway(fleet, "gate-1")[0].devices

    assert device.verifier.to_bytes() == anew.signing_key.verify_key.to_bytes()
    assert states(fleet)["gate-1"].is_current


@pytest.mark.parametrize(
    ("name", "devices", "words"),
    [
        ("gate-1", (), "is no gateway yet"),
        ("nobody", ("meter-1",), "was never enrolled"),
        ("gate-1", ("meter-9",), "meter-9: was never enrolled"),
        ("gate-1", ("gate-1",), "is a gateway itself"),
        ("gate-1", METERS, "3 devices are behind it, and it may answer for 2"),
    ],
)
def test_what_is_no_site_changes_nothing(fleet, name, devices, words):
    with pytest.raises(AuthorityError, match=words):
        gateway(fleet, name, *devices, most=2)

    assert states(fleet) == {}


def test_a_gateway_is_behind_no_other(fleet):
    gateway(fleet, "gate-1", "meter-1")

    with pytest.raises(AuthorityError, match="gate-1: is a gateway itself"):
        gateway(fleet, "gate-2", "gate-1")
    with pytest.raises(AuthorityError, match="is a device behind gate-1"):
        gateway(fleet, "meter-1", "meter-2")


def test_a_key_that_devices_do_not_believe_signs_no_credential(fleet):
    with pytest.raises(AuthorityError, match="do not believe the key"):
        gateway(fleet, "gate-1", "meter-1", key=SigningKey.generate())

    assert states(fleet) == {}


def test_a_site_is_due_in_the_last_third_of_its_credential(fleet, caplog):
    gateway(fleet, "gate-1", "meter-1")
    third = NOW + DAYS * 2 / 3

    assert not states(fleet)["gate-1"].is_due(third - timedelta(seconds=1))
    assert states(fleet)["gate-1"].is_due(third)
    with caplog.at_level(logging.WARNING):
        warn_of_due(fleet.database, fleet.home.folder, now=NOW)
        assert caplog.text == ""
        warn_of_due(fleet.database, fleet.home.folder, now=third)
    assert "the site of gate-1 ends on 2026-05-30: fedcell fleet gateway gate-1" in caplog.text


def test_the_command_writes_the_file_and_status_says_when_it_is_due(fleet, tmp_path):
    told = ("--db", f"sqlite:///{fleet.folder / 'hub.db'}", "--authority", fleet.home.folder)
    to = ("--out", tmp_path / "site.json", "--signing-key", tmp_path / "server.pem")
    (tmp_path / "meters.txt").write_text("meter-2\nmeter-1\n\n")

    ran = fedcell("fleet", "gateway", "gate-1", *to, *told, "--devices", tmp_path / "meters.txt")
    shut_out(fleet, "meter-2")
    state = fedcell("fleet", "status", *told)
    again = fedcell("fleet", "gateway", "gate-1", *to, *told, "--json")

    assert "gate-1 answers for 2 devices until" in ran.out
    assert "write it anew: fedcell fleet gateway gate-1" in state.out
    assert (again.code, again.json()["devices"]) == (0, ["meter-1"])
    trusted = {fleet.key.verify_key.key_id: fleet.key.verify_key}
    site = read_site((tmp_path / "site.json").read_bytes(), trusted, datetime.now(UTC))
    assert names(site) == ["meter-1"]
    for devices, code, words in (("a/b", 2, "must not hold"), (",", 2, "names no device")):
        refused = fedcell("fleet", "gateway", "gate-1", *to, *told, "--devices", devices)
        assert refused.is_refused(code, words)


def test_a_file_that_cannot_be_written_grants_nothing(fleet, tmp_path):
    told = ("--db", f"sqlite:///{fleet.folder / 'hub.db'}", "--authority", fleet.home.folder)
    key, broker = ("--signing-key", tmp_path / "server.pem"), tmp_path / "broker"
    nowhere = ("--out", tmp_path / "none" / "site.json", "--broker-folder", broker)

    ran = fedcell("fleet", "gateway", "gate-1", "--devices", "meter-1", *key, *nowhere, *told)

    assert ran.is_refused(3, "none/site.json: cannot be written")
    assert not broker.exists()
    assert states(fleet) == {}
