import socket

import pytest

from edge_client.link.watchdog import Watchdog


@pytest.fixture
def supervisor(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def heard_by(listener):
    heard = []
    while True:
        try:
            heard.append(listener.recv(4096).decode())
        except BlockingIOError:
            return heard


def of(supervisor, **environment):
    address = {"NOTIFY_SOCKET": supervisor.getsockname()}
    return Watchdog.of_environment(address | environment, pid=42)


def test_supervisor_hears_that_the_service_is_ready_pings_and_ends(supervisor):
    watchdog = of(supervisor, WATCHDOG_USEC="20000000", WATCHDOG_PID="42")
    watchdog.ready()
    watchdog.ping(100.0)
    watchdog.status("three clients")
    watchdog.stopping()

    assert heard_by(supervisor) == ["READY=1", "WATCHDOG=1", "STATUS=three clients", "STOPPING=1"]


def test_pings_come_at_a_quarter_of_the_interval_however_often_the_loop_turns(supervisor):
    watchdog = of(supervisor, WATCHDOG_USEC="20000000")
    for tenths in range(200):
        watchdog.ping(tenths / 10)

    assert watchdog.every_s == 5.0
    assert heard_by(supervisor) == 4 * ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "much"},
        {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "41"},
    ],
)
def test_ping_that_is_not_wanted_of_this_process_is_not_sent(supervisor, environment):
    watchdog = of(supervisor, **environment)
    watchdog.ping(0.0)

    assert watchdog.every_s is None
    assert heard_by(supervisor) == []


@pytest.mark.parametrize("address", ["", "host:1", "/nowhere/notify"])
def test_without_a_supervisor_nothing_happens(address):
    watchdog = Watchdog.of_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}, pid=1)

    assert watchdog.ready() is None
    assert watchdog.ping(0.0) is None


def test_abstract_socket_is_spoken_to():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0fedcell-test-notify")
        listener.setblocking(False)
        environment = {"NOTIFY_SOCKET": "@fedcell-test-notify"}
        Watchdog.of_environment(environment, pid=1).ready()

        assert heard_by(listener) == ["READY=1"]
