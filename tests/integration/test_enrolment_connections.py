"""Connections of a real enrolment service that nobody asks anything on."""

import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

import server.authority.connections as connections_module
from models.wire.enrolment import RENEW_PATH, TIME_PATH
from server.authority.certificates import certificate_of_pem, serial_of
from server.authority.serving import running_service
from server.broker import LOOPBACK
from tests.support.secured_fleets import DeviceOnPaper, secured_fleet

LATER = timedelta(days=20)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with secured_fleet(tmp_path_factory.mktemp("fleet"), now=datetime.now(UTC)) as made:
        yield made


@contextmanager
def served(fleet, *, clock=lambda: datetime.now(UTC) + LATER):
    with running_service(
        fleet.database, fleet.home, host=LOOPBACK, port=0, clock=clock
    ) as fleet.port:
        yield fleet.port


def trusting():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def silent(port, held, *, count, address=LOOPBACK, context=None):
    """Connect as often as that, over TLS where there is a context, and say nothing."""
    for _ in range(count):
        opened = socket.create_connection((LOOPBACK, port), 5, source_address=(address, 0))
        if context is not None:
            opened = context.wrap_socket(opened)
        held.enter_context(opened)


def ask(port, method, path, body=None):
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=trusting())
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def is_closed(opened, *, within_s):
    """Tell whether the service closes a connection, whatever it says before."""
    opened.settimeout(within_s)
    try:
        while opened.recv(65536):
            pass
        return True
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.mark.parametrize("is_secured", [True, False], ids=["tls", "no-handshake"])
@pytest.mark.parametrize("num_addresses", [1, 5])
def test_a_renewal_passes_while_300_connections_say_nothing(fleet, is_secured, num_addresses):
    device = DeviceOnPaper(f"device-{is_secured}-{num_addresses}")
    first = fleet.enrol(device, now=datetime.now(UTC))
    device.new_request()
    serial = serial_of(certificate_of_pem(first.certificate.encode()))
    context = trusting() if is_secured else None

    with served(fleet) as port, ExitStack() as held:
        for number in range(num_addresses):
            address = f"127.0.0.{number + 1}"
            silent(port, held, count=300 // num_addresses, address=address, context=context)
        began = time.monotonic()
        status, told = ask(
            port,
            "POST",
            RENEW_PATH,
            device.renewal(serial),
        )
        took_s = time.monotonic() - began

    assert status == 200, told
    assert took_s < 5


def test_a_connection_that_does_not_ask_is_closed(fleet, monkeypatch):
    monkeypatch.setattr(connections_module, "HANDSHAKE_WITHIN_S", 0.5)
    monkeypatch.setattr(connections_module, "REQUEST_WITHIN_S", 1.0)

    with served(fleet) as port, ExitStack() as held:
        plain, secured, half = (
            held.enter_context(socket.create_connection((LOOPBACK, port), 5)) for _ in range(3)
        )
        secured, half = (trusting().wrap_socket(one) for one in (secured, half))
        # One that was answered, and then says half of its next request.
        half.sendall(f"GET {TIME_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert half.recv(65536).startswith(b"HTTP/1.1 200")
        half.sendall(b"GET /v1")

        assert all(is_closed(one, within_s=3) for one in (plain, secured, half))
        assert ask(port, "GET", TIME_PATH)[0] == 200


def test_an_answer_that_takes_long_is_not_cut(fleet, monkeypatch):
    monkeypatch.setattr(connections_module, "REQUEST_WITHIN_S", 0.3)

    def slow():
        time.sleep(1)
        return datetime.now(UTC)

    with served(fleet, clock=slow) as port:
        assert ask(port, "GET", TIME_PATH)[0] == 200


def test_the_service_ends_at_once_with_silent_connections(fleet):
    with ExitStack() as held:
        with served(fleet) as port:
            silent(port, held, count=5, context=trusting())
            silent(port, held, count=5)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert "fedcell-enrolment" not in {one.name for one in threading.enumerate()}
