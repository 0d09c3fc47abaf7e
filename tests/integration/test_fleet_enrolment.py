"""Enrolment on a real database: tokens under races and crashes, renewal, revocation, rotation."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from server.authority.certificates import certificate_of_pem, serial_of
from server.authority.enrolment import enrol, revoke
from server.authority.home import Kind, make_home
from server.authority.services import begin_rotation, devices_behind, finish_rotation
from server.deployment.nodes import enrolled_nodes
from server.enrolled_keys import EnrolledKeys
from server.errors import AuthorityError, EnrolmentError
from server.storage.enrolments import Enrolments
from tests.support.secured_fleets import NOW, SOON, DeviceOnPaper, SecuredFleet, secured_fleet
from tests.support.system_parts import REPOSITORY

LIFE = timedelta(days=30)


@pytest.fixture
def fleet(tmp_path):
    with secured_fleet(tmp_path) as made:
        yield made


def refused(call, *arguments, **named):
    with pytest.raises(EnrolmentError) as caught:
        call(*arguments, **named)
    return caught.value.reason


def serial(answer):
    return serial_of(certificate_of_pem(answer.certificate.encode()))


def test_one_token_enrols_a_device_for_everything(fleet):
    device = DeviceOnPaper("device-1")

    answer = fleet.enrol(device)
    keys = EnrolledKeys(fleet.database).of("device-1")
    with fleet.database.reading() as connection:
        kept = Enrolments(connection).device("device-1")
    certificate = certificate_of_pem(answer.certificate.encode())

    assert certificate.subject.rfc4514_string() == "CN=device-1"
    assert certificate.not_valid_after_utc == NOW + LIFE
    assert keys.sign == device.signing_key.verify_key
    assert keys.seal.to_bytes() == device.opening_key.seal_key.to_bytes()
    assert kept.supernode_key == device.supernode
    assert (answer.broker, answer.time) == ("127.0.0.1:8883", NOW)


def test_nothing_that_is_kept_holds_the_token(fleet, tmp_path):
    token = fleet.token()
    fleet.enrol(DeviceOnPaper("device-1"), token=token)

    for path in tmp_path.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes()
    assert token not in repr(DeviceOnPaper("device-1").enrolment)


def test_every_key_of_the_authorities_is_private(fleet):
    keys = sorted(fleet.home.folder.glob("*.key"))

    assert len(keys) == 9
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    (fleet.home.folder / "device-ca-1.key").chmod(0o640)
    with pytest.raises(AuthorityError, match="others may read it"):
        fleet.enrol(DeviceOnPaper("device-1"))


def test_lost_answer_comes_again_for_the_same_keys_and_for_no_others(fleet):
    token, device = fleet.token(), DeviceOnPaper("device-1")
    first = fleet.enrol(device, token=token)

    again = fleet.enrol(device, token=token, now=NOW + 3 * SOON)
    thief = DeviceOnPaper("device-1")
    other = DeviceOnPaper("device-2")
    device.new_request()

    assert again.certificate == first.certificate
    for wrong in (thief, other, device):
        assert refused(fleet.enrol, wrong, token=token) == "bad_token"


def test_token_is_good_for_one_device_however_many_come_at_once(fleet):
    token = fleet.token()
    devices = [DeviceOnPaper(f"device-{number}") for number in range(8)]

    def attempt(device):
        try:
            return fleet.enrol(device, token=token).device_id
        except EnrolmentError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        told = sorted(pool.map(attempt, devices))

    assert told[:7] == ["bad_token"] * 7
    assert told[7].startswith("device-")
    with fleet.database.reading() as connection:
        assert Enrolments(connection).num_devices() == (1, 0)


def test_token_ends_and_made_up_ones_never_began(fleet):
    device, token = DeviceOnPaper("device-1"), fleet.token()

    assert refused(fleet.enrol, device, token=token, now=NOW + SOON) == "bad_token"
    assert refused(fleet.enrol, device, token="fct_" + "A" * 43) == "bad_token"
    assert refused(fleet.enrol, device, token="x") == "bad_token"


def test_token_for_anybody_takes_no_name_over(fleet):
    fleet.enrol(DeviceOnPaper("device-1"))
    thief = DeviceOnPaper("device-1")

    assert refused(fleet.enrol, thief) == "taken"
    bound = fleet.token(device_id="device-1")
    assert refused(fleet.enrol, DeviceOnPaper("device-2"), token=bound) == "bad_token"
    assert fleet.enrol(thief, token=bound).device_id == "device-1"


def test_two_devices_never_share_a_key_for_flower(fleet):
    stolen = DeviceOnPaper("stolen")
    ghost = DeviceOnPaper("ghost", supernode=stolen.supernode)
    fleet.enrol(stolen)

    assert refused(fleet.enrol, ghost) == "taken"
    stolen.new_request()
    assert fleet.enrol(stolen).device_id == "stolen"
    with fleet.database.transaction() as connection:
        revoke(connection, "stolen", because="theft", now=NOW)
    assert refused(fleet.enrol, ghost) == "taken"
    assert fleet.enrol(DeviceOnPaper("ghost")).device_id == "ghost"


def test_key_of_a_revoked_device_is_shut_out_under_every_name_of_an_older_database(fleet):
    stolen, ghost = DeviceOnPaper("stolen"), DeviceOnPaper("ghost")
    for device in (stolen, ghost, DeviceOnPaper("other")):
        fleet.enrol(device)
    with fleet.database.transaction() as connection:
        enrolments = Enrolments(connection)
        kept = enrolments.device("ghost")
        enrolments.keep_device(replace(kept, supernode_key=stolen.supernode))
        revoke(connection, "stolen", because="theft", now=NOW)
        left = enrolled_nodes(connection).keys

    assert set(left) == {"other"}


def test_device_joins_again_with_its_own_keys_and_its_former_certificate_ends(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    device.new_request()

    second = fleet.enrol(device)

    with fleet.database.reading() as connection:
        revoked = Enrolments(connection).revoked("device", 1)
    assert serial(first) in {number for number, _ in revoked}
    assert serial(second) not in {number for number, _ in revoked}


def test_request_of_another_key_than_it_brings_is_refused(fleet):
    device, other = DeviceOnPaper("device-1"), DeviceOnPaper("device-1")
    device.signing_key, other_key = other.signing_key, device.signing_key
    body = device.enrolment(fleet.token())
    device.signing_key = other_key
    forged = body.replace(
        other.signing_key.verify_key.to_bytes().hex().encode(),
        other_key.verify_key.to_bytes().hex().encode(),
    )

    assert refused(enrol, fleet.database, fleet.home, forged, now=NOW) == "bad_signature"
    assert refused(enrol, fleet.database, fleet.home, b"[]", now=NOW) == "bad_request"
    device.request = DeviceOnPaper("device-9").request
    assert refused(fleet.enrol, device) == "bad_request"


def test_renewal_needs_no_token_and_no_valid_certificate_but_the_key_that_enrolled(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    later = NOW + timedelta(days=200)
    device.new_request()

    renewed = fleet.renew(device, serial(first), now=later)
    thief = DeviceOnPaper("device-1")

    assert certificate_of_pem(renewed.certificate.encode()).not_valid_after_utc == later + LIFE
    assert fleet.renew(device, serial(first), now=later).certificate == renewed.certificate
    assert refused(fleet.renew, thief, serial(renewed), now=later + LIFE) == "bad_signature"
    assert refused(fleet.renew, DeviceOnPaper("device-2"), serial(first), now=later) == (
        "unknown_device"
    )


def test_renewal_that_was_recorded_is_worth_nothing_later(fleet):
    device = DeviceOnPaper("device-1")
    held = [serial(fleet.enrol(device))]
    recorded = []
    for month in range(1, 4):
        device.new_request()
        recorded.append((device.request, held[-1]))
        held.append(serial(fleet.renew(device, held[-1], now=NOW + month * LIFE)))

    device.request, replaced = recorded[0]

    assert refused(fleet.renew, device, replaced, now=NOW + 4 * LIFE) == "bad_request"


def test_new_certificate_comes_not_before_half_of_a_life(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    device.new_request()

    assert refused(fleet.renew, device, serial(first), now=NOW + LIFE / 3) == "too_early"
    assert fleet.renew(device, serial(first), now=NOW + LIFE * 2 / 3)


def test_revoked_device_gets_nothing_until_a_token_is_made_for_it(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    open_token = fleet.token(device_id="device-1")
    with fleet.database.transaction() as connection:
        assert revoke(connection, "device-1", because="stolen", now=NOW) == 1
        with pytest.raises(AuthorityError, match="is revoked since"):
            revoke(connection, "device-1", because="again", now=NOW)
    device.new_request()

    assert refused(fleet.renew, device, serial(first), now=NOW + LIFE) == "revoked"
    assert refused(fleet.enrol, device) == "taken"
    assert refused(fleet.enrol, device, token=open_token) == "bad_token"
    assert EnrolledKeys(fleet.database).of("device-1") is None
    fleet.enrol(device, token=fleet.token(device_id="device-1"))
    assert EnrolledKeys(fleet.database).of("device-1") is not None


def test_rotation_of_the_device_authority_loses_nobody(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    begin_rotation(fleet.home, Kind.DEVICE, now=NOW)
    with pytest.raises(AuthorityError, match="has begun"):
        begin_rotation(fleet.home, Kind.DEVICE, now=NOW)
    with fleet.database.transaction() as connection:
        assert devices_behind(connection, fleet.home, Kind.DEVICE, now=NOW) == ("device-1",)
    device.new_request()

    # The new authority's word is had at once, not only in the last third.
    second = fleet.renew(device, serial(first), now=NOW)

    issuer = certificate_of_pem(second.certificate.encode()).issuer.rfc4514_string()
    assert issuer == "CN=test device authority 2"
    with fleet.database.transaction() as connection:
        assert devices_behind(connection, fleet.home, Kind.DEVICE, now=NOW) == ()
        finish_rotation(connection, fleet.home, Kind.DEVICE, now=NOW)
    states = [one.state.value for one in fleet.home.fleet.of(Kind.DEVICE)]
    assert states == ["retired", "issuing"]
    assert b"authority 1" not in fleet.home.trusted_pem(Kind.DEVICE)


def test_rotation_of_the_server_authority_waits_for_devices_to_learn_of_it(fleet):
    device = DeviceOnPaper("device-1")
    first = fleet.enrol(device)
    later = NOW + timedelta(days=25)
    begin_rotation(fleet.home, Kind.SERVER, now=NOW + SOON)
    with fleet.database.transaction() as connection:
        assert devices_behind(connection, fleet.home, Kind.SERVER, now=later) == ("device-1",)
    device.new_request()

    told = fleet.renew(device, serial(first), now=later)

    assert told.authorities.count("BEGIN CERTIFICATE") == 2
    with fleet.database.transaction() as connection:
        assert devices_behind(connection, fleet.home, Kind.SERVER, now=later) == ()
        home = finish_rotation(connection, fleet.home, Kind.SERVER, now=later)
    broker = certificate_of_pem((home.folder / "broker.pem").read_bytes())
    assert broker.issuer.rfc4514_string() == "CN=test server authority 2"
    assert fleet.renew(device, serial(told), now=later + LIFE).authorities.count("BEGIN") == 1


def test_authority_is_not_made_twice(fleet):
    with pytest.raises(AuthorityError, match="holds an authority already"):
        make_home(fleet.home.folder, fleet.home.fleet, now=NOW)


VICTIM = """
import sys
from pathlib import Path
from server.authority.enrolment import enrol
from server.storage.database import open_database
from tests.support.secured_fleets import NOW, SecuredFleet
folder = Path(sys.argv[1])
with open_database(f"sqlite:///{folder / 'hub.db'}") as database:
    fleet = SecuredFleet(folder, database)
    print("ready", flush=True)
    for body in sorted(folder.glob("*.body")):
        enrol(database, fleet.home, body.read_bytes(), now=NOW)
        print(body.stem, flush=True)
