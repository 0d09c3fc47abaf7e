"""Copies of laboratory cells as they would look in a device: other pace, noisy gauge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..telemetry import COLUMN, Outcomes, Telemetry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeNoise:
    """How fuel gauges misread capacity; each value for all devices, or of shape (n_devices,).

    Attributes:
        bias_std: standard deviation of a device's constant relative error.
        read_std: standard deviation of each reading's relative error.
        step: readings are rounded to this fraction of design capacity; 0 = not rounded.
    """

    bias_std: float | NDArray[np.float64] = 0.02
    read_std: float | NDArray[np.float64] = 0.01
    step: float | NDArray[np.float64] = 0.01


def various_gauges(num_devices: int, generator: np.random.Generator) -> GaugeNoise:
    """Return a gauge for each device, from laboratory-like to coarse."""
    read_std = np.exp(generator.uniform(np.log(0.001), np.log(0.02), num_devices))
    step = generator.choice([0.0, 0.002, 0.005, 0.01, 0.01], num_devices)
    return GaugeNoise(read_std=read_std, step=step)


def with_gauge_noise(
    telemetry: Telemetry,
    design_capacity_mah: NDArray[np.float64],
    noise: GaugeNoise,
    generator: np.random.Generator,
) -> Telemetry:
    """Return the readings as such gauges would give them."""
    count = len(telemetry.device_ids)
    device = telemetry.device_of_row()
    values = telemetry.values.copy()
    capacity = values[:, COLUMN["full_charge_capacity_mah"]].astype(np.float64)
    bias = 1.0 + noise.bias_std * generator.standard_normal(count)
    read_std = np.broadcast_to(noise.read_std, count)[device]
    capacity *= bias[device] * (1.0 + read_std * generator.standard_normal(len(capacity)))
    unit = (np.broadcast_to(noise.step, count) * design_capacity_mah)[device]
    whole = np.where(unit > 0, unit, 1.0)
    rounded = np.where(unit > 0, np.round(capacity / whole) * whole, capacity)
    values[:, COLUMN["full_charge_capacity_mah"]] = rounded
    return Telemetry(telemetry.device_ids, telemetry.offsets, telemetry.at_s, values)


def at_other_pace(
    telemetry: Telemetry, outcomes: Outcomes, cycles_per_day: NDArray[np.float64]
) -> tuple[Telemetry, Outcomes]:
    """Return the same lives lived at another pace: time is divided by `cycles_per_day`.

    Laboratories run one cycle after the other, which ties age to wear; users do not.

    Args:
        telemetry: sorted by time within each device.
        outcomes: of the same devices.
        cycles_per_day: shape (n_devices,), relative to the pace recorded.
    """
    start = telemetry.at_s[telemetry.offsets[:-1]]
    device = telemetry.device_of_row()
    since = (telemetry.at_s - start[device]) / cycles_per_day[device]
    failed_at = start + (outcomes.failed_at_s - start) / cycles_per_day
    until = start + (outcomes.observed_until_s - start) / cycles_per_day
    slower = Telemetry(
        telemetry.device_ids,
        telemetry.offsets,
        start[device] + np.round(since).astype(np.int64),
        telemetry.values,
    )
    return slower, Outcomes(
        outcomes.device_ids, until.astype(np.int64), failed_at, outcomes.primary_cause
    )


def without_channels(
    telemetry: Telemetry, share: float, generator: np.random.Generator
) -> Telemetry:
    """Return the readings with each channel but capacity absent on that share of the devices."""
    absent = generator.random((len(telemetry.device_ids), telemetry.values.shape[1])) < share
    absent[:, COLUMN["full_charge_capacity_mah"]] = False
    values = np.where(absent[telemetry.device_of_row()], np.nan, telemetry.values)
    return Telemetry(
        telemetry.device_ids, telemetry.offsets, telemetry.at_s, values.astype(np.float32)
    )
