"""Devices for tests: a profile, a life of readings, a store filled with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId, DeviceProfile, Reading

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PROFILE = DeviceProfile(
    device_id=DeviceId("device-1"),
    device_model="Meter 3",
    chemistry="NMC111",
    design_capacity_mah=3000.0,
    end_of_life_capacity_mah=2400.0,
    manufactured_at=datetime(2024, 1, 1, tzinfo=UTC),
)


def new_store(folder: Path, **choices: object) -> TelemetryStore:
    """Make an empty store of the device above."""
    return TelemetryStore.create(folder / "device.db", profile=PROFILE, **choices)


def reading(at: datetime = NOW, **values: float) -> Reading:
    """Make a reading that breaks no rule."""
    return Reading(at=at, **({"full_charge_capacity_mah": 2900.0} | values))


def fading_life(
    *, until: datetime = NOW, days: int = 120, last_capacity_mah: float = 2440.0
) -> list[Reading]:
    """Make 6-hourly readings whose capacity falls on a line, and whose charging gets slower."""
    count = days * 4
    readings = []
    for index in range(count):
        left = (count - 1 - index) / count
        readings.append(
            Reading(
                at=until - timedelta(hours=6 * (count - 1 - index)),
                full_charge_capacity_mah=last_capacity_mah + left * (2950.0 - last_capacity_mah),
                charge_cycle_count=float(300 + index // 4),
                charge_duration_min=140.0 - 50.0 * left,
                battery_temp_max_c=33.0,
                battery_temp_avg_c=27.0,
                unexpected_shutdown_count=float(index // 100),
                usage_hours=1.5,
                internal_resistance_mohm=90.0 - 20.0 * left,
            )
        )
    return readings
