"""`fedcell-device join` against the real service over HTTPS, and a certificate's life after it."""

import http.client
import json
import logging
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from edge_client.cli import main
from edge_client.errors import ServiceUnreachableError
from edge_client.provisioning import enrolment_client, membership
from edge_client.provisioning.first_boot import add_identity
from edge_client.provisioning.identity import read_identity
from edge_client.provisioning.joining import join
from edge_client.provisioning.membership import membership_folder, read_membership, read_pending
from edge_client.provisioning.renewal import CertificateKeeper
from models.wire.enrolment import ENROL_PATH, MAX_BODY_BYTES
from server.authority import service as service_module
from server.authority.home import Kind
from server.authority.serving import running_service
from server.broker import LOOPBACK
from server.storage.enrolments import Enrolments
from tests.support.brokers import wait_until
from tests.support.edge_devices import new_store
from tests.support.secured_fleets import secured_fleet


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A fleet whose enrolment service runs; its clock is moved by tests."""
    folder, now = tmp_path_factory.mktemp("fleet"), datetime.now(UTC)
    with secured_fleet(folder, now=now) as fleet:

        def clock():
            return fleet.clock()

        fleet.clock = lambda: datetime.now(UTC)
        with running_service(
            fleet.database, fleet.home, host=LOOPBACK, port=0, clock=clock
        ) as port:
            fleet.port, fleet.address = port, f"https://{LOOPBACK}:{port}"
            yield fleet


@pytest.fixture
def device(tmp_path, served, monkeypatch, capsys):
    """A device that has its keys and calls `join`."""
    # Each test has tries of its own, as each has a device of its own.
    monkeypatch.setattr(service_module, "FAILURES_AT_ONCE", 20)
    store = new_store(tmp_path)
    name = f"device-{tmp_path.name[-24:]}"
    store.close()

    def call(token, *arguments, address=served.address, fingerprint=served.pinned):
        pinned = () if fingerprint is None else ("--ca-fingerprint", fingerprint)
        flags = ("--store", str(tmp_path / "device.db"), "--token", token, *pinned, "--json")
        code = main(["join", address, *flags, *arguments])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    def status():
        main(["status", "--store", str(tmp_path / "device.db"), "--json"])
        return json.loads(capsys.readouterr().out)["fleet"]

    assert status()["state"] == "none"
    call.status = status
    call.store, call.name = tmp_path / "device.db", name
    return call


def token_for_device(served):
    """Return a token for the one name that all stores of these tests bear."""
    return served.token(device_id="device-1", now=datetime.now(UTC))


def files_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_device_joins_once_and_says_so_afterwards(device, served):
    code, told = device(token_for_device(served))
    folder = membership_folder(device.store)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    again, said = device("fct_of_no_use")
    shown = device.status()

    assert (code, again) == (0, 0)
    assert (told["made"], said["made"]) == (True, False)
    assert (shown["state"], shown["broker"]) == ("joined", "127.0.0.1:8883")
    assert files_of(folder) == ["authorities-1.pem", "device-1.pem", "fleet.json", "supernode"]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    with served.database.reading() as connection:
        kept = Enrolments(connection).device("device-1")
    identity = read_identity(device.store)
    assert kept.sign_key == identity.signing_key.verify_key.to_bytes()
    assert kept.seal_key == identity.opening_key.seal_key.to_bytes()


def test_supernode_key_is_one_that_flower_reads(device, served):
    from cryptography.hazmat.primitives.serialization import (
        load_ssh_private_key,
        load_ssh_public_key,
    )

    told = device(token_for_device(served))[1]

    private = load_ssh_private_key(Path(told["supernode_key"]).read_bytes(), password=None)
    with served.database.reading() as connection:
        kept = Enrolments(connection).device("device-1").supernode_key
    assert private.public_key() == load_ssh_public_key(kept.encode())


def test_device_whose_answer_was_lost_gets_it_with_the_same_keys(device, served, monkeypatch):
    token = token_for_device(served)

    def lose(self, body):
        kept(self, body)
        raise ServiceUnreachableError("service", "no answer: cut", "try again")

    kept = enrolment_client.EnrolmentService.enrol
    with monkeypatch.context() as patched:
        patched.setattr(enrolment_client.EnrolmentService, "enrol", lose)
        code, line = device(token)
    keys = read_pending(membership_folder(device.store))

    again, told = device(token)

    assert (code, again) == (6, 0)
    assert "no answer" in line
    assert keys.key in read_membership(device.store).certificate.read_text()
    assert read_pending(membership_folder(device.store)) is None
    assert told["made"]


def test_crash_at_any_file_leaves_all_or_nothing(device, served, monkeypatch):
    write, token = membership._write_private, token_for_device(served)
    for cut in ("pending", "supernode", "device-", "authorities-", "fleet"):

        def fail(path, content, *, cut=cut):
            if path.name.startswith(cut):
                raise OSError(28, "No space left on device")
            write(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(membership, "_write_private", fail)
            code, line = device(token)
        assert (code, "No space left" in line) == (6, True)
        assert read_membership(device.store) is None

    assert device(token)[1]["made"]


@pytest.mark.parametrize(
    ("fingerprint", "words"),
    [
        ("00" * 32, "names no authority with this fingerprint"),
        ("abc", "is no fingerprint of 64 hex digits"),
        (None, "is not known by an authority"),
    ],
)
def test_service_that_is_not_the_fleets_is_told_no_token(device, served, fingerprint, words):
    token = token_for_device(served)

    code, line = device(token, fingerprint=fingerprint)

    assert code == 5
    assert words in line
    assert device(token)[1]["made"], "the token was not used"


def test_errors_say_what_to_do(device, served):
    where = f"fedcell-device: {LOOPBACK}:{served.port}"
    said = f"{where}: there is no such token; ask the operator for a new token\n"

    assert device("fct_" + "A" * 43) == (5, said)
    assert device("x", address="http://127.0.0.1:1")[0] == 5
    assert device("x", address="https://127.0.0.1:1")[0] == 6
    assert device("")[0] == 2


def test_device_of_one_fleet_is_not_taken_into_another_by_mistake(device, served):
    device(token_for_device(served))

    code, line = device("x", address="https://other.example:8443")

    assert code == 5
    assert "--anew" in line
    assert device(token_for_device(served), "--anew")[1]["made"]


def test_device_that_is_erased_keeps_no_key(device, served, capsys):
    device(token_for_device(served))

    assert main(["erase", "--yes", "--store", str(device.store)]) == 0
    capsys.readouterr()

    assert not membership_folder(device.store).exists()


# --- the certificate's life -----------------------------------------------------------------------


class Device:
    """A joined device's certificate keeper, with clocks of the test."""

    def __init__(self, served, folder, *, clock):
        with new_store(folder) as store:
            add_identity(store, hardware_id=None)
        self.store, self.elapsed_s = folder / "device.db", 0.0
        self.identity = read_identity(self.store)
        joined = join(
            self.store,
            self.identity,
            address=served.address,
            token=token_for_device(served),
            fingerprint=served.pinned,
        )
        self.clock = clock
        self.keeper = CertificateKeeper(
            self.store,
            self.identity,
            joined.membership,
            clock=self.shown_time,
            elapsed_s=lambda: self.elapsed_s,
            jitter=Random(7),
        )

    def shown_time(self):
        return self.clock()

    def poll(self, *, is_connected):
        self.keeper.poll(now=self.clock(), elapsed_s=self.elapsed_s, is_connected=is_connected)
        assert wait_until(lambda: not self.keeper.is_busy())
        return self.keeper.membership.number


