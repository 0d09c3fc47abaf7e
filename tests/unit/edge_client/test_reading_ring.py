from datetime import UTC, datetime, timedelta

import pytest

from edge_client.client import EdgeClient
from edge_client.store.row_cipher import key_from_file
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import day_of
from tests.support.edge_devices import NOW, fading_life, new_store, reading

TODAY = day_of(int(NOW.timestamp()))
DAY = timedelta(days=1)


@pytest.fixture(params=["plain", "sealed"])
def store(tmp_path, request):
    key = None
    if request.param == "sealed":
        (tmp_path / "key").write_bytes(bytes(32))
        key = key_from_file(tmp_path / "key")
    with new_store(tmp_path, key=key) as store:
        yield store


@pytest.mark.parametrize(
    ("at_s", "day"), [(0, 0), (1, 1), (86_399, 1), (86_400, 1), (86_401, 2), (-1, 0)]
)
def test_day_holds_the_midnight_that_ends_it(at_s, day):
    assert day_of(at_s) == day


def test_readings_are_numbered_from_one_without_gaps(store):
    for hours in range(5):
        store.record(reading(NOW - timedelta(hours=hours)), now=NOW)
    store.record_many(fading_life(days=1), now=NOW)
    numbers, telemetry = store.telemetry_from(1)
    assert numbers.tolist() == list(range(1, 10))
    numbers, rest = store.telemetry_from(7)
    assert numbers.tolist() == [7, 8, 9]
    assert rest.at_s.tolist() == telemetry.at_s.tolist()[6:]
    assert len(store.telemetry_from(10)[1]) == 0


def test_number_of_the_last_reading_is_never_used_again(tmp_path):
    """Whoever remembers how far he has read would miss the reading that got it."""
    with new_store(tmp_path, retention_days=1) as store:
        for hours in (18, 12, 6):
            store.record(reading(NOW - timedelta(hours=hours)), now=NOW)
        store.record(reading(NOW - 30 * DAY), now=NOW)
        assert store.telemetry_from(1)[0].tolist() == [1, 2, 3, 4]
        store.record(reading(NOW), now=NOW)
        assert store.telemetry_from(1)[0].tolist() == [1, 2, 3, 5]


def test_telemetry_since_keeps_the_order_of_recording(store):
    ages = (2, 30, 1, 40, 0)
    for age in ages:
        store.record(reading(NOW - timedelta(days=age), usage_hours=float(age)), now=NOW)
    recent = store.telemetry(since=NOW - 3 * DAY)
    assert recent.values[:, 6].tolist() == [2.0, 1.0, 0.0]


def test_daily_rows_come_back_as_they_went_in(store):
    rows = [(TODAY - 2, b"two"), (TODAY - 1, b"one"), (TODAY, b"")]
    store.keep_day_rows(rows)
    assert store.day_rows(TODAY - 2) == rows
    assert store.day_rows(TODAY) == rows[2:]
    store.keep_day_rows([(TODAY, b"other")])
    assert store.day_rows(TODAY) == [(TODAY, b"other")]
    store.forget_day_rows(TODAY - 1)
    assert store.day_rows(0) == rows[:1]


@pytest.mark.parametrize("in_bulk", [False, True])
def test_late_reading_forgets_the_daily_rows_from_its_day_on(store, in_bulk):
    store.record(reading(NOW), now=NOW)
    rows = [(TODAY - 2, b"2"), (TODAY - 1, b"1")]
    store.keep_day_rows(rows)
    store.record(reading(NOW), now=NOW)
    assert store.day_rows(0) == rows
    late = reading(datetime.fromtimestamp((TODAY - 1) * 86_400, UTC))
    if in_bulk:
        store.record_many([reading(NOW), late], now=NOW)
    else:
        store.record(late, now=NOW)
    assert store.day_rows(0) == rows[:1]


def test_daily_rows_that_do_not_know_the_latest_reading_are_not_kept(store):
    store.record(reading(NOW - 3 * DAY), now=NOW)
    known = store.telemetry_from(0)[0][-1]
    with TelemetryStore(store.path, key=store._key) as other:
        other.record(reading(NOW - DAY), now=NOW)
    store.keep_day_rows([(TODAY - 2, b"2"), (TODAY - 1, b"1")], after_sequence=int(known))
    assert store.day_rows(0) == [(TODAY - 2, b"2")]


def test_refused_bulk_forgets_no_daily_rows(store):
    store.keep_day_rows([(TODAY - 1, b"1")])
    store.record_many([reading(NOW, usage_hours=-1.0)], now=NOW)
    assert store.day_rows(0) == [(TODAY - 1, b"1")]


