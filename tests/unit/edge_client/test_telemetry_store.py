import math
import os
import sqlite3
import stat
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from edge_client.errors import (
    ReadingRefusedError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
)
from edge_client.store.access import APPLICATION_ID
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.featurize import PackReferences
from models.quiet_hours import QuietHours
from models.telemetry import Reading
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store, reading


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as store:
        yield store


def test_nobody_else_can_read_the_store_and_its_journals(store, tmp_path):
    store.record(reading(), now=NOW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {
        "device.db": 0o600,
        "device.db-wal": 0o600,
        "device.db-shm": 0o600,
        "device.db.profile.json": 0o600,
    }


def test_a_pipe_is_no_store_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "device.db")
    with pytest.raises(StoreError, match="is no regular file; choose another path"):
        TelemetryStore(tmp_path / "device.db")


def test_reading_comes_back_as_it_went_in(store):
    went_in = Reading(
        at=datetime(2026, 6, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        full_charge_capacity_mah=2875.5,
        unexpected_shutdown_count=3,
    )
    store.record(went_in, now=NOW)
    telemetry = store.telemetry()
    assert telemetry.device_ids == ("device-1",)
    assert telemetry.at_s.tolist() == [int(NOW.timestamp())]
    row = telemetry.values[0]
    assert row[0] == 2875.5
    assert row[5] == 3
    assert np.isnan(row[[1, 2, 3, 4, 6, 7]]).all()


def test_order_of_recording_is_kept_where_the_clock_jumped_back(store):
    store.record(reading(NOW), now=NOW)
    store.record(reading(NOW - timedelta(days=3)), now=NOW)
    assert np.diff(store.telemetry().at_s).tolist() == [-3 * 86_400]
    assert store.first_reading_at() == NOW - timedelta(days=3)


def test_telemetry_can_be_limited_by_time(store):
    store.record_many(fading_life(days=10), now=NOW)
    recent = store.telemetry(since=NOW - timedelta(days=1))
    assert len(recent) == 5


@pytest.mark.parametrize(
    ("values", "at", "reason"),
    [
        ({"full_charge_capacity_mah": -5.0}, NOW, "out_of_range:full_charge_capacity_mah"),
        ({"battery_temp_max_c": 400.0}, NOW, "out_of_range:battery_temp_max_c"),
        ({"usage_hours": math.inf}, NOW, "out_of_range:usage_hours"),
        ({}, NOW + timedelta(days=1, seconds=1), "in_the_future"),
        ({}, datetime(1970, 1, 1, tzinfo=UTC), "before_manufacture"),
        ({"full_charge_capacity_mah": None}, NOW, "nothing_measured"),
        ({"full_charge_capacity_mah": math.nan}, NOW, "nothing_measured"),
    ],
)
def test_reading_that_breaks_a_rule_is_refused_and_counted(store, values, at, reason):
    with pytest.raises(ReadingRefusedError) as refused:
        store.record(reading(at, **values), now=NOW)
    assert refused.value.reason == reason
    assert store.refusals() == {reason: 1}
    assert store.num_readings() == 0


def test_clock_a_day_ahead_is_tolerated(store):
    store.record(reading(NOW + timedelta(days=1)), now=NOW)
    assert store.num_readings() == 1


def test_bulk_keeps_what_passes_and_counts_the_rest(store):
    bad = [reading(usage_hours=-1.0), reading(usage_hours=-2.0), reading(NOW + timedelta(days=9))]
    done = store.record_many([*fading_life(days=5), *bad], now=NOW)
    assert done.num_kept == 20
    assert done.refused == {"out_of_range:usage_hours": 2, "in_the_future": 1}
    assert store.refusals() == done.refused
    assert store.num_readings() == 20


def test_failing_bulk_leaves_nothing(store):
    def breaks_off():
        yield reading()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.record_many(breaks_off(), now=NOW)
    assert store.num_readings() == 0


def test_expired_readings_leave_the_ring(tmp_path):
    with new_store(tmp_path, retention_days=10) as store:
        store.record_many(fading_life(days=12), now=NOW - timedelta(days=2))
        store.record(reading(NOW), now=NOW)
        assert store.first_reading_at() >= NOW - timedelta(days=10)


def test_clock_that_jumps_ahead_does_not_empty_the_store(store):
    store.record_many(fading_life(days=30), now=NOW)
    in_ten_years = NOW + timedelta(days=3650)
    store.record(reading(in_ten_years), now=in_ten_years)
    assert store.num_readings() == 120 + 1


def test_two_years_of_readings_fit_in_a_megabyte(store):
    store.record_many(fading_life(days=730), now=NOW)
    store.close()
    assert store.path.stat().st_size < 1_000_000


def test_table_of_readings_and_single_readings_are_one_thing(store):
    life = fading_life(days=3)
    life[4] = reading(life[4].at, usage_hours=2.5)
    store.record_many(life, now=NOW)
    again = list(readings_of(store.telemetry()))
    assert [row.at for row in again] == [row.at for row in life]
    assert again[4] == life[4]


def test_profile_and_choices_survive_closing(tmp_path):
    quiet = QuietHours(22, 6, "Europe/Berlin")
    with new_store(tmp_path, language="de", retention_days=400) as store:
        store.set_quiet_hours(quiet)
        store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    with TelemetryStore(store.path) as again:
        assert again.profile == PROFILE
        assert again.language == "de"
        assert again.retention_days == 400
        assert again.quiet_hours == quiet
        assert again.consents()[Purpose.SUMMARIES].granted
        assert again.consents()[Purpose.SUMMARIES].changed_at == NOW
        again.set_quiet_hours(None)
        again.set_language("en")
        assert again.quiet_hours is None
        assert again.language == "en"


def test_references_are_kept_with_gaps(store):
    assert store.references() is None
    store.keep_references(PackReferences(2950.0, math.nan, 70.0, 1_700_000_000))
    kept = store.references()
    assert kept.capacity_mah == 2950.0
    assert math.isnan(kept.charge_duration_min)
    assert kept.since_s == 1_700_000_000


@pytest.mark.parametrize(("field", "value"), [("language", "fr"), ("retention_days", 0)])
def test_impossible_choice_is_refused_before_anything_is_made(tmp_path, field, value):
    with pytest.raises(ValueError, match=field):
        new_store(tmp_path, **{field: value})
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_never_replaced(tmp_path):
    path = tmp_path / "device.db"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        TelemetryStore.create(path, profile=PROFILE)
    assert path.read_text() == "mine"


def test_missing_store_says_how_to_make_it(tmp_path):
    with pytest.raises(StoreMissingError, match="init") as missing:
        TelemetryStore(tmp_path / "none.db")
    assert missing.value.exit_code == 4


def foreign_database(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE reading (x)")
    other.commit()
    other.close()


def damaged_store(path):
    with TelemetryStore.create(path, profile=PROFILE) as store:
        store.record_many(fading_life(days=100), now=NOW)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def newer_store(path):
    with TelemetryStore.create(path, profile=PROFILE) as store, store.transaction() as connection:
        connection.execute("INSERT INTO schema_version VALUES (99)")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_text("at,capacity\n" * 50), "no SQLite database"),
        (foreign_database, "another program"),
        (damaged_store, "damaged"),
        (newer_store, "schema version 99"),
    ],
)
def test_unusable_file_is_named_and_left_alone(tmp_path, make, says):
    path = tmp_path / "device.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=says) as refused, TelemetryStore(path) as store:
        store.telemetry()
    assert str(path) in str(refused.value)
    assert refused.value.exit_code == 3
    assert path.read_bytes() == before


def test_folder_in_place_of_a_store_is_named(tmp_path):
    with pytest.raises(StoreBusyError, match=str(tmp_path)):
        TelemetryStore(tmp_path)


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreBusyError, match="cannot be written") as refused:
        TelemetryStore.create(tmp_path / "file" / "device.db", profile=PROFILE)
    assert refused.value.exit_code == 6


def test_store_is_marked_as_ours(store):
    assert store.rows("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA synchronous") == [(2,)]
    assert not store.path.with_name("device.db.new").exists()
