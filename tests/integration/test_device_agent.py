"""The agent on a real broker, against a server that says what a test tells it to say."""

import json
import queue
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from itertools import count
from random import Random

import pytest

from edge_client.agent import AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.errors import ServerSilentError, StoreBusyError
from edge_client.link.agent_lock import agent_lock, lock_path
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.quiet_hours import QuietHours
from models.telemetry import DeviceId
from models.wire import topics
from models.wire.codec import encode
from models.wire.envelope import SigningKey, sign_payload
from models.wire.errors import LinkError
from models.wire.link import Link, LinkSettings
from models.wire.messages import Ack, NoticeState, Presence, Status, Summary, recognise
from models.wire.topics import Down, Up
from server.broker import free_port, running_broker
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.hostile_broker import hostile_broker
from tests.support.line_bundle import trusted_keys, write_line_bundle
from tests.unit.edge_client.test_notices import a_notice

pytestmark = pytest.mark.broker

KEY = SigningKey.from_bytes(bytes(range(32)))
KEYS = {KEY.verify_key.key_id: KEY.verify_key.to_bytes()}
NUMBERS = count(1)
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_line_bundle(tmp_path_factory.mktemp("bundle") / "line.zip")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class ScriptedServer:
    """Hears everything that devices say, and answers summaries with what it was given."""

    def __init__(self, broker, device_id):
        self.device_id = device_id
        self.heard = queue.SimpleQueue()
        self.notices = []
        name = f"{topics.HUB_CLIENT_ID}-{device_id}"
        settings = LinkSettings(host=broker.host, port=broker.port, client_id=name)
        self.link = Link(settings, jitter=Random(1))
        for kind in Up:
            self.link.subscribe(topics.from_all_devices(kind), self.hear)

    def hear(self, topic, payload):
        message = recognise(topic, payload)
        if message.device != self.device_id:
            return
        self.heard.put(message)
        if isinstance(message, Summary):
            for notice in self.notices:
                self.say(notice)

    def say(self, notice):
        self.send(sign_payload(encode(replace(notice, device=self.device_id)), KEY))

    def send(self, payload):
        self.link.publish(topics.down(self.device_id, Down.NOTIFY), payload)

    def wait_for(self, wanted):
        """Return all that was heard up to the first message that `wanted` accepts."""
        found = []
        while not found or not wanted(found[-1]):
            found.append(self.heard.get(timeout=PATIENCE_S))
        return found


def is_ack(state):
    return lambda message: isinstance(message, Ack) and message.state is state


def is_offline(message):
    return isinstance(message, Status) and message.presence is Presence.OFFLINE


@pytest.fixture
def device_id():
    """A new name for each test: brokers remember sessions and retained messages."""
    return DeviceId(f"device-{next(NUMBERS)}")


@pytest.fixture
def server(broker, device_id):
    server = ScriptedServer(broker, device_id)
    with server.link:
        yield server


@pytest.fixture
def device(tmp_path, bundle, device_id):
    profile = replace(PROFILE, device_id=device_id)
    with TelemetryStore.create(tmp_path / "device.db", profile=profile) as store:
        store.record_many(fading_life(), now=NOW)
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
    with EdgeClient(tmp_path / "device.db", bundle, trusted_keys=trusted_keys()) as client:
        yield client


def run(
    device, broker, *, until=Until.ACKED, timeout_s=PATIENCE_S, answer=None, now=NOW, **choices
):
    return run_agent(
        device,
        broker=(broker.host, broker.port),
        server_keys=KEYS,
        plan=AgentPlan(until=until, timeout_s=timeout_s, answer=answer, poll_s=0.1, **choices),
        clock=lambda: now,
        on_start=lambda _agent: None,
        on_report=lambda _report: None,
        show=lambda _id, _notice: None,
    )