def test_reading_within_a_transaction_is_part_of_it(store):
    store.record(reading(NOW - DAY), now=NOW)

    def one_that_fails():
        with store.transaction():
            store.record(reading(NOW), now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        one_that_fails()
    assert store.num_readings() == 1


def test_expiry_goes_on_after_many_readings_that_expired_nothing(tmp_path):
    with new_store(tmp_path, retention_days=10) as store:
        for number in range(200):
            store.record(reading(NOW - 9 * DAY + timedelta(hours=number)), now=NOW)
        later = NOW + 2 * DAY
        for number in range(10):
            store.record(reading(later - timedelta(minutes=number)), now=later)
        assert store.first_reading_at() >= later - 10 * DAY


def recorded_under(store, clock, *, days, ahead=timedelta(0), per_day=4):
    """Record as a device does whose clock is ahead, and return its true time afterwards."""
    for _ in range(round(days * per_day)):
        clock += timedelta(days=1) / per_day
        store.record(reading(clock + ahead), now=clock + ahead)
    return clock


YEARS = timedelta(days=13 * 365)
LONG = pytest.mark.slow


@pytest.mark.parametrize("ahead", [timedelta(days=400), timedelta(days=800), YEARS])
@pytest.mark.parametrize("days", [1 / 96, 3, *(pytest.param(n, marks=LONG) for n in (10, 29))])
def test_nothing_is_lost_under_a_clock_that_is_ahead_for_a_while(tmp_path, ahead, days):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=600), now=NOW)
        before = store.telemetry().at_s.tolist()
        clock = recorded_under(store, NOW, days=days, ahead=ahead, per_day=max(4, 1 / days))
        assert store.telemetry().at_s.tolist()[:2_400] == before
        clock = recorded_under(store, clock, days=10)
        assert store.telemetry().at_s.tolist()[:2_400] == before


def test_minutes_ahead_lose_only_what_is_due_in_minutes(tmp_path):
    with new_store(tmp_path, retention_days=100) as store:
        store.record_many(fading_life(days=100), now=NOW)
        store.record(reading(NOW + timedelta(minutes=5)), now=NOW + timedelta(minutes=5))
        assert store.num_readings() == 401
        store.record(reading(NOW), now=NOW)
        assert store.num_readings() == 402


def test_each_opening_judges_the_clock_anew(tmp_path):
    """As `fedcell-device record` does, one process a reading."""
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=60), now=NOW)
    for number in range(1, 41):
        later = NOW + YEARS + timedelta(hours=number)
        with TelemetryStore(store.path) as again:
            again.record(reading(later), now=later)
    with TelemetryStore(store.path) as again:
        assert again.num_readings() == 240 + 40


@pytest.mark.slow
def test_jump_for_ever_ends_what_was_before_after_two_thirds_more(tmp_path):
    """The device's clock was wrong before, or it has been off for years."""
    with new_store(tmp_path, retention_days=300) as store:
        store.record_many(fading_life(days=100), now=NOW)
        clock = recorded_under(store, NOW, days=99, ahead=YEARS)
        assert store.num_readings() == 4 * 199
        recorded_under(store, clock, days=110, ahead=YEARS)
        assert store.num_readings() == 4 * 209


@pytest.mark.slow
def test_clock_ten_years_ahead_for_months_loses_nothing_and_what_it_left_leaves(tmp_path):
    with new_store(tmp_path, retention_days=200) as store:
        store.record_many(fading_life(days=60), now=NOW)
        before = store.telemetry().at_s.tolist()
        clock = recorded_under(store, NOW, days=60, ahead=YEARS)
        clock = recorded_under(store, clock, days=30)
        assert store.telemetry().at_s.tolist()[:240] == before
        assert store.num_readings() == 4 * 150
        clock = recorded_under(store, clock, days=201)
        assert store.num_readings() == 4 * 200 + 1
        assert store.telemetry().at_s.max() == clock.timestamp()


@pytest.mark.parametrize("gap_days", [20, 33, 35, 45, 60])
def test_retention_holds_for_a_device_that_measures_in_bursts(tmp_path, gap_days):
    with new_store(tmp_path) as store:
        for number in range(4 * 365 // gap_days):
            now = NOW + number * gap_days * DAY
            for hours in range(0, 60, 6):
                at = now + timedelta(hours=hours)
                store.record(reading(at), now=at)
        assert store.first_reading_at() >= at - 730 * DAY


@pytest.mark.slow
def test_clock_that_is_behind_for_months_loses_nothing_and_then_expiry_goes_on(tmp_path):
    with new_store(tmp_path, retention_days=150) as store:
        store.record_many(fading_life(days=90), now=NOW)
        clock = recorded_under(store, NOW, days=60, ahead=-timedelta(days=500))
        assert store.num_readings() == 360 + 240
        clock = recorded_under(store, clock, days=29)
        assert store.num_readings() == 600 + 4 * 29
        clock = recorded_under(store, clock, days=150)
        assert store.first_reading_at() >= clock - timedelta(days=151)


def test_daily_rows_stay_under_a_clock_that_is_ahead(store):
    store.record_many(fading_life(days=60), now=NOW)
    store.keep_day_rows([(TODAY - 1, b"1")])
    store.record(reading(NOW + YEARS), now=NOW + YEARS)
    assert store.day_rows(0) == [(TODAY - 1, b"1")]


def test_estimate_is_the_same_after_three_days_under_a_wrong_clock(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=60), now=NOW)
    with EdgeClient(store.path, bundle="default") as client:
        before = client.predict(NOW, explain=False)
        for number in range(12):
            wrong = NOW + YEARS + timedelta(hours=6 * number)
            client.record(reading(wrong), now=wrong)
        assert client.predict(NOW, explain=False) == before


def test_reading_follows_a_file_that_took_the_place_of_the_old_one(tmp_path):
    with new_store(tmp_path) as store:
        for hours in (2, 1):
            store.record(reading(NOW - timedelta(hours=hours)), now=NOW)
        for name in ("device.db-wal", "device.db-shm", "device.db"):
            (tmp_path / name).rename(tmp_path / f"former-{name}")
        new_store(tmp_path).close()
        store.record(reading(NOW), now=NOW)
        assert store.telemetry().at_s.tolist() == [int(NOW.timestamp())]
