"""Brokers that are really started: Mosquitto where installed, and the embedded one."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server import broker as broker_module
from server import mosquitto as mosquitto_module
from server.broker import (
    LOOPBACK,
    BrokerKind,
    Mosquitto,
    choose_broker,
    free_port,
    running_broker,
)
from server.errors import BrokerError, BrokerMissingError
from server.mosquitto import find_mosquitto
from tests.support.brokers import Heard, link_to, wait_until

KINDS = [pytest.param(BrokerKind.MOSQUITTO, marks=pytest.mark.broker), BrokerKind.EMBEDDED]


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_carries_messages_for_as_long_as_its_context_lasts(tmp_path, kind):
    heard = Heard()
    with running_broker(tmp_path, kind=kind) as broker:
        assert (broker.kind, broker.host) == (kind, LOOPBACK)
        a = link_to(broker, "a")
        a.subscribe("t", heard)
        with a, link_to(broker, "b") as b:
            b.publish("t", b"1").wait(5)
            assert heard.wait_for(1) == [b"1"]
        assert broker.is_running()

    assert not broker.is_running()
    assert not accepts(broker.port)


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_in_use_is_said_and_its_owner_left_alone(tmp_path, kind):
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(BrokerError, match="the port is in use; stop what listens") as refused:
            choose_broker(tmp_path, port=port, kind=kind).start()

        assert (refused.value.port, refused.value.exit_code) == (port, 6)
        assert accepts(port)


@pytest.mark.broker
def test_mosquitto_is_taken_where_it_is_installed(tmp_path, mosquitto):
    assert find_mosquitto() == mosquitto
    assert choose_broker(tmp_path).kind is BrokerKind.MOSQUITTO


@pytest.mark.parametrize("of_path", [True, False])
def test_mosquitto_is_found_where_the_user_or_debian_looks(tmp_path, monkeypatch, of_path):
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if of_path else "")
    monkeypatch.setattr(mosquitto_module, "SERVER_PROGRAMS", "" if of_path else str(tmp_path))

    assert choose_broker(tmp_path).program == program


def test_the_embedded_broker_is_taken_where_mosquitto_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)

    assert choose_broker(tmp_path).kind is BrokerKind.EMBEDDED
    with pytest.raises(BrokerMissingError, match="apt-get install"):
        choose_broker(tmp_path, kind=BrokerKind.MOSQUITTO)


def test_a_machine_without_any_broker_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    monkeypatch.setattr(broker_module, "find_spec", lambda _name: None)

    with pytest.raises(BrokerMissingError, match="no broker is installed here") as missing:
        choose_broker(tmp_path)

    assert missing.value.exit_code == 4


def test_a_broker_that_ends_at_once_leaves_nothing_behind(tmp_path):
    broker = Mosquitto(tmp_path, free_port(), Path("/bin/false"))

    with pytest.raises(BrokerError, match="did not start: it said nothing"):
        broker.start()

    assert not broker.is_running()
    broker.stop()


@pytest.mark.broker
def test_only_the_broker_that_was_started_is_ended(tmp_path):
    with running_broker(tmp_path / "1") as first:
        with running_broker(tmp_path / "2") as second:
            assert second.port != first.port
        assert first.is_running()
        assert accepts(first.port)


@pytest.mark.broker
def test_nobody_but_this_machine_can_reach_mosquitto(tmp_path):
    with running_broker(tmp_path, kind=BrokerKind.MOSQUITTO) as broker:
        configuration = (tmp_path / "mosquitto.conf").read_text()

        assert f"listener {broker.port} 127.0.0.1\n" in configuration
        assert configuration.count("listener") == 1


@pytest.mark.broker
def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    port = free_port()
    command = [sys.executable, "-c", "from server.cli import main; main()", "server", "broker"]
    options = ["--port", str(port), "--dir", str(tmp_path / "b"), "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        ready = json.loads(process.stdout.readline())
        assert ready == {"event": "ready", "kind": "mosquitto", "host": LOOPBACK, "port": port}
        assert accepts(port)

        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 0
    assert wait_until(lambda: not accepts(port))