def test_summary_goes_up_notice_comes_down_and_is_acknowledged(device, broker, server):
    server.notices.append(a_notice())
    counters = run(device, broker, answer=NoticeState.ACCEPTED)
    heard = server.wait_for(is_offline)

    kinds = {type(message).__name__ for message in heard}
    assert kinds == {"Ack", "Birth", "Status", "Summary"}
    summary = next(message for message in heard if isinstance(message, Summary))
    assert summary.model_version.startswith("line-")
    acks = [(m.state, m.version) for m in heard if isinstance(m, Ack)]
    assert acks == [
        (NoticeState.RECEIVED, 2),
        (NoticeState.SHOWN, 3),
        (NoticeState.ACCEPTED, 4),
    ]
    assert (counters.summaries, counters.shown) == (1, 1)
    assert device.store.outbox() == ()
    assert device.store.notices()[0].state is NoticeState.ACCEPTED


def test_second_copy_of_a_notice_is_not_shown_again(device, broker, server):
    server.notices += [a_notice(), a_notice()]
    run(device, broker)
    counters = run(device, broker, until=Until.SENT)
    server.wait_for(is_offline)
    assert counters.shown == 0
    assert len(device.store.notices()) == 1


def test_notice_waits_for_the_end_of_quiet_hours(device, broker, server):
    device.store.set_quiet_hours(QuietHours(10, 20, "UTC"))
    server.notices.append(a_notice())
    assert run(device, broker, timeout_s=1.0).shown == 0
    server.wait_for(is_ack(NoticeState.RECEIVED))
    assert device.store.notices()[0].state is NoticeState.RECEIVED

    evening = NOW + timedelta(hours=9)
    counters = run(device, broker, now=evening)
    server.wait_for(is_ack(NoticeState.SHOWN))
    assert counters.shown == 1


def test_nothing_but_the_links_own_messages_leaves_without_consent(device, broker, server):
    for purpose in Purpose:
        device.store.set_consent(purpose, granted=False, now=NOW)
    run(device, broker, until=Until.SENT)
    heard = server.wait_for(is_offline)
    assert {type(message).__name__ for message in heard} == {"Birth", "Status"}


def test_what_was_put_out_while_offline_is_sent_later(device, broker, server):
    with pytest.raises(LinkError, match="start one with"):
        run_agent(
            device,
            broker=("127.0.0.1", free_port()),
            server_keys=KEYS,
            plan=AgentPlan(until=Until.SENT, timeout_s=1.0),
            clock=lambda: NOW,
            on_start=lambda _agent: None,
            on_report=lambda _report: None,
            show=lambda _id, _notice: None,
        )
    (waiting,) = device.store.outbox()
    run(device, broker, until=Until.SENT)
    heard = server.wait_for(is_offline)
    sent = [encode(message) for message in heard if isinstance(message, Summary)]
    assert waiting.payload in sent
    assert device.store.outbox() == ()


def test_stranger_cannot_make_the_device_speak(device, broker, server):
    stranger = SigningKey.from_bytes(bytes(range(1, 33)))
    forged = replace(a_notice(), id="d" * 32, device=server.device_id)
    server.send(sign_payload(encode(forged), stranger))
    server.notices.append(a_notice())
    counters = run(device, broker)
    server.wait_for(is_offline)
    assert counters.shown == 1
    assert sum(counters.refused.values()) <= 1
    assert [notice.message_id for notice in device.store.notices()] == ["a" * 32]


