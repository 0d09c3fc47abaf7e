"""A real device in a round: consent first, then rows from its own store."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge_client.errors import InputMissingError
from edge_client.mailbox import Mailbox, Purpose
from edge_client.own_training import STORE_KEY, own_device
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.featurize import featurize
from models.labels import label_packs
from models.training_rows import training_rows
from privacy import OperatingSystemNoise
from simulations import simulate_fleet


@pytest.fixture(scope="module")
def fleet():
    return simulate_fleet(num_devices=1, num_days=260, seed=5)


@pytest.fixture
def device(fleet, tmp_path):
    path = tmp_path / "device.db"
    now = datetime.fromtimestamp(int(fleet.telemetry.at_s.max()), UTC) + timedelta(hours=1)
    with TelemetryStore.create(path, profile=fleet.profiles[0]) as store:
        store.record_many(readings_of(fleet.telemetry), now=now)
    return own_device({STORE_KEY: str(path)})


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
    with pytest.raises(ValueError, match="does not agree"):
        device.rows(fleet.telemetry.device_ids[0])


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
    with pytest.raises(ValueError, match="not somebody-else"):
        device.rows("somebody-else")


def test_randomness_is_the_operating_systems(device):
    assert isinstance(device.source("any", stream="s", index=0), OperatingSystemNoise)


def test_node_without_a_store_in_its_configuration_is_told_what_to_do():
    with pytest.raises(InputMissingError, match=r"telemetry-db is missing.*--node-config"):
        own_device({})
