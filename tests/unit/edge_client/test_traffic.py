"""Bytes a day: what a message costs, what a budget holds back, what the store remembers."""

from datetime import timedelta

import pytest

from edge_client.errors import StoreBusyError
from edge_client.link.traffic import TrafficMeter, connection_bytes, day_of, kind_of, publish_bytes
from edge_client.store.mailbox import Mailbox
from models.wire.topics import Down, Up, down, up
from tests.support.edge_devices import NOW, new_store

SUMMARY, ACK = up("device-1", Up.SUMMARY), up("device-1", Up.ACK)


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as store:
        yield store


def test_a_message_costs_what_mqtt_makes_of_it():
    # PUBLISH: type 1, length 1 or 2, topic length 2, packet id 2, properties 1; PUBACK 4.
    assert publish_bytes("t/1", 5) == 1 + 1 + 2 + 3 + 2 + 1 + 5 + 4
    assert publish_bytes("t", 1024) == 1 + 2 + 2 + 1 + 2 + 1 + 1024 + 4
    assert publish_bytes("t", 0) == 12


def test_connecting_costs_more_with_a_longer_name_and_more_topics():
    less = connection_bytes("a", will_bytes=0, filters=("t",))
    more = connection_bytes("abc", will_bytes=100, filters=("t", "u/v"))

    assert more[0] - less[0] == 2 + 100 + 3 + 3
    assert more[1] - less[1] == 1


def test_kinds_are_those_of_the_topics():
    assert kind_of(SUMMARY) == "summary"
    assert kind_of(down("device-1", Down.NOTIFY)) == "notify"
    assert kind_of("elsewhere") == "other"


def test_what_passed_is_kept_by_day_direction_and_kind(store):
    now = [NOW]
    meter = TrafficMeter(65_536, clock=lambda: now[0])
    for _ in range(2):
        meter.observe(True, SUMMARY, 1024)
    meter.observe(False, down("device-1", Down.NOTIFY), 641)
    now[0] += timedelta(days=1)
    meter.observe(True, ACK, 512)
    meter.flush(store)
    meter.flush(store)

    told = [(t.day, t.direction, t.kind, t.messages, t.num_bytes) for t in store.traffic(0)]
    assert told == [
        (day_of(NOW), "down", "notify", 1, publish_bytes(down("device-1", Down.NOTIFY), 641)),
        (day_of(NOW), "up", "summary", 2, 2 * publish_bytes(SUMMARY, 1024)),
        (day_of(NOW) + 1, "up", "ack", 1, publish_bytes(ACK, 512)),
    ]


def test_above_the_budget_only_acknowledgements_and_notices_pass(store):
    now = [NOW]
    meter = TrafficMeter(2 * publish_bytes(SUMMARY, 1024), clock=lambda: now[0])
    meter.observe(True, SUMMARY, 1024)
    assert meter.may_send("summary")
    meter.observe(True, SUMMARY, 1024)
    passing = {
        kind for kind in ("summary", "birth", "status", "ack", "notify") if meter.may_send(kind)
    }
    assert passing == {"ack", "notify"}
    now[0] += timedelta(days=1)
    assert meter.may_send("summary")


def test_what_others_send_spends_nothing_of_what_may_leave(store):
    before = TrafficMeter(1000, clock=lambda: NOW)
    for _ in range(100):
        before.observe(False, down("device-1", Down.NOTIFY), 4096)
    assert before.may_send("summary")
    before.flush(store)
    after = TrafficMeter(1000, clock=lambda: NOW)
    after.load(store)
    assert not after.is_spent()


def test_connecting_is_the_devices_own_doing_both_ways():
    meter = TrafficMeter(1000, clock=lambda: NOW)
    meter.count("down", "connection", 1000)
    assert meter.is_spent()
    assert not meter.may_send("birth")


def test_the_budget_outlives_a_restart(store):
    before = TrafficMeter(1000, clock=lambda: NOW)
    before.observe(True, SUMMARY, 1024)
    before.flush(store)
    after = TrafficMeter(1000, clock=lambda: NOW)
    assert after.may_send("summary")
    after.load(store)
    assert not after.may_send("summary")


def spend_the_day(meter):
    spent = 0
    while meter.may_send("summary"):
        meter.count("up", "summary", 100)
        spent += 100
    return spent


@pytest.mark.parametrize("step", [1, -1, 400])
def test_a_clock_that_is_set_to_and_fro_earns_no_second_budget(step):
    now = [NOW]
    meter = TrafficMeter(1000, clock=lambda: now[0])
    spent = 0
    for number in range(20):
        spent += spend_the_day(meter)
        now[0] = NOW + timedelta(days=step * (number % 2 == 0))
    assert spent == 2 * 1000


def test_nor_does_one_that_shows_another_day_each_time():
    now, elapsed_s = [NOW], [0.0]
    meter = TrafficMeter(1000, clock=lambda: now[0], elapsed_s=lambda: elapsed_s[0])
    spent = 0
    for number in range(4 * 10):
        spent += spend_the_day(meter)
        elapsed_s[0] += 6 * 3600
        now[0] += timedelta(days=(-1) ** number * number)
    assert spent <= (10 + 2) * 1000


def test_nor_do_restarts_between_two_days(store):
    spent = 0
    for number in range(10):
        meter = TrafficMeter(1000, clock=lambda days=number % 2: NOW + timedelta(days=days))
        meter.load(store)
        spent += spend_the_day(meter)
        meter.flush(store)
    assert spent == 2 * 1000


def test_each_midnight_of_a_right_clock_begins_a_budget():
    elapsed_s = [0.0]
    meter = TrafficMeter(
        1000,
        clock=lambda: NOW + timedelta(seconds=elapsed_s[0]),
        elapsed_s=lambda: elapsed_s[0],
    )
    spent = []
    for _ in range(10 * 24):
        spent.append(spend_the_day(meter))
        elapsed_s[0] += 3600
    # From noon on: the first at once, the others at the first hour of each day.
    assert [hour for hour, num_bytes in enumerate(spent) if num_bytes] == [0, *range(12, 240, 24)]


def test_counts_that_the_disk_refuses_are_written_later(store, monkeypatch):
    meter = TrafficMeter(1000, clock=lambda: NOW)
    meter.observe(True, SUMMARY, 10)

    def disk_is_full(*_):
        raise StoreBusyError("device.db", "disk is full", "free some")

    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "count_traffic", disk_is_full)
        with pytest.raises(StoreBusyError):
            meter.flush(store)
    meter.observe(True, SUMMARY, 10)
    meter.flush(store)
    assert [t.messages for t in store.traffic(0)] == [2]
