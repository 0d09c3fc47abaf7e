"""The whole way over real brokers: summary up, notice down, answer up, and what may fail."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest

from models.wire import topics
from models.wire.codec import encode
from models.wire.messages import NoticeState, Template
from server.broker import BrokerKind, running_broker
from server.hub_status import hub_status
from server.outbox import DeliveryPolicy
from server.signer import make_key_file
from server.storage.database import open_database
from tests.support.brokers import WireDevice, mosquitto_in, wait_until
from tests.support.hubs import SIGNER, running_hub
from tests.support.wire_messages import birth, numbered_id, soon_summary, summary

KINDS = [pytest.param(BrokerKind.MOSQUITTO, marks=pytest.mark.broker), BrokerKind.EMBEDDED]
SUMMARY_TOPIC = topics.up("device-1", topics.Up.SUMMARY)


def device_on(broker, **settings):
    return WireDevice(broker, SIGNER.verify_key, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_summary_becomes_a_notice_that_its_device_acknowledges(tmp_path, kind):
    with (
        running_broker(tmp_path / "broker", kind=kind) as broker,
        # Patient: on a busy machine a quick hub repeats what is about to be acknowledged.
        running_hub(broker, tmp_path, delivery=DeliveryPolicy()) as (_, database),
        device_on(broker) as urgent,
        device_on(broker, device="device-2") as soon,
    ):
        urgent.say(summary())
        soon.say(soon_summary(device="device-2"))

        assert wait_until(lambda: hub_status(database).acknowledged == 2)
        assert [notice.template for notice in urgent.notices] == [Template.UNDER_7]
        assert [notice.template for notice in soon.notices] == [Template.FROM_7_TO_30]
        urgent.answer(urgent.notices[0], NoticeState.SHOWN, version=3)
        urgent.answer(urgent.notices[0], NoticeState.ACCEPTED, version=4)
        assert wait_until(lambda: hub_status(database).notices == {"accepted": 1, "received": 1})


@pytest.mark.broker
def test_a_notice_waits_for_a_device_that_is_offline(tmp_path):
    with mosquitto_in(tmp_path) as broker, running_hub(broker, tmp_path) as (hub, database):
        with device_on(broker) as device:
            device.say(summary(notices_wanted=False))
        with device_on(broker, device="device-2") as other:
            # Said on behalf of device-1, so that its notice comes while it is away.
            other.link.publish(SUMMARY_TOPIC, encode(summary(sequence=2)))
            assert wait_until(lambda: hub.counters.published)

        with device_on(broker) as returned:
            assert wait_until(lambda: hub_status(database).acknowledged == 1)
            assert {notice.id for notice in returned.notices} == {returned.notices[0].id}


@pytest.mark.broker
def test_a_notice_survives_a_broker_that_is_killed(tmp_path):
    with mosquitto_in(tmp_path) as broker, running_hub(broker, tmp_path) as (hub, database):
        with device_on(broker) as device:
            device.say(summary(notices_wanted=False))
        with device_on(broker, device="device-2") as other:
            other.link.publish(SUMMARY_TOPIC, encode(summary(sequence=2)))
            assert wait_until(lambda: hub.counters.published)
        broker.kill()
        time.sleep(0.2)
        broker.start()

        with device_on(broker) as returned:
            assert wait_until(lambda: hub_status(database).acknowledged == 1)
            assert len({notice.id for notice in returned.notices}) == 1
        assert hub_status(database).sent == 1


@pytest.mark.broker
def test_a_device_that_does_not_answer_is_told_again_until_it_does(tmp_path):
    with (
        mosquitto_in(tmp_path) as broker,
        running_hub(broker, tmp_path) as (hub, database),
        device_on(broker, answers=False) as device,
    ):
        device.say(summary())
        assert wait_until(lambda: len(device.notices) == 2)
        assert hub_status(database).notices == {"queued": 1}
        device.answer(device.notices[1], NoticeState.SHOWN, version=3)
        assert wait_until(lambda: hub_status(database).waiting == 0)
        # The device has a notice before the hub hears from the broker that it was taken.
        assert wait_until(lambda: hub.counters.published == len(device.notices))
        published = hub.counters.published
        device.say(birth())
        time.sleep(0.7)

        assert hub.counters.published == published
        assert len({notice.id for notice in device.notices}) == 1


@pytest.mark.broker
def test_bad_messages_stop_nobody(tmp_path):
    with mosquitto_in(tmp_path) as broker, running_hub(broker, tmp_path) as (hub, database):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="device-1")
        client.reconnect_delay_set(min_delay=0.05, max_delay=0.05)
        client.connect(broker.host, broker.port)
        client.loop_start()
        for payload in (b"", b"{}", b"\x00" * 100, b"x" * 4500, b"[" * 4000):
            client.publish(SUMMARY_TOPIC, payload, qos=1).wait_for_publish(5)
        wrong_shard = "fedcell/v1/zz/d/device-1/up/summary"
        client.publish(wrong_shard, encode(summary()), qos=1).wait_for_publish(5)
        # Larger than the broker takes at all: it hangs up, and the hub never hears of it.
        client.publish(SUMMARY_TOPIC, b"x" * 100_000, qos=1)
        assert wait_until(lambda: hub.counters.dead_letters == 6)
        client.disconnect()
        client.loop_stop()

        with device_on(broker) as device:
            device.say(summary())
            assert wait_until(lambda: hub_status(database).acknowledged == 1)
        assert hub_status(database).dead_letters == {
            "not_json": 3,
            "wrong_type": 1,
            "oversize": 1,
            "bad_topic": 1,
        }


@pytest.mark.broker
def test_a_message_that_the_database_could_not_keep_is_brought_again(tmp_path, monkeypatch):
    monkeypatch.setattr("server.storage.database.LOCK_TIMEOUT_S", 0.3)
    with mosquitto_in(tmp_path) as broker, running_hub(broker, tmp_path) as (hub, database):
        blocker = sqlite3.connect(tmp_path / "hub.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with device_on(broker) as device:
            assert device.say(summary())
            assert wait_until(lambda: hub._link.counters.left_unacknowledged)
            blocker.execute("ROLLBACK")
            blocker.close()

            assert wait_until(lambda: hub_status(database).acknowledged == 1)
        assert hub.counters.dead_letters == 0


@contextmanager
def hub_command(broker, directory, *options):
    """Run `fedcell server run` as a process; gives it and the line it began with."""
    command = [sys.executable, "-c", "from server.cli import main; main()", "server", "run"]
    command += ["--db", f"sqlite:///{directory / 'hub.db'}", "--key", str(directory / "hub.pem")]
    command += ["--broker", f"{broker.host}:{broker.port}", "--json", *options]
    environment = os.environ | {"FEDCELL_SERVER_FIRST_RETRY_S": "0.5"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.broker
def test_a_hub_process_that_is_killed_loses_no_notice_and_ends_in_order_when_asked(tmp_path):
    verify_key = make_key_file(tmp_path / "hub.pem")
    at_eight, a_minute_later = "2030-01-01T08:00:00Z", "2030-01-01T08:01:00Z"
    with mosquitto_in(tmp_path) as broker:
        with (
            WireDevice(broker, verify_key, answers=False) as device,
            hub_command(broker, tmp_path, "--clock", at_eight) as (process, ready),
        ):
            device.say(summary())
            assert wait_until(lambda: device.notices)
            process.send_signal(signal.SIGKILL)
        assert ready["event"] == "ready"
        assert device.notices[0].issued.isoformat().startswith("2030-01-01T08:00")
        with (
            WireDevice(broker, verify_key) as returned,
            hub_command(broker, tmp_path, "--clock", a_minute_later) as (process, _),
        ):
            assert wait_until(lambda: returned.notices)
            assert returned.notices[0] == device.notices[0]
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            stopped = json.loads(process.stdout.readline())

            assert process.wait(10) == 0
        assert (stopped["event"], stopped["acks"]) == ("stopped", 1)

    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        found = hub_status(database)
    assert (found.sent, found.acknowledged, found.notices) == (1, 1, {"received": 1})


@pytest.mark.broker
def test_a_forged_notice_is_not_believed(tmp_path):
    with (
        mosquitto_in(tmp_path) as broker,
        running_hub(broker, tmp_path),
        device_on(broker) as device,
        device_on(broker, device="device-2") as rogue,
    ):
        rogue.link.publish(topics.down("device-1", topics.Down.NOTIFY), b'{"alg":"none"}').wait(5)
        device.say(summary(id=numbered_id(77)))

        assert wait_until(lambda: device.notices)
        assert [notice.correlation for notice in device.notices] == [numbered_id(77)]
        assert device.link.counters.handler_errors == 1
