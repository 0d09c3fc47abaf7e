"""Copies of laboratory cells as they would look in a device: other pace, noisy gauge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..telemetry import COLUMN, SECONDS_PER_DAY, Outcomes, Telemetry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeNoise:
    """How a fuel gauge misreads capacity.

    Attributes:
        bias_std: standard deviation of a device's constant relative error.
        read_std: standard deviation of each reading's relative error.
        step: readings are rounded to this fraction of design capacity; 0 = not rounded.
    """

    bias_std: float = 0.02
    read_std: float = 0.01
    step: float = 0.01


CLEAN = GaugeNoise(bias_std=0.0, read_std=0.0, step=0.0)


def with_gauge_noise(
    telemetry: Telemetry,
    design_capacity_mah: NDArray[np.float64],
    noise: GaugeNoise,
    generator: np.random.Generator,
) -> Telemetry:
    """Return the readings as such a gauge would give them."""
    device = telemetry.device_of_row()
    values = telemetry.values.copy()
    capacity = values[:, COLUMN["full_charge_capacity_mah"]].astype(np.float64)
    bias = 1.0 + noise.bias_std * generator.standard_normal(len(telemetry.device_ids))
    capacity *= bias[device] * (1.0 + noise.read_std * generator.standard_normal(len(capacity)))
    if noise.step > 0:
        unit = noise.step * design_capacity_mah[device]
        capacity = np.round(capacity / unit) * unit
    values[:, COLUMN["full_charge_capacity_mah"]] = capacity
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


def sparser(
    telemetry: Telemetry, least_interval_days: float, generator: np.random.Generator
) -> Telemetry:
    """Return the readings thinned at random to about one every `least_interval_days`."""
    span = (telemetry.at_s[-1] - telemetry.at_s[0]) / SECONDS_PER_DAY if len(telemetry) else 0
    days = np.diff(telemetry.at_s, prepend=telemetry.at_s[:1]) / SECONDS_PER_DAY
    share = np.clip(np.abs(days) / least_interval_days, 0.0, 1.0) if span > 0 else days
    return telemetry.rows(generator.random(len(telemetry)) < share)