"""


def test_killed_service_has_used_the_token_and_given_the_keys_or_neither(fleet, tmp_path):
    devices = {}
    for number in range(40):
        device, token = DeviceOnPaper(f"device-{number:02}", supernode=""), fleet.token()
        devices[device.device_id] = device, token
        (tmp_path / f"{device.device_id}.body").write_bytes(device.enrolment(token))
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert victim.stdout.readline() == b"ready\n"
    told = [victim.stdout.readline() for _ in range(5)]
    time.sleep(0.003)
    os.kill(victim.pid, signal.SIGKILL)
    told += victim.stdout.readlines()
    victim.wait()
    victim.stdout.close()

    with closing(sqlite3.connect(tmp_path / "hub.db")) as connection:
        used = {row[0] for row in connection.execute("SELECT used_by FROM enrolment_tokens")}
        known = {row[0] for row in connection.execute("SELECT device_id FROM enrolled_devices")}
    assert used - {None} == known
    assert {line.decode().strip() for line in told} <= known
    assert 5 <= len(known) < 40
    for device, token in devices.values():
        assert fleet.enrol(device, token=token).device_id == device.device_id


def test_fleet_is_read_by_whoever_opens_its_folder_next(fleet):
    assert SecuredFleet(fleet.folder, fleet.database).home.fleet == fleet.home.fleet