@pytest.fixture
def later(served):
    """Move the service's clock; it is put back afterwards."""

    def move(**duration):
        shift = timedelta(**duration)
        served.clock = lambda: datetime.now(UTC) + shift
        return served.clock

    yield move
    served.clock = lambda: datetime.now(UTC)


def test_certificate_is_renewed_in_the_last_third_and_not_before(served, tmp_path, later):
    device = Device(served, tmp_path, clock=served.clock)
    first = device.keeper.membership
    device.clock = later(days=19)
    assert device.poll(is_connected=True) == 1

    device.clock = later(days=21)
    assert device.poll(is_connected=True) == 2

    renewed = read_membership(device.store)
    assert renewed.serial != first.serial
    assert device.keeper.link_tls().certificate == renewed.certificate
    assert first.certificate.exists(), "a link that reads it just now still can"
    assert renewed.supernode_key.exists()


def test_device_that_was_away_for_a_year_renews_a_certificate_that_is_over(served, tmp_path, later):
    device = Device(served, tmp_path, clock=served.clock)
    device.clock = later(days=365)

    assert device.poll(is_connected=False) == 2
    assert device.keeper.membership.not_after > device.clock()


@pytest.mark.parametrize("year", [1970, 2020, 2090])
def test_device_whose_clock_is_wrong_renews_by_the_services_time(served, tmp_path, later, year):
    device = Device(served, tmp_path, clock=served.clock)
    device.clock = lambda: datetime(year, 1, 1, tzinfo=UTC)
    later(days=25)
    device.elapsed_s = 1000.0

    assert device.poll(is_connected=False) == 2
    assert device.keeper.clock_is_wrong()
    assert not device.keeper.link_tls().looks_at_time


