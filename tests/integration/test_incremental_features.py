"""A device's predictions from its closed days, in a real store, against those from all readings."""

from datetime import timedelta

import pytest

from edge_client import EdgeClient, TelemetryStore
from edge_client.incremental_features import current_features
from models.feature_window import FeatureWindow
from models.featurize import featurize_now
from models.telemetry import DeviceProfiles, Reading
from tests.support.edge_devices import NOW, fading_life, new_store

KEY = bytes(range(32))


@pytest.fixture(params=["plain", "sealed"])
def device(request, tmp_path):
    key = None if request.param == "plain" else (lambda: KEY)
    with new_store(tmp_path, key=key) as store:
        store.record_many(fading_life(), now=NOW)
        path = store.path
    with EdgeClient(path, key=key) as client:
        yield client


def whole(store: TelemetryStore, now):
    profiles = DeviceProfiles.of([store.profile])
    return featurize_now(store.telemetry(), profiles, now_s=int(now.timestamp()))


def kept_days(store):
    return [day for day, _ in store.day_rows(0)]


def test_each_day_is_closed_once_and_the_next_prediction_reads_what_came_since(device):
    for days in range(5):
        now = NOW + timedelta(days=days, hours=7)
        for hours in (1, 6):
            at = NOW + timedelta(days=days, hours=hours)
            device.record(Reading(at=at, full_charge_capacity_mah=2500.0 - days), now=now)
        report = device.predict(now)
        assert report.state_of_health == pytest.approx(
            whole(device.store, now).capacity_mah[0] / device.profile.design_capacity_mah
        )
        table, _ = current_features(device.store, now=now)
        assert table.features[0] == pytest.approx(
            whole(device.store, now).features[0], rel=1e-5, nan_ok=True
        )
        assert table.audited is None, "only the running day was looked at"

    closed = int(now.timestamp()) // 86_400
    assert kept_days(device.store) == [closed - 2, closed - 1, closed]


def test_a_late_reading_takes_the_days_back_that_it_changes(device):
    now = NOW + timedelta(hours=7)
    before = device.predict(now)
    assert kept_days(device.store)
    late = [
        Reading(at=NOW - timedelta(days=5, minutes=minutes), full_charge_capacity_mah=1500.0)
        for minutes in range(9)
    ]
    device.record_many(late, now=now)

    assert kept_days(device.store) == []
    after = device.predict(now)
    assert after.days_to_failure_p50 != before.days_to_failure_p50
    assert after.state_of_health == pytest.approx(
        whole(device.store, now).capacity_mah[0] / device.profile.design_capacity_mah
    )


def test_days_that_are_kept_in_another_format_are_made_anew(device):
    now = NOW + timedelta(hours=7)
    before = device.predict(now)
    (day,) = kept_days(device.store)
    device.store.keep_day_rows([(day, b"of tomorrow")])

    assert device.predict(now).days_to_failure_p50 == before.days_to_failure_p50
    assert FeatureWindow.from_bytes(device.store.day_rows(0)[-1][1]) is not None


def test_a_clock_that_goes_back_behind_the_closed_days_reads_everything(device):
    device.predict(NOW + timedelta(days=3))
    now = NOW - timedelta(days=2)
    table, _ = current_features(device.store, now=now)

    assert table.features[0] == pytest.approx(
        whole(device.store, now).features[0], rel=1e-6, nan_ok=True
    )