def test_agent_as_a_process_tells_its_steps_as_json_lines(device, broker, server, tmp_path, bundle):
    device.store.set_language("de")
    server.notices.append(replace(a_notice(), language="de"))
    keys = tmp_path / "server.json"
    keys.write_text(json.dumps({name: raw.hex() for name, raw in KEYS.items()}))
    trusted = tmp_path / "trusted.json"
    trusted.write_text(json.dumps({name: raw.hex() for name, raw in trusted_keys().items()}))
    command = [
        *(sys.executable, "-m", "edge_client.cli", "run", "--json", "--until-acked"),
        *("--timeout", "20", "--answer", "snooze", "--now", NOW.isoformat()),
        *("--store", str(device.store.path), "--bundle", str(bundle)),
        *("--trusted-keys", str(trusted), "--server-key", str(keys)),
        *("--broker", f"{broker.host}:{broker.port}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report, notice, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert (report["event"], report["status"]) == ("report", "ok")
    assert notice["event"] == "notice"
    assert notice["subject"] == "Der Akku Ihres Meter 3 muss bald ersetzt werden"
    assert "2452 mAh" in notice["text"]
    assert end == {
        "event": "end",
        "summaries": 1,
        "shown": 1,
        "repeated": 0,
        "refused": {},
        "confirmed": 4,
        "configurations": 0,
    }
    acks = [m.state for m in server.wait_for(is_ack(NoticeState.SNOOZED)) if isinstance(m, Ack)]
    assert acks[-1] is NoticeState.SNOOZED


def test_of_two_agents_of_one_store_one_runs_and_the_other_says_why(device, broker, server):
    with (
        agent_lock(device.store.path),
        pytest.raises(StoreBusyError, match="another agent holds it") as caught,
    ):
        run(device, broker, until=Until.SENT)
    assert caught.value.exit_code == 6
    assert device.store.outbox() == ()

    run(device, broker, until=Until.SENT)
    server.wait_for(is_offline)
    assert not lock_path(device.store.path).exists()


def test_lock_that_a_killed_agent_left_is_taken(tmp_path):
    store = tmp_path / "device.db"
    lock_path(store).touch()
    with agent_lock(store):
        assert lock_path(store).exists()
    assert not lock_path(store).exists()


def test_messages_that_are_refused_spend_nothing_of_the_days_budget(device, broker, server):
    for _ in range(50):
        server.send(b"x" * 200)
    run(device, broker, until=Until.SENT, timeout_s=1.0)
    for _ in range(50):
        server.send(b"x" * 200)
    counters = run(device, broker, until=Until.SENT, bytes_per_day=6000)
    assert counters.confirmed == 1
    assert sum(t.num_bytes for t in device.store.traffic(0) if t.direction == "down") > 6000


def test_agent_that_is_cut_short_by_its_budget_says_so(device, broker):
    with pytest.raises(ServerSilentError, match="the day's budget of 1 bytes is spent"):
        run(device, broker, until=Until.SENT, timeout_s=0.5, bytes_per_day=1)


@pytest.mark.parametrize("welcome", [None, lambda guest: guest.wait_for_its_end()])
def test_time_that_is_up_ends_a_run_whatever_the_broker_leaves_out(device, welcome):
    begun_s = time.monotonic()
    with (
        hostile_broker(welcome, takes_subscriptions=False) as silent,
        pytest.raises(LinkError, match="does not answer"),
    ):
        run(device, silent, until=Until.SENT, timeout_s=1.0)
    assert time.monotonic() - begun_s < 2.0


def test_broker_that_confirms_nothing_holds_nobody_past_the_time(device):
    begun_s = time.monotonic()
    with (
        hostile_broker(lambda guest: guest.wait_for_its_end()) as silent,
        pytest.raises(ServerSilentError, match="did not take everything within 1 s"),
    ):
        run(device, silent, until=Until.SENT, timeout_s=1.0)
    # The link gives what it has said last two seconds more.
    assert time.monotonic() - begun_s < 4.0


def test_broker_that_is_not_there_is_one_line_and_code_six(device, tmp_path, bundle):
    trusted = tmp_path / "trusted.json"
    trusted.write_text(json.dumps({name: raw.hex() for name, raw in trusted_keys().items()}))
    device.store.set_consent(Purpose.NOTICES, granted=False, now=NOW)
    command = [
        *(sys.executable, "-m", "edge_client.cli", "run", "--once", "--now", NOW.isoformat()),
        *("--store", str(device.store.path), "--bundle", str(bundle)),
        *("--trusted-keys", str(trusted), "--broker", f"127.0.0.1:{free_port()}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("fedcell-device: MQTT broker 127.0.0.1:")
    assert done.stderr.count("\n") == 1
