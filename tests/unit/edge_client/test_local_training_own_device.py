"""A real device in a round: consent first, then rows from its own store."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge_client.errors import CloneError, InputError, InputMissingError, TaskRefusedError
from edge_client.local_training import TrainingPath
from edge_client.own_training import (
    HARDWARE_KEY,
    SEALED_UNDER_KEY,
    STORE_KEY,
    TRAINING_PATH_KEY,
    own_device,
)
from edge_client.provisioning.first_boot import add_identity
from edge_client.store.mailbox import Mailbox, Purpose
from edge_client.store.row_cipher import key_from_file
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.featurize import PackReferences, featurize
from models.labels import label_packs
from models.telemetry import CAUSES
from models.training_rows import training_rows
from models.wire.messages import NoticeState
from privacy import OperatingSystemNoise
from simulations import simulate_fleet
from tests.support.fleets import DAY, START_S, profiles, readings, times


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=1, num_days=260, seed=5)


@pytest.fixture
def device(fleet, tmp_path):
    path = tmp_path / "device.db"
    now = datetime.fromtimestamp(int(fleet.telemetry.at_s.max()), UTC) + timedelta(hours=1)
    with TelemetryStore.create(path, profile=fleet.profiles[0]) as store:
        store.record_many(readings_of(fleet.telemetry), now=now)
    return own_device({STORE_KEY: str(path)}, now=now)


def consent(device, *, granted):
    with Mailbox(device.store) as mailbox:
        mailbox.set_consent(Purpose.TRAINING, granted=granted, now=datetime.now(UTC))


def test_device_names_itself_only_with_its_owners_consent(device, fleet):
    assert device.device_ids == ()
    consent(device, granted=True)
    assert device.device_ids == fleet.telemetry.device_ids
    consent(device, granted=False)
    assert device.device_ids == ()


def test_rows_are_refused_once_the_owner_no_longer_agrees(device, fleet):
    consent(device, granted=True)
    consent(device, granted=False)
    with pytest.raises(TaskRefusedError, match="does not agree"):
        device.rows(fleet.telemetry.device_ids[0])


def test_training_that_is_stopped_from_afar_stays_the_owners_to_give(device, fleet):
    consent(device, granted=True)
    with Mailbox(device.store) as mailbox:
        mailbox.keep_fact("configuration", {"sequence": 1, "training": False})
    assert device.device_ids == ()
    with pytest.raises(TaskRefusedError, match="stopped by the server"):
        device.rows(fleet.telemetry.device_ids[0])
    with Mailbox(device.store) as mailbox:
        mailbox.keep_fact("configuration", {"sequence": 2})
    assert device.device_ids == fleet.telemetry.device_ids


def test_a_copy_of_a_device_trains_nothing(device, fleet, tmp_path):
    consent(device, granted=True)
    with TelemetryStore(device.store) as store:
        add_identity(store, hardware_id=b"one machine")
    for machine, may_train in (("one machine", True), ("another", False)):
        (tmp_path / "machine").write_text(machine)
        node = {STORE_KEY: str(device.store), HARDWARE_KEY: str(tmp_path / "machine")}
        found = own_device(node, now=device.now)
        if may_train:
            assert found.device_ids == fleet.telemetry.device_ids
        else:
            with pytest.raises(CloneError):
                found.rows(fleet.telemetry.device_ids[0])


def test_a_sealed_store_is_opened_with_the_key_that_the_node_names(fleet, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    path = tmp_path / "sealed.db"
    with TelemetryStore.create(path, profile=fleet.profiles[0], key=key_from_file(key)) as store:
        store.set_consent(Purpose.TRAINING, granted=True, now=datetime.now(UTC))
    node = {STORE_KEY: str(path), SEALED_UNDER_KEY: str(key)}
    assert own_device(node, now=datetime.now(UTC)).device_ids == fleet.telemetry.device_ids


def test_rows_are_those_that_the_fleet_would_make_of_its_readings(device, fleet):
    consent(device, granted=True)
    table = featurize(fleet.telemetry, fleet.profiles)
    expected = training_rows(table, label_packs(fleet.telemetry, fleet.profiles))
    rows = device.rows(fleet.telemetry.device_ids[0])
    assert len(rows) == len(expected) > 180
    assert np.array_equal(rows.features, expected.features, equal_nan=True)
    assert np.array_equal(rows.event_bin, expected.event_bin)


def test_another_devices_rows_are_refused(device):
    consent(device, granted=True)
    with pytest.raises(TaskRefusedError, match="not somebody-else"):
        device.rows("somebody-else")


def test_randomness_is_the_operating_systems(device):
    assert isinstance(device.source("any", stream="s", index=0), OperatingSystemNoise)


def test_node_without_a_store_in_its_configuration_is_told_what_to_do():
    with pytest.raises(InputMissingError, match=r"telemetry-db is missing.*--node-config"):
        own_device({}, now=datetime.now(UTC))


def test_node_says_how_row_gradients_are_computed():
    def path(**said):
        return own_device({STORE_KEY: "d.db"} | said, now=datetime.now(UTC)).training_path

    assert path() is path(**{TRAINING_PATH_KEY: "closed_form"}) is TrainingPath.CLOSED_FORM
    assert path(**{TRAINING_PATH_KEY: "opacus"}) is TrainingPath.OPACUS
    for other in ("torch", "", 1, True):
        with pytest.raises(InputError, match="training-path must be closed_form or opacus"):
            path(**{TRAINING_PATH_KEY: other})


def moment(day):
    return datetime.fromtimestamp(START_S + day * DAY, UTC)


def life(*, days, shutdowns_from_day=None):
    """A pack whose resistance reads 80 for ten days, then 120, and 150 in its last month."""
    at_s = times(days, per_day=1)
    day = (at_s - START_S) / DAY
    resistance = np.select([day <= 10, day <= days - 30], [80.0, 120.0], default=150.0)
    shutdowns = 0.0 if shutdowns_from_day is None else np.clip(day - shutdowns_from_day, 0, 8)
    return readings(at_s, capacity=2800.0, resistance=resistance, shutdowns=shutdowns)


def trained_device(folder, telemetry, *, now, references=None):
    path = folder / "device.db"
    with TelemetryStore.create(path, profile=profiles()[0]) as store:
        store.record_many(readings_of(telemetry), now=now)
        store.set_consent(Purpose.TRAINING, granted=True, now=now)
        if references is not None:
            store.keep_references(references)
    return own_device({STORE_KEY: str(path)}, now=now)


def test_label_is_measured_against_the_first_days_though_the_ring_has_lost_them(tmp_path):
    whole = life(days=320, shutdowns_from_day=300)
    kept = whole.rows(whole.at_s > START_S + 60 * DAY)
    references = PackReferences(
        capacity_mah=2800.0,
        charge_duration_min=np.nan,
        resistance_mohm=80.0,
        since_s=int(whole.at_s[0]),
    )
    device = trained_device(tmp_path, kept, now=moment(320), references=references)

    rows = device.rows("d0")
    expected = training_rows(featurize(whole, profiles()), label_packs(whole, profiles()))

    assert np.isfinite(label_packs(whole, profiles()).failed_at_s).all()
    assert np.isnan(label_packs(kept, profiles()).failed_at_s).all()
    assert rows.event_bin.tolist() == expected.event_bin[-len(rows) :].tolist()
    assert set(rows.cause.tolist()) == {CAUSES.index("resistance_growth")}


def test_owners_word_that_the_battery_failed_is_a_label(tmp_path):
    device = trained_device(tmp_path, life(days=260), now=moment(260))
    assert (device.rows("d0").event_bin == -1).all()

    with TelemetryStore(device.store) as store:
        store.keep_failure(failed_at=moment(255), cause="swelling", now=moment(260))
    rows = device.rows("d0")

    assert (rows.event_bin >= 0).all()
    assert set(rows.cause.tolist()) == {CAUSES.index("swelling")}


@pytest.mark.parametrize("state", list(NoticeState))
def test_what_the_owner_does_with_a_notice_is_no_label(tmp_path, state):
    device = trained_device(tmp_path, life(days=260), now=moment(260))
    with Mailbox(device.store) as mailbox:
        mailbox.keep_notice("a" * 32, sequence=1, version=2, body="{}", now=moment(250))
        mailbox.set_notice_state("a" * 32, state)

    assert (device.rows("d0").event_bin == -1).all()


def test_reading_from_a_clock_that_ran_ahead_confirms_nothing(tmp_path):
    telemetry = life(days=260)
    device = trained_device(tmp_path, telemetry, now=moment(260))
    honest = device.rows("d0")
    ahead = readings(times(90, per_day=1, start_s=START_S + 300 * DAY), capacity=2300.0)
    with TelemetryStore(device.store) as store:
        store.record_many(readings_of(ahead), now=moment(390))

    rows = device.rows("d0")

    assert np.array_equal(rows.features, honest.features, equal_nan=True)
    assert rows.event_bin.tolist() == honest.event_bin.tolist()
