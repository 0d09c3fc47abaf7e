"""Certificates of a fleet's own services: for whom, when they are due, and SuperNodes' keys."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from server.authority.certificates import common_name
from server.authority.enrolment import revoke
from server.authority.home import Kind
from server.authority.services import (
    SERVICE_LIFE,
    Service,
    begin_rotation,
    certify_service,
    finish_rotation,
    service_certificate,
    service_states,
    services_of,
)
from server.authority.serving import warn_of_due
from server.authority.supernodes import enrolled_supernodes
from server.errors import AuthorityError
from tests.support.command_line import fedcell
from tests.support.secured_fleets import NOW, DeviceOnPaper, secured_fleet


@pytest.fixture
def fleet(tmp_path):
    with secured_fleet(tmp_path) as made:
        yield made


def due(fleet, now):
    return {one.service for one in service_states(fleet.home, now=now) if one.is_due}


def test_each_service_has_a_name_and_one_use(fleet):
    uses = {}
    for service in Service:
        found = service_certificate(fleet.home, service)
        (use,) = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        uses[service] = (common_name(found), use == ExtendedKeyUsageOID.SERVER_AUTH)

    assert uses == {
        Service.BROKER: ("fedcell-hub-broker", True),
        Service.ENROLMENT: ("fedcell-hub-enrolment", True),
        Service.HUB: ("fedcell-hub", False),
        Service.RELEASES: ("fedcell-hub-releases", False),
        Service.RELEASE_FILES: ("fedcell-hub-release-files", True),
        Service.SUPERLINK: ("fedcell-hub-superlink", True),
    }
    names = service_certificate(fleet.home, Service.SUPERLINK).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]


def test_a_service_without_hosts_is_none_of_the_fleets(fleet):
    home = fleet.home.keep(replace(fleet.home.fleet, superlink="", superlink_hosts=()))

    assert set(services_of(home)) == set(Service) - {Service.SUPERLINK}
    with (
        fleet.database.transaction() as connection,
        pytest.raises(AuthorityError, match="--superlink HOST:PORT"),
    ):
        certify_service(connection, home, Service.SUPERLINK, now=NOW)


def test_certificates_are_due_two_months_before_their_end(fleet, caplog):
    soon = NOW + SERVICE_LIFE - timedelta(days=60)
    with fleet.database.transaction() as connection:
        certify_service(connection, fleet.home, Service.HUB, now=NOW + timedelta(days=1))

    assert due(fleet, soon - timedelta(seconds=1)) == set()
    assert due(fleet, soon) == set(Service) - {Service.HUB}
    with caplog.at_level(logging.WARNING):
        warn_of_due(fleet.database, fleet.home.folder, now=soon)
    assert "the certificate of broker ends on 2027-04-02: fedcell fleet certify broker" in (
        caplog.text
    )
    assert "of hub " not in caplog.text


def test_a_service_that_has_no_certificate_yet_is_due(fleet):
    (fleet.home.folder / "releases.pem").unlink()

    assert due(fleet, NOW) == {Service.RELEASES}


def test_services_follow_the_authority_that_is_rotated(fleet):
    begun = begin_rotation(fleet.home, Kind.SERVER, now=NOW)
    with fleet.database.transaction() as connection:
        home = finish_rotation(connection, begun, Kind.SERVER, now=NOW)

    assert due(fleet, NOW) == set()
    newest = home.certificate(home.fleet.issuing(Kind.SERVER))
    for service in Service:
        service_certificate(home, service).verify_directly_issued_by(newest)


def test_devices_are_told_where_the_superlink_is(fleet):
    device = DeviceOnPaper("meter-1")
    answer = fleet.enrol(device)

    assert answer.superlink == fleet.home.fleet.superlink
    fleet.home.keep(replace(fleet.home.fleet, superlink="nodes.example:9092"))
    device.new_request()
    held = service_serial(answer.certificate)
    later = fleet.renew(device, held, now=NOW + timedelta(days=25))
    assert later.superlink == "nodes.example:9092"


def service_serial(pem):
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:040x}"


def test_supernodes_are_those_of_devices_that_are_not_shut_out(fleet):
    devices = [DeviceOnPaper(f"meter-{number}") for number in (2, 1)]
    for device in (*devices, DeviceOnPaper("small", supernode="")):
        fleet.enrol(device)
    with fleet.database.reading() as connection:
        assert enrolled_supernodes(connection) == [
            ("meter-1", devices[1].supernode),
            ("meter-2", devices[0].supernode),
        ]
    with fleet.database.transaction() as connection:
        revoke(connection, "meter-1", because="", now=NOW)

    with fleet.database.reading() as connection:
        assert enrolled_supernodes(connection) == [("meter-2", devices[0].supernode)]


def test_hosts_can_be_named_later(tmp_path):
    told = ("--db", f"sqlite:///{tmp_path / 'hub.db'}", "--authority", tmp_path / "authority")
    fedcell("fleet", "init", "--broker", "b:8883", "--enrolment-host", "e", *told)

    refused = fedcell("fleet", "certify", "superlink", *told)
    alone = fedcell("fleet", "certify", "--superlink-host", "n", *told)
    wrong = fedcell("fleet", "certify", "--superlink", "n", *told)
    named = fedcell(
        *("fleet", "certify", "superlink", "release-files", *told, "--json"),
        *("--superlink", "nodes:9092", "--superlink-host", "192.0.2.1", "--release-host", "files"),
    )
    state = fedcell("fleet", "status", *told, "--json").json()

    assert refused.is_refused(3, "--superlink HOST:PORT")
    assert alone.is_refused(2, "superlink: is missing")
    assert wrong.is_refused(2, "is no address")
    assert (named.code, set(named.json()["certified"])) == (0, {"superlink", "release-files"})
    assert (set(state["services"]), state["due"]) == (set(Service), [])
