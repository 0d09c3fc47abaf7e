"""Telemetry in parts: what is cut apart is what was whole."""

import tracemalloc

import numpy as np
import pytest

from simulations import FleetRecipe, simulate_fleet
from simulations.streams import simulate_device, stream_telemetry

DEVICES, DAYS, SEED = 24, 90, 6
# Everything that goes on from one part to the next happens often.
EVENTFUL = FleetRecipe(
    fade_scale=3.0,
    owner_replaced_worn_a_year=3.0,
    resistance_prone_share=0.5,
    relearn_interval_days=12.0,
    reboot_interval_days=15.0,
    outage_interval_days=20.0,
    clock_fault_interval_days=20.0,
    user_changes_a_year=6.0,
    new_model="meter",
    new_model_share=0.3,
    new_model_from_day=30.0,
)


@pytest.fixture(scope="module")
def whole():
    return simulate_fleet(num_devices=DEVICES, num_days=DAYS, seed=SEED, recipe=EVENTFUL)


def stream(**settings):
    return stream_telemetry(
        num_devices=DEVICES, num_days=DAYS, seed=SEED, recipe=EVENTFUL, **settings
    )


def put_together(parts):
    """Return each device's times and values, its parts one after the other."""
    found = {}
    for part in parts:
        for row, device_id in enumerate(part.telemetry.device_ids):
            own = part.telemetry.devices(row, row + 1)
            found.setdefault(device_id, []).append((own.at_s, own.values))
    return {
        device_id: tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
        for device_id, parts in found.items()
    }


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize(("devices_a_part", "days_a_part"), [(24, 7), (5, 31), (9, 3)])
def test_parts_put_together_are_the_whole(whole, devices_a_part, days_a_part, by_time):
    if devices_a_part == 9 and by_time:
        devices_a_part, days_a_part = 24, 50
    parts = stream(devices_a_part=devices_a_part, days_a_part=days_a_part, by_time=by_time)

    found = put_together(parts)

    assert whole.truth.pack_number.max() >= 1
    assert tuple(found) == whole.telemetry.device_ids
    for row, device_id in enumerate(whole.telemetry.device_ids):
        expected = whole.telemetry.devices(row, row + 1)
        at_s, values = found[device_id]
        assert np.array_equal(at_s, expected.at_s)
        assert np.array_equal(values.view(np.uint32), expected.values.view(np.uint32))


def test_parts_by_time_follow_the_calendar():
    days = [part.first_day for part in stream(devices_a_part=10, days_a_part=50, by_time=True)]

    assert days == [0, 0, 0, 50, 50, 50]


def test_parts_by_device_follow_the_devices():
    parts = list(stream(devices_a_part=10, days_a_part=60))

    assert [part.first_day for part in parts] == [0, 60] * 3
    assert [part.num_days for part in parts] == [60, 30] * 3
    assert [int(part.device_indices[0]) for part in parts] == [0, 0, 10, 10, 20, 20]
    assert parts[-1].profiles.device_id.tolist() == list(parts[-1].telemetry.device_ids)


def test_device_is_made_again_from_seed_and_number(whole):
    alone = simulate_device(17, num_days=DAYS, seed=SEED, recipe=EVENTFUL)
    there = whole.telemetry.devices(17, 18)

    assert np.array_equal(alone.telemetry.at_s, there.at_s)
    assert np.array_equal(alone.telemetry.values, there.values, equal_nan=True)
    assert alone.profiles[0] == whole.profiles[17]


def test_memory_does_not_grow_with_the_study():
    def peak(num_days):
        tracemalloc.start()
        for part in stream_telemetry(
            num_devices=16, num_days=num_days, seed=1, devices_a_part=8, days_a_part=20
        ):
            assert part.num_days <= 20
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)

    assert peak(160) < 1.5 * peak(20) + 2e5


@pytest.mark.parametrize("wrong", [{"devices_a_part": 0}, {"days_a_part": 0}])
def test_empty_parts_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        list(stream(**wrong))


def test_number_of_a_device_is_not_negative():
    with pytest.raises(ValueError, match="device_index must be at least 0"):
        simulate_device(-1, num_days=5, seed=0)
