from datetime import UTC, datetime

import numpy as np
import pytest

from models.telemetry import DeviceId, DeviceProfile, DeviceProfiles, Reading, Telemetry
from tests.support.fleets import profiles, readings, together

AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
PROFILE = {
    "device_id": DeviceId("d"),
    "device_model": "m",
    "chemistry": "c",
    "design_capacity_mah": 3000.0,
    "end_of_life_capacity_mah": 2400.0,
    "manufactured_at": AT,
}


def test_a_reading_gives_its_values_in_order_with_nan_where_nothing_was_measured():
    values = Reading(at=AT, full_charge_capacity_mah=2900, usage_hours=1.5).values()

    assert values[0] == 2900
    assert values[6] == 1.5
    assert np.isnan(np.delete(values, [0, 6])).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"end_of_life_capacity_mah": 0.0},
        {"end_of_life_capacity_mah": 4500.0},
        {"criticality": "vital"},
        {"manufactured_at": datetime(2026, 3, 1)},
    ],
)
def test_a_profile_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError):
        DeviceProfile(**(PROFILE | wrong))


def test_a_reading_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        Reading(at=datetime(2026, 3, 1))


def test_profiles_come_back_from_columns_as_they_went_in():
    rows = [DeviceProfile(**(PROFILE | {"device_id": DeviceId(name)})) for name in "abc"]
    table = DeviceProfiles.of(rows)

    assert [table[i] for i in range(3)] == rows
    assert table.take(np.array([2, 0]))[0] == rows[2]


def test_one_device_can_be_taken_out_of_a_table():
    first, second = readings(np.arange(3), capacity=1.0), readings(np.arange(2), device_id="d1")
    part = together(first, second).devices(1, 2)

    assert part.device_ids == ("d1",)
    assert part.at_s.tolist() == [0, 1]
    assert part.offsets.tolist() == [0, 2]


def test_devices_that_keep_no_reading_stay_listed():
    table = together(readings(np.arange(3)), readings(np.arange(2), device_id="d1"))
    kept = table.rows(np.array([False, False, False, True, False]))

    assert kept.device_ids == ("d0", "d1")
    assert kept.offsets.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("offsets", "rows"), [([0, 2], 3), ([0, 1, 3], 3), ([0, 3], 2)], ids=["short", "long", "shape"]
)
def test_tables_whose_arrays_do_not_belong_together_are_refused(offsets, rows):
    with pytest.raises(ValueError):
        Telemetry(("d",), np.array(offsets), np.arange(3), np.zeros((rows, 8), np.float32))


def test_fleet_builders_of_the_tests_agree_with_single_readings():
    made = Telemetry.of_device(
        "d0", [Reading(at=AT, battery_temp_max_c=31.0), Reading(at=AT, charge_cycle_count=2)]
    )
    at_s = np.full(2, int(AT.timestamp()))
    expected = readings(at_s, temp_max=[31.0, np.nan], cycles=[np.nan, 2])

    assert np.array_equal(made.values, expected.values, equal_nan=True)
    assert made.at_s.tolist() == at_s.tolist()
    assert profiles()[0].design_capacity_mah == 3000