def test_device_joins_with_a_clock_that_says_1970(device, served):
    # What a pinned authority signed is not looked at for its time; see the request itself.
    service = enrolment_client.service_at(served.address, fingerprint=served.pinned)

    assert not service.looks_at_time
    assert abs(service.time() - datetime.now(UTC)) < timedelta(minutes=1)


# --- the service ----------------------------------------------------------------------------------


def ask(served, method, path, body=None, *, context=None):
    if context is None:
        context = ssl.create_default_context(cadata=served.home.trusted_pem(Kind.SERVER).decode())
    connection = http.client.HTTPSConnection(LOOPBACK, served.port, timeout=5, context=context)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_service_speaks_tls_1_3_alone_and_describes_itself_to_nobody(served):
    old = ssl.create_default_context(cadata=served.home.trusted_pem(Kind.SERVER).decode())
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError):
        ask(served, "GET", "/v1/time", context=old)
    for path in ("/docs", "/openapi.json", "/redoc", "/"):
        assert ask(served, "GET", path)[0] == 404


def test_bodies_are_bounded_and_guesses_are_counted(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with (
        secured_fleet(tmp_path, now=datetime.now(UTC)) as fleet,
        running_service(
            fleet.database,
            fleet.home,
            host=LOOPBACK,
            port=0,
            clock=lambda: datetime.now(UTC),
        ) as fleet.port,
    ):
        assert ask(fleet, "POST", ENROL_PATH, b"x" * (MAX_BODY_BYTES + 1))[0] == 413
        chunks = (b"x" * 4096 for _ in range(10))
        assert ask(fleet, "POST", ENROL_PATH, chunks)[0] == 413
        told = [ask(fleet, "POST", ENROL_PATH, b'{"token": "fct_secret"}')[0] for _ in range(20)]

    assert told.count(400) == 18
    assert told[18:] == [429, 429]
    assert "fct_secret" not in caplog.text


def test_device_that_speaks_tls_loads_no_http_until_it_renews():
    program = (
        "import sys; from edge_client.link.light_paho import load_paho;"
        "load_paho(speaks_tls=True);"
        "import edge_client.agent, edge_client.provisioning.renewal, models.wire.link;"
        "print(sorted({'ssl', 'http.client', 'email', 'cryptography.x509'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert answer.stdout == "['ssl']\n"
