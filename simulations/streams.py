"""Telemetry of a fleet in parts of any size, so that memory grows with neither devices nor days.

Parts are cut by devices and by time. A part is what the whole study holds for these devices and
days, bit for bit: clocks that are off, gauges that have learnt and counters that were lost go on
from one part to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .fleet import (
    DEVICES_A_BLOCK,
    MeasuredDevices,
    SimulatedFleet,
    blocks_of,
    check_size,
    simulate_devices,
)
from .recipe import FleetRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.telemetry import DeviceProfiles, Telemetry

DAYS_A_PART = 365
"""With the devices of a block some 30 MB of readings, and ten times that while they are made."""
_DEFAULT_RECIPE = FleetRecipe()


class TelemetryPart(NamedTuple):
    """What some devices recorded on some days.

    Attributes:
        device_indices: int64, numbers of the devices in the fleet.
        first_day: number of the first day, from the start of the study.
        num_days: days.
        profiles: of the devices.
        telemetry: in the order of recording; a reading belongs to the day on which it was made,
            whatever the device's clock said.
    """

    device_indices: NDArray[np.int64]
    first_day: int
    num_days: int
    profiles: DeviceProfiles
    telemetry: Telemetry


def stream_telemetry(
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    devices_a_part: int = DEVICES_A_BLOCK,
    days_a_part: int = DAYS_A_PART,
    by_time: bool = False,
) -> Iterator[TelemetryPart]:
    """Simulate a fleet and yield its telemetry part by part.

    Args:
        num_devices: as in `fleet.simulate_fleet`.
        num_days: as in `fleet.simulate_fleet`.
        seed: as in `fleet.simulate_fleet`.
        recipe: as in `fleet.simulate_fleet`.
        devices_a_part: at least 1.
        days_a_part: at least 1.
        by_time: all devices for the first days, then all devices for the next, as a server would
            see them; every device's state stays in memory then, about 1 KB each. Otherwise all
            days of the first devices, then those of the next.

    Raises:
        ValueError: when a number is out of its range.
    """
    check_size(num_devices=num_devices, num_days=num_days)
    for name, value in (("devices_a_part", devices_a_part), ("days_a_part", days_a_part)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    blocks = list(blocks_of(num_devices, devices_a_part))
    groups = [blocks] if by_time else [[block] for block in blocks]
    for group in groups:
        at_work = [
            (block, MeasuredDevices(block, num_days=num_days, seed=seed, recipe=recipe))
            for block in group
        ]
        for first_day in range(0, num_days, days_a_part):
            for block, devices in at_work:
                part_days = min(days_a_part, num_days - first_day)
                telemetry, _ = devices.next_days(part_days)
                yield TelemetryPart(block, first_day, part_days, devices.profiles, telemetry)


def simulate_device(
    device_index: int,
    *,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
) -> SimulatedFleet:
    """Make one device of a fleet again, alone, bit for bit as it is in the whole.

    Args:
        device_index: its number, which is the end of its identifier.
        num_days: as in `fleet.simulate_fleet`.
        seed: of the fleet.
        recipe: of the fleet.
    """
    if device_index < 0:
        raise ValueError(f"device_index must be at least 0, got {device_index}")
    return simulate_devices(
        np.array([device_index], np.int64), num_days=num_days, seed=seed, recipe=recipe
    )
