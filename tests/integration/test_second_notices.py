"""One device and one hub over months, without broker or waiting: what a later notice takes."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from edge_client.agent import AgentPlan, DeviceAgent, Until
from edge_client.client import EdgeClient
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.notice_receiver import NoticeReceiver
from edge_client.store.mailbox import Purpose
from models.quiet_hours import QuietHours
from models.wire.codec import encode
from models.wire.envelope import trusted_keys
from models.wire.messages import NoticeState
from server.storage.database import open_database
from tests.support import line_bundle
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.hubs import SIGNER, HubOnPaper
from tests.support.wire_messages import summary
from tests.unit.edge_client.test_notices import a_notice

DEVICE = "device-1"


class DeviceOnPaper:
    """A device whose link hands everything to a hub on paper, and brings what the hub says."""

    is_connected = True

    def __init__(self, folder, paper):
        self.paper = paper
        self.shown = []
        self.counters = AgentCounters()
        with new_store(folder) as store:
            self.path = store.path
            for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
                store.set_consent(purpose, granted=True, now=NOW)
        self.bundle = line_bundle.write_line_bundle(folder / "line.zip")
        self.receiver = NoticeReceiver(
            Listener(
                path=self.path,
                device_id=DEVICE,
                trusted=trusted_keys(SIGNER.verify_key),
                clock=lambda: paper.now,
                counters=self.counters,
            ),
            wake=lambda: None,
        )

    def client(self):
        return EdgeClient(self.path, self.bundle, trusted_keys=line_bundle.trusted_keys())

    def live(self, readings):
        with self.client() as client:
            client.record_many(readings, now=readings[-1].at)

    def run(self, *, at, answer=NoticeState.ACCEPTED):
        """Run the agent once, at a moment that is the hub's too; returns the states it ended in."""
        self.paper.now = at
        self.paper.hub.tick()
        with self.client() as client:
            agent = DeviceAgent(
                client,
                self,
                plan=AgentPlan(until=Until.SENT, timeout_s=10.0, answer=answer, poll_s=0.01),
                clock=lambda: at,
                counters=self.counters,
                on_report=lambda _report: None,
                show=lambda _id, notice: self.shown.append(notice.template),
            )
            agent.run()
            return [kept.state for kept in client.store.notices()]

    # What the agent asks of a link

    def on_connected(self, hook):
        """Nothing waits for a connection here."""

    def hold_back_while(self, is_spent):
        """Nor is anything held back."""

    def on_traffic(self, observe):
        """Nothing is counted here."""

    def connect(self, *, patiently, within_s):
        """There is nothing to connect to."""

    def close(self):
        """Nor to leave."""

    def publish(self, topic, payload, **_):
        self.paper.hub.receive(topic, payload)
        self.paper.hub.tick()
        self.deliver()
        return SimpleNamespace(wait=lambda _timeout_s: True, is_answered=True, confirmed=True)

    def hear_of_it(self):
        """Take a notice in, with no agent at work that would show it."""
        self.paper.hear(summary())
        self.paper.hub.tick()
        self.deliver()

    def deliver(self):
        """Bring the device what the hub has published."""
        for topic, envelope, _ in self.paper.link.published:
            self.receiver(topic, envelope)
        self.paper.link.published.clear()


@pytest.fixture
def device(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'hub.db'}") as database:
        yield DeviceOnPaper(tmp_path, HubOnPaper(database))


def second_pack(*, until):
    """Make the life of a pack that was put in 120 days before, its cycles counted from new."""
    return [
        replace(reading, charge_cycle_count=reading.charge_cycle_count - 300)
        for reading in fading_life(until=until, last_capacity_mah=2410.0)
    ]


def test_the_second_pack_has_its_own_notice(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    assert device.run(at=NOW) == [NoticeState.ACCEPTED]
    later = NOW + timedelta(days=121)
    device.live(second_pack(until=later))

    assert device.run(at=later) == [NoticeState.REPLACED, NoticeState.ACCEPTED]
    assert device.shown == ["battery.under_7", "battery.under_7"]
    assert device.paper.status().notices == {"replaced": 1, "accepted": 1}


def test_the_same_pack_has_no_second_notice(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    device.run(at=NOW)

    assert device.run(at=NOW + timedelta(days=3)) == [NoticeState.ACCEPTED]
    assert device.shown == ["battery.under_7"]


def test_nothing_is_said_of_a_former_pack_without_consent(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    device.run(at=NOW)
    later = NOW + timedelta(days=121)
    device.live(second_pack(until=later))
    with device.client() as client:
        client.store.set_consent(Purpose.NOTICES, granted=False, now=later)

    assert device.run(at=later) == [NoticeState.ACCEPTED]
    assert device.paper.status().notices == {"accepted": 1}


def test_a_notice_of_a_former_pack_that_still_waits_is_not_shown(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    later = NOW + timedelta(days=121)
    with device.client() as client:
        client.store.keep_notice(
            "a" * 32, sequence=1, version=2, body=encode(a_notice()).decode(), now=NOW
        )
    device.live(second_pack(until=later))

    assert device.run(at=later) == [NoticeState.REPLACED, NoticeState.ACCEPTED]
    assert len(device.shown) == 1


def test_a_notice_whose_time_is_over_is_not_shown_and_counts_as_not_told(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    device.hear_of_it()
    with device.client() as client:
        client.store.set_quiet_hours(QuietHours(10, 20, "UTC"))

    assert device.run(at=NOW + timedelta(hours=1)) == [NoticeState.RECEIVED]
    over = NOW + timedelta(days=15, seconds=1)
    assert device.run(at=over) == [NoticeState.FAILED]
    assert device.shown == []
    assert device.paper.status().notices == {"failed": 1}


def test_a_notice_is_still_shown_while_clocks_may_be_wrong(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    device.hear_of_it()

    assert device.run(at=NOW + timedelta(days=15)) == [NoticeState.ACCEPTED]
    assert device.shown == ["battery.under_7"]


def test_a_notice_that_was_put_off_comes_again_after_a_week(device):
    device.live(fading_life(last_capacity_mah=2410.0))
    device.run(at=NOW, answer=NoticeState.SNOOZED)
    still = {"until": NOW + timedelta(days=7), "last_capacity_mah": 2410.0}
    device.live(fading_life(**still)[-28:])

    assert device.run(at=NOW + timedelta(days=6)) == [NoticeState.SNOOZED]
    states = device.run(at=NOW + timedelta(days=7))
    assert states == [NoticeState.SNOOZED, NoticeState.ACCEPTED]
    assert device.shown == ["battery.under_7", "battery.under_7"]
