"""A device whose broker means it ill: its memory stays small, its waits grow, its owner is told."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edge_client.telemetry_store import TelemetryStore
from models.wire.errors import LinkError
from models.wire.link import MqttVersion
from models.wire.topics import Down, down
from tests.support.brokers import Heard, link_to, wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.hostile_broker import DISCONNECT, hostile_broker
from tests.support.line_bundle import write_line_bundle
from tests.support.system_parts import REPOSITORY

HUGE_BYTES = 200_000_000
NOTIFY = down("device-1", Down.NOTIFY)
SESSION_TAKEN_OVER = b"\x8e\x00"


@contextmanager
def agent_process(tmp_path, broker):
    """Run an agent in a process of its own, and give its process id."""
    with TelemetryStore.create(tmp_path / "device.db", profile=PROFILE) as store:
        store.record_many(fading_life(), now=NOW)
    bundle = write_line_bundle(tmp_path / "line.zip")
    words = [tmp_path / "device.db", bundle, broker.host, str(broker.port), tmp_path / "shown"]
    nursery = subprocess.Popen(
        [sys.executable, "-m", "tests.support.agent_nursery", *map(str, words)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    nursery.stdin.write("\n")
    nursery.stdin.flush()
    process_id = int(nursery.stdout.readline())
    try:
        yield process_id
    finally:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
        nursery.stdin.close()
        nursery.wait(30)
        nursery.stdout.close()


def most_memory_mb(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_message_of_200_mb_costs_an_agent_no_memory(tmp_path):
    before, sent = [], []
    process_ids = []

    def welcome(guest):
        if guest.number == 0:
            wait_until(lambda: process_ids)
            before.append(most_memory_mb(process_ids[0]))
        try:
            guest.publish(NOTIFY, HUGE_BYTES)
            sent.append(guest.number)
        finally:
            guest.wait_for_its_end()

    with hostile_broker(welcome) as broker, agent_process(tmp_path, broker) as process_id:
        process_ids.append(process_id)
        assert wait_until(lambda: len(broker.guests) >= 3, 30)
        assert most_memory_mb(process_id) - before[0] < 10.0
    assert sent == []


@pytest.mark.parametrize("version", [MqttVersion.V5, MqttVersion.V311])
def test_after_two_packets_of_impossible_size_the_session_is_given_up(version):
    def welcome(guest):
        if not guest.is_clean and not any(one.is_clean for one in broker.guests):
            guest.publish("t/1", 1_000_000)
        guest.wait_for_its_end()

    with hostile_broker(welcome) as broker:
        link = link_to(broker, "a", version=version)
        link.subscribe("t/#", Heard())
        with link:
            assert wait_until(lambda: any(one.is_clean for one in broker.guests))
            assert wait_until(lambda: link.is_connected)
            time.sleep(0.2)
            assert link.is_connected
        cleans = [one.is_clean for one in broker.guests]
    assert cleans == [False, False, True] + [False] * (version is MqttVersion.V311)
    assert link.counters.oversized == 2


def test_two_such_packets_a_year_apart_cost_no_session(monkeypatch):
    now_s = time.monotonic()
    with hostile_broker(lambda guest: guest.wait_for_its_end()) as broker:
        link = link_to(broker, "a")
        link.subscribe("t/#", Heard())
        for moment_s in (now_s - 31_536_000.0, now_s):
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic", lambda moment_s=moment_s: moment_s)
                link._oversized(1_000_000)
        with link:
            assert [one.is_clean for one in broker.guests] == [False]


def test_a_broker_that_sends_nothing_else_is_refused_in_a_word():
    def welcome(guest):
        guest.publish("t/1", 1_000_000)

    with hostile_broker(welcome, takes_subscriptions=False) as broker:
        link = link_to(broker, "a", connect_timeout_s=2.0)
        link.subscribe("t/#", Heard())
        with pytest.raises(LinkError, match=r"packet of \d+ bytes, more than any message"):
            link.connect()
        assert [one.is_clean for one in broker.guests] == [False, False, True, False]


def test_messages_that_nobody_asked_for_at_qos_2_do_not_pile_up():
    def welcome(guest):
        for number in range(1, 2000):
            guest.publish("t/1", 4000, qos=2, packet_id=number)
        guest.wait_for_its_end()

    with hostile_broker(welcome) as broker:
        link = link_to(broker, "a")
        link.subscribe("t/#", Heard())
        with link:
            assert wait_until(lambda: link.counters.losses >= 2)
            assert not link._client._in_messages


def test_who_takes_a_session_over_is_named_and_not_answered_at_once(caplog):
    moments = []

    def welcome(guest):
        moments.append(time.monotonic())
        guest.send(DISCONNECT, SESSION_TAKEN_OVER)
        guest.wait_for_its_end()

    with hostile_broker(welcome) as broker, caplog.at_level(logging.WARNING, "models.wire.link"):
        link = link_to(broker, "device-1", first_wait_s=0.02, longest_wait_s=900.0)
        link.subscribe("t/#", Heard())
        with link:
            time.sleep(1.5)
            num_connections, taken_over = len(moments), link.counters.taken_over
    # 0.02 s doubled six times is 1.3 s; a wait that never grew would have come a hundred times.
    assert 2 <= num_connections <= 20
    assert taken_over >= num_connections - 1
    assert "another client took over the session of device-1" in caplog.text
