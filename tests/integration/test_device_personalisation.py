"""A device that wears faster than forecast: what it shows, what it keeps, and what never leaves."""

import io
import json
import zipfile
from dataclasses import asdict
from datetime import timedelta

import numpy as np
import pytest

from edge_client.cli import run
from edge_client.client import EdgeClient
from edge_client.personalisation.in_force import FACT
from edge_client.personalisation.learning import kept_state
from edge_client.store.erasure import erase_device
from edge_client.store.mailbox import Purpose
from models.telemetry import Reading
from models.wire.codec import encode
from tests.support.edge_devices import NOW, PROFILE, new_store
from tests.support.line_bundle import trusted_keys, write_line_bundle

DAYS = 210
HALVED = float(np.exp(-0.7))


def quickening_life(until=NOW):
    """Readings of a battery whose fade quickens, so that every straight forecast is too long."""
    for number in range(DAYS * 4):
        day = number / 4
        yield Reading(
            at=until - timedelta(days=DAYS - day),
            full_charge_capacity_mah=2950.0 - 0.3 * day - 60.0 * (day / DAYS) ** 4,
            charge_cycle_count=float(number // 4),
            charge_duration_min=100.0,
            battery_temp_max_c=30.0,
            battery_temp_avg_c=25.0,
            usage_hours=1.0,
        )


@pytest.fixture
def bundle(tmp_path):
    """A model whose every forecast is five times the straight line's."""
    return write_line_bundle(tmp_path / "line.zip", name="hopeful", scale=5.0)


@pytest.fixture
def path(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(quickening_life(), now=NOW)
        for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
            store.set_consent(purpose, granted=True, now=NOW)
        return store.path


def client_of(path, bundle, **choices):
    return EdgeClient(path, bundle, trusted_keys=trusted_keys(), **choices)


def taught(path, bundle, *, until=NOW, **choices):
    """Predict now and then for five months; leaves the client open."""
    client = client_of(path, bundle, **choices)
    for days_ago in range(150, -1, -5):
        client.predict(until - timedelta(days=days_ago), explain=False)
    return client


def test_a_report_says_that_it_is_corrected_and_by_how_much(path, bundle):
    with taught(path, bundle) as client:
        report, model = client.report, client.model_report
        factor = np.exp(client.log_factor)

    assert HALVED - 1e-9 <= factor < 0.9
    assert report.days_to_failure_p50 == pytest.approx(factor * model.days_to_failure_p50, rel=1e-5)
    assert report.model_days_to_failure_p50 == model.days_to_failure_p50
    assert report.days_to_failure_p50 <= model.days_to_failure_p90
    assert report.days_to_failure_p10 < report.days_to_failure_p50 < report.days_to_failure_p90
    for name in ("failure_probability_30d", "flagged", "state_of_health", "primary_issue"):
        assert getattr(report, name) == getattr(model, name)
    assert report.notice_is_due() == model.notice_is_due()


def test_a_device_that_may_not_learn_says_what_the_model_says(path, bundle):
    with taught(path, bundle, personalise=False) as client:
        assert client.report == client.model_report
        assert client.report.model_days_to_failure_p50 is None
        assert kept_state(client.store) is None


def test_it_survives_a_restart_and_goes_on_under_another_bundle(path, bundle, tmp_path):
    with taught(path, bundle) as client:
        said, factor = client.report, client.log_factor
    with client_of(path, bundle) as again:
        assert asdict(again.predict(NOW, explain=False)) == asdict(said)
    other = write_line_bundle(tmp_path / "other.zip", name="other", scale=2.0)
    with client_of(path, other) as changed:
        assert changed.predict(NOW).model_days_to_failure_p50 is not None
        assert factor + 0.1 < changed.log_factor < -0.1
    unlike = write_line_bundle(tmp_path / "unlike.zip", name="unlike", scale=0.3)
    with client_of(path, unlike) as changed:
        assert changed.predict(NOW).model_days_to_failure_p50 is None
        assert changed.log_factor == 0.0


def test_messages_are_byte_for_byte_those_of_a_device_without_it(path, bundle):
    with taught(path, bundle) as client:
        assert client.log_factor < 0
        own = encode(client.preview_summary(NOW))
    with client_of(path, bundle, personalise=False) as plain:
        plain.predict(NOW)
        assert own == encode(plain.preview_summary(NOW))


def test_nothing_that_waits_to_leave_or_goes_to_support_holds_it(path, bundle, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in trusted_keys().items()}))
    with taught(path, bundle) as client:
        client.summary(NOW)
        state = kept_state(client.store)
        waiting = b"".join(message.payload for message in client.store.outbox())
    flags = ["--store", str(path), "--bundle", str(bundle), "--trusted-keys", str(keys)]
    out = tmp_path / "support.zip"
    assert run([*flags, "diagnostics", "--out", str(out)]) == 0
    with zipfile.ZipFile(io.BytesIO(out.read_bytes())) as archive:
        told = archive.read("diagnostics.json")
    numbers = [float(value[0]) for value in (*state.correction, *state.waiting)]
    written = {repr(number).encode() for number in numbers if np.isfinite(number) and number % 1}

    assert len(written) >= 3
    assert not any(number in told + waiting for number in written)
    assert FACT.encode() not in waiting
    assert json.loads(told)["settings"]["personalisation"] == {"is_set": True}


