"""The client on a real store with a real ONNX session."""

import inspect
import json
from datetime import datetime, timedelta

import pytest

from edge_client.client import EdgeClient
from edge_client.config import DeviceConfig
from edge_client.model_store import ModelStore
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.bundle import GOLDEN, MODEL, load_bundle
from models.errors import BundleError
from models.featurize import featurize
from models.prediction import Action, Status
from models.quiet_hours import QuietHours
from models.telemetry import DeviceProfiles
from models.wire.bands import DaysBand, HealthBand, ProbabilityBand
from models.wire.codec import encode
from tests.support.edge_devices import NOW, PROFILE, fading_life, new_store, reading
from tests.support.line_bundle import line_bundle, trusted_keys, write_line_bundle
from tests.support.onnx_surgery import STRUCTURAL, changed
from tests.support.update_bundles import write_variant
from tests.unit.edge_client.test_notices import a_notice


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return write_line_bundle(tmp_path_factory.mktemp("bundle") / "line.zip")


@pytest.fixture
def device(tmp_path, bundle):
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db", bundle, trusted_keys=trusted_keys()) as client:
        yield client


def test_report_follows_the_line_to_end_of_life(device):
    device.record_many(fading_life(), now=NOW)
    report = device.predict(NOW)
    assert report.status is Status.OK
    # 4.25 mAh a day from 2950 mAh, 40 mAh above end of life on the last day.
    assert report.days_to_failure_p50 == pytest.approx(40 / 4.25, abs=0.5)
    assert report.recommended_action is Action.SCHEDULE_REPLACEMENT
    assert report.state_of_health == pytest.approx(0.818, abs=0.002)
    assert report.model_version == line_bundle().version
    assert [reason.code for reason in report.reasons] == ["capacity_trend.raises"]
    assert device.figures.capacity_mah == pytest.approx(2452, abs=2)
    assert device.reasons() == (
        "Within a month the battery lost 4 % of its capacity when new; that speaks for a failure.",
    )
    assert device.reasons("de") == (
        (
            "Innerhalb eines Monats verlor der Akku 4 % seiner Kapazität im Neuzustand;"
            " das spricht für einen Ausfall."
        ),
    )


def test_client_runs_what_was_installed_as_the_commands_do(tmp_path, bundle):
    store = tmp_path / "device.db"
    new_store(tmp_path).close()
    with EdgeClient(store) as client:
        assert client.predict(NOW).model_version == load_bundle().version
    ModelStore.beside(store).install(bundle, trusted_keys=trusted_keys())
    with EdgeClient(store) as client:
        assert client.predict(NOW).model_version == line_bundle().version
    with EdgeClient(store, "default") as client:
        assert client.predict(NOW).model_version == load_bundle().version
    assert (
        inspect.signature(EdgeClient).parameters["bundle"].default
        == DeviceConfig(store=store).bundle
    )


@pytest.mark.parametrize("name", ["an endless loop", "four terabytes of zeros", "external data"])
def test_bundle_of_a_path_passes_the_structural_gate_before_it_is_run(tmp_path, name):
    path = write_variant(tmp_path / "b.zip", files={MODEL: changed(STRUCTURAL[name])})
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db", path, trusted_keys=trusted_keys()) as client:
        client.record_many(fading_life(), now=NOW)
        with pytest.raises(BundleError) as refusal:
            client.predict(NOW)
    assert refusal.value.reason == "structure"


def test_bundle_of_a_path_that_gives_other_outputs_than_were_signed_is_refused(tmp_path):
    golden = json.loads(load_bundle().files[GOLDEN])
    golden["failure_probability_30d"] = [0.5] * len(golden["failure_probability_30d"])
    path = write_variant(tmp_path / "b.zip", files={GOLDEN: json.dumps(golden).encode()})
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db", path, trusted_keys=trusted_keys()) as client:
        for _ in range(2):
            with pytest.raises(BundleError, match="other values of failure_probability_30d"):
                client.predict(NOW)


