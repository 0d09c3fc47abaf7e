"""A ring by size: the file stays below its limit, whatever is written, whatever the clock says."""

from datetime import timedelta

import pytest

from edge_client.errors import StoreBusyError
from edge_client.store.mailbox import Purpose
from edge_client.store.size_limit import LEAST_STORE_BYTES
from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW, fading_life, new_store, reading

LIMIT = LEAST_STORE_BYTES
JOURNAL_BYTES = 80 * 4120
"""Of a store without a limit."""
KEY = bytes(32)


@pytest.fixture(params=[None, lambda: KEY], ids=["plain", "sealed"])
def store(tmp_path, request):
    choices = {"max_store_bytes": LIMIT, "retention_days": 40_000, "key": request.param}
    with new_store(tmp_path, **choices) as store:
        store._connection.execute("PRAGMA synchronous = OFF")
        yield store


def sizes(store):
    return {file.suffix: file.stat().st_size for file in store.path.parent.glob("device.db*")}


def test_file_stays_below_its_limit_and_keeps_the_newest(store):
    start = NOW - timedelta(days=2)
    for number in range(6_000):
        store.record(reading(start + timedelta(seconds=number)), now=NOW)
        if number % 100 == 0:
            assert sizes(store)[".db"] + sizes(store)[".db-wal"] <= LIMIT
    numbers, telemetry = store.telemetry_from(0)
    assert numbers[-1] == 6_000
    assert numbers.tolist() == list(range(int(numbers[0]), 6_001))
    assert len(telemetry) > 1_000
    store.close()
    assert store.path.stat().st_size <= LIMIT


def test_few_readings_leave_at_a_time(store):
    store.record_many(fading_life(days=800), now=NOW)
    before, most = store.num_readings(), 0
    for number in range(300):
        store.record(reading(NOW + timedelta(seconds=number)), now=NOW)
        now = store.num_readings()
        most, before = max(most, before + 1 - now), now
    assert 0 < most <= 64


def test_readings_in_bulk_stay_below_the_limit(store):
    store.record_many(fading_life(days=2_000), now=NOW + timedelta(days=2_000))
    store.close()
    assert store.path.stat().st_size <= LIMIT


def test_messages_and_daily_rows_count_too(store):
    store.record_many(fading_life(days=300), now=NOW)
    store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    store.keep_day_rows([(day, bytes(64)) for day in range(300)])
    for _ in range(250):
        store.put_out(Purpose.SUMMARIES, "t", bytes(1_000))
    store.close()
    assert store.path.stat().st_size <= LIMIT


def test_the_oldest_messages_leave_when_no_readings_are_left(store):
    store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    for _ in range(400):
        store.put_out(Purpose.SUMMARIES, "t", bytes(1_000))
    waiting = store.outbox()
    assert 70 < len(waiting) < 400
    assert waiting[-1].number == 400
    store.close()
    assert store.path.stat().st_size <= LIMIT


def test_what_cannot_fit_is_refused_whole(store):
    with pytest.raises(StoreBusyError, match=f"has reached its limit of {LIMIT} bytes"):
        store.keep_fact("large", "x" * LIMIT)
    assert store.fact("large") is None
    store.record(reading(), now=NOW)


def test_clock_that_jumps_ahead_does_not_empty_a_limited_store(store):
    store.record_many(fading_life(days=30), now=NOW)
    in_a_century = NOW + timedelta(days=36_500)
    store.record(reading(in_a_century), now=in_a_century)
    assert store.num_readings() == 121


def test_limit_can_be_set_later_and_holds_after_opening(tmp_path):
    with new_store(tmp_path, retention_days=40_000) as store:
        store.record_many(fading_life(days=2_500), now=NOW)
        store.set_max_store_bytes(300_000)
    with TelemetryStore(store.path) as again:
        assert again.max_store_bytes == 300_000
        again.record(reading(), now=NOW)
    assert store.path.stat().st_size <= 300_000
    with TelemetryStore(store.path) as again:
        assert again.num_readings() > 2_000


def test_log_of_a_store_without_a_limit_is_small_too(tmp_path):
    with new_store(tmp_path) as store:
        store._connection.execute("PRAGMA synchronous = OFF")
        most = 0
        for number in range(1_500):
            store.record(reading(NOW - timedelta(seconds=number)), now=NOW)
            most = max(most, sizes(store)[".db-wal"])
        assert 0 < most <= JOURNAL_BYTES


def test_log_of_a_large_write_is_given_back_with_the_next(tmp_path):
    with new_store(tmp_path) as store:
        many = [reading(NOW - timedelta(seconds=number)) for number in range(20_000)]
        store.record_many(many, now=NOW)
        assert sizes(store)[".db-wal"] > JOURNAL_BYTES
        store.record(reading(), now=NOW)
        assert sizes(store)[".db-wal"] <= JOURNAL_BYTES


def test_limit_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_store_bytes must be at least 262144"):
        new_store(tmp_path, max_store_bytes=LEAST_STORE_BYTES - 1)
    assert list(tmp_path.iterdir()) == []