def test_it_goes_with_the_data_and_the_owner_may_see_all_of_it(path, bundle):
    with taught(path, bundle) as client:
        assert client.store.export()["facts"][FACT]["format"] == 1
    folder = path.parent
    erase_device(path, now=NOW)
    left = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())

    assert b"margin_measured" not in left
    assert FACT.encode() not in left


def test_explanation_and_audit_record_agree_with_the_report(path, bundle, tmp_path, capsys):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: key.hex() for name, key in trusted_keys().items()}))
    flags = ["--store", str(path), "--bundle", str(bundle), "--trusted-keys", str(keys)]
    with taught(path, bundle) as client:
        report = client.report
    now = ["--now", NOW.isoformat()]
    assert run([*flags, "--json", "predict", "--explain", *now]) == 0
    told = json.loads(capsys.readouterr().out)
    assert run([*flags, "predict", "--audience", "compliance", *now]) == 0
    record = tmp_path / "record.json"
    record.write_text(capsys.readouterr().out)
    assert run([*flags, "personalisation", "reset"]) == 0
    assert run([*flags, "predict", "--check", str(record)]) == 0
    kept = json.loads(record.read_text())

    assert told["days_to_failure_p50"] == report.days_to_failure_p50
    assert told["model_days_to_failure_p50"] == report.model_days_to_failure_p50
    assert kept["outputs"]["days_to_failure_p50"] == report.days_to_failure_p50
    assert kept["personalisation"]["log_factor"] < 0
    assert "confirmed" in capsys.readouterr().out


def test_the_command_shows_and_forgets(path, bundle, capsys):
    with taught(path, bundle) as client:
        factor = float(np.exp(client.log_factor))
    flags = ["--store", str(path)]
    assert run([*flags, "--json", "personalisation", "show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert run([*flags, "personalisation"]) == 0
    words = capsys.readouterr().out
    assert run([*flags, "--json", "personalisation", "reset"]) == 0
    forgotten = json.loads(capsys.readouterr().out)
    assert run([*flags, "--personalisation", "off", "personalisation"]) == 0

    assert shown["learnt"]["factor"] == pytest.approx(factor)
    assert len(shown["learnt"]["parameters"]) <= 8
    assert f"times {factor:.2f}" in words
    assert forgotten == {"personalisation": "on", "was_reset": True, "learnt": None}
    assert "nothing yet" in capsys.readouterr().out


def test_a_new_pack_begins_anew(path, bundle):
    with taught(path, bundle) as client:
        assert client.log_factor < 0
        fresh = [
            Reading(
                at=NOW + timedelta(hours=6 * number + 6),
                full_charge_capacity_mah=3200.0 - 0.1 * number / 4,
                charge_cycle_count=float(number // 4),
            )
            for number in range(60 * 4)
        ]
        later = NOW + timedelta(days=60)
        client.record_many(fresh, now=later)
        report = client.predict(later, explain=False)

        assert client.log_factor == 0.0
        assert report.model_days_to_failure_p50 is None
        assert report.device_id == PROFILE.device_id