def test_too_little_history_says_so(device):
    device.record(reading(NOW), now=NOW)
    report = device.predict(NOW)
    assert report.status is Status.INSUFFICIENT_HISTORY
    assert report.days_to_failure_p50 is None
    assert not report.notice_is_due()


def test_empty_store_says_so(device):
    assert device.predict(NOW).status is Status.INSUFFICIENT_HISTORY


def test_silent_gauge_is_stale(device):
    device.record_many(fading_life(), now=NOW)
    assert device.predict(NOW + timedelta(days=20)).status is Status.STALE


def test_prediction_uses_nothing_later_than_its_moment(device):
    device.record_many(fading_life(), now=NOW)
    before = device.predict(NOW - timedelta(days=30))
    assert before.days_to_failure_p50 > 30


def test_figures_need_a_prediction_first(device):
    with pytest.raises(ValueError, match="predict"):
        _ = device.figures


def test_naive_moment_is_refused(device):
    with pytest.raises(ValueError, match="time zone"):
        device.predict(datetime(2026, 6, 1))


def test_nothing_leaves_without_consent(device):
    device.record_many(fading_life(), now=NOW)
    device.predict(NOW)
    assert device.summary(NOW) is None


def test_summary_holds_bands_and_no_wish_that_was_not_agreed_to(device):
    device.record_many(fading_life(), now=NOW)
    device.store.set_language("de")
    device.store.set_quiet_hours(QuietHours(22, 7, "Europe/Berlin"))
    device.store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    device.predict(NOW)
    summary = device.summary(NOW)
    assert summary.days_band is DaysBand.FROM_7_TO_30
    assert summary.health_band is HealthBand.FROM_80_TO_90
    assert summary.probability_band is ProbabilityBand.FROM_80
    assert (summary.notices_wanted, summary.language, summary.zone) == (False, "en", None)
    assert b"2452" not in encode(summary)

    device.store.set_consent(Purpose.NOTICES, granted=True, now=NOW)
    wished = device.summary(NOW)
    assert (wished.notices_wanted, wished.language, wished.zone) == (True, "de", "Europe/Berlin")
    assert (wished.quiet_from_hour, wished.quiet_until_hour) == (22, 7)
    assert wished.sequence == summary.sequence + 1
    assert wished.id != summary.id


def test_no_prediction_no_summary(device):
    device.store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    device.predict(NOW)
    assert device.summary(NOW) is None


def test_notice_is_filled_with_own_figures(device):
    device.record_many(fading_life(last_capacity_mah=2410.0), now=NOW)
    text = device.handle_notice(a_notice(), NOW).text()
    assert "your Meter 3" in text
    assert "mAh, 81 % of its capacity when new" in text
    assert "longer than a month ago" in text


def test_notice_without_a_prediction_still_reaches_its_owner(device):
    text = device.handle_notice(a_notice(), NOW).text()
    assert "0800 123 456" in text
    assert "mAh" not in text


def test_pack_references_outlive_the_ring(tmp_path, bundle):
    """A device whose ring holds 60 days knows its pack as one that kept everything does."""
    life = fading_life(days=200, last_capacity_mah=2500.0)
    short = TelemetryStore.create(tmp_path / "short.db", profile=PROFILE, retention_days=60)
    short.close()
    with EdgeClient(tmp_path / "short.db", bundle, trusted_keys=trusted_keys()) as client:
        for start in range(0, len(life), 40):
            part = life[start : start + 40]
            client.record_many(part, now=part[-1].at)
            client.predict(part[-1].at, explain=False)
        client.predict(NOW, explain=False)
        assert client.store.first_reading_at() > NOW - timedelta(days=61)
        kept = client.store.references()
        ring = client.store.telemetry()
    with new_store(tmp_path) as whole:
        whole.record_many(life, now=NOW)
        table = featurize(whole.telemetry(), DeviceProfiles.of([PROFILE]))
    assert kept.capacity_mah == pytest.approx(float(table.capacity_reference_mah[-1]))
    assert kept.charge_duration_min == pytest.approx(float(table.charge_reference_min[-1]))
    assert kept.since_s == int(life[0].at.timestamp())
    assert len(ring) < 250
