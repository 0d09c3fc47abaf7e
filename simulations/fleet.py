"""Simulated fleets: profiles, telemetry, outcomes, and the truth behind them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import numpy as np

from models.telemetry import (
    MEASUREMENTS,
    SECONDS_PER_DAY,
    DeviceProfiles,
    Outcomes,
    Telemetry,
)

from .climates import CLIMATES
from .counter_random import Channel
from .life_block import LifeBlock
from .lives import Lives
from .manufacturing import DEVICE_MODELS
from .recipe import FleetRecipe
from .recording import RecorderMemory, record
from .sensing import SensorMemory, sense
from .truth import FleetTruth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from .lives import Days

    Floats = NDArray[np.float64]

# Small enough that a block of two years stays near 200 MB, large enough for the loop over days.
DEVICES_A_BLOCK = 256
_DEFAULT_RECIPE = FleetRecipe()


@dataclass(frozen=True, slots=True)
class SimulatedFleet:
    """A simulated fleet, or a block of one.

    Attributes:
        profiles: of the devices.
        telemetry: what the devices recorded, in the order in which they recorded it: a clock that
            jumps stays visible.
        outcomes: the truth about the pack with which each device entered.
        truth: the hidden state.
    """

    profiles: DeviceProfiles
    telemetry: Telemetry
    outcomes: Outcomes
    truth: FleetTruth


def simulate_fleet(
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    notice_replacements_s: Floats | None = None,
) -> SimulatedFleet:
    """Simulate a whole fleet in memory: 36 bytes a reading, and as much again for a moment.

    Args:
        num_devices: at least 1; devices are numbered from 0.
        num_days: at least 1.
        seed: 0 to 2**64 - 1. A device depends on the seed, its number, the recipe and nothing else,
            and its first days do not depend on `num_days`.
        recipe: what the fleet is made of.
        notice_replacements_s: float64, shape (num_devices,), seconds since the Unix epoch at which
            the owner replaces the pack after a notice, NaN = never. All else stays as it was, so
            that the same fleet can be lived through with and without notices.

    Raises:
        ValueError: when a number is out of its range.
    """
    return joined(
        list(
            simulate_blocks(
                num_devices=num_devices,
                num_days=num_days,
                seed=seed,
                recipe=recipe,
                notice_replacements_s=notice_replacements_s,
            )
        )
    )


def simulate_blocks(
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    notice_replacements_s: Floats | None = None,
    devices_a_block: int = DEVICES_A_BLOCK,
) -> Iterator[SimulatedFleet]:
    """Simulate a fleet block by block, so that memory does not grow with it.

    Arguments and errors are those of `simulate_fleet`; the size of a block changes no bit.
    """
    check_size(num_devices=num_devices, num_days=num_days)
    for indices in blocks_of(num_devices, devices_a_block):
        notices = None if notice_replacements_s is None else notice_replacements_s[indices]
        yield simulate_devices(
            indices,
            num_days=num_days,
            seed=seed,
            recipe=recipe,
            notice_replacements_s=notices,
        )


def simulate_devices(
    device_indices: NDArray[np.int64],
    *,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    notice_replacements_s: Floats | None = None,
) -> SimulatedFleet:
    """Simulate some devices of a fleet alone, bit for bit as they are in the whole.

    Args:
        device_indices: int64, shape (n_devices,), their numbers in the fleet.
        num_days: as in `simulate_fleet`.
        seed: as in `simulate_fleet`.
        recipe: as in `simulate_fleet`.
        notice_replacements_s: as in `simulate_fleet`, for these devices.
    """
    measured = MeasuredDevices(
        device_indices,
        num_days=num_days,
        seed=seed,
        recipe=recipe,
        notice_replacements_s=notice_replacements_s,
    )
    telemetry, lives = measured.next_days(num_days)
    return SimulatedFleet(
        profiles=measured.profiles,
        telemetry=telemetry,
        outcomes=lives.truth.outcomes(measured.ids),
        truth=lives.truth,
    )


class MeasuredDevices:
    """Some devices of a fleet that live and are measured, as many days at a time as are asked for.

    Attributes:
        ids: identifiers of the devices.
        profiles: of the devices.
    """

    def __init__(
        self,
        device_indices: NDArray[np.int64],
        *,
        num_days: int,
        seed: int,
        recipe: FleetRecipe = _DEFAULT_RECIPE,
        notice_replacements_s: Floats | None = None,
    ) -> None:
        """Put the devices to the first morning; arguments are those of `simulate_devices`."""
        self._block = life_block(
            device_indices,
            num_days=num_days,
            seed=seed,
            recipe=recipe,
            notice_replacements_s=notice_replacements_s,
        )
        self._recipe = recipe
        self._sensors = SensorMemory.new(len(device_indices))
        self._recorder = RecorderMemory.new(len(device_indices))
        self.ids = device_ids(device_indices, seed=seed)
        self.profiles = profiles_of(self._block, ids=self.ids, recipe=recipe)

    def next_days(self, num_days: int) -> tuple[Telemetry, Lives]:
        """Go on for some days within the study; return what was recorded, and what happened."""
        lives = lives_so_far(self._block, self._block.live(num_days))
        measured = sense(lives, recipe=self._recipe, memory=self._sensors)
        recorded = record(
            measured,
            lives,
            start_s=self._block.start_s,
            recipe=self._recipe,
            memory=self._recorder,
        )
        telemetry = Telemetry(
            device_ids=self.ids,
            offsets=np.concatenate([[0], np.cumsum(recorded.counts)]).astype(np.int64),
            at_s=recorded.at_s,
            values=recorded.values,
        )
        return telemetry, lives


def lives_of(
    device_indices: NDArray[np.int64],
    *,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    notice_replacements_s: Floats | None = None,
) -> Lives:
    """Live through some devices without measuring anything: a fifth of the work.

    Arguments are those of `simulate_devices`.
    """
    block = life_block(
        device_indices,
        num_days=num_days,
        seed=seed,
        recipe=recipe,
        notice_replacements_s=notice_replacements_s,
    )
    days = block.live(num_days)
    return lives_so_far(block, days)


def life_block(
    device_indices: NDArray[np.int64],
    *,
    num_days: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
    notice_replacements_s: Floats | None = None,
) -> LifeBlock:
    """Return devices on the first morning of the study.

    Arguments are those of `simulate_devices`.
    """
    check_size(num_devices=len(device_indices), num_days=num_days)
    notice_days = None
    if notice_replacements_s is not None:
        notice_days = (notice_replacements_s - recipe.start_at.timestamp()) / SECONDS_PER_DAY
    return LifeBlock(
        device_indices=np.asarray(device_indices, np.int64),
        num_days=num_days,
        seed=seed,
        recipe=recipe,
        notice_days=notice_days,
    )


def lives_so_far(block: LifeBlock, days: Days) -> Lives:
    """Return what is known of a block after the days that it has just lived."""
    return Lives(
        random=block.random,
        hardware=block.hardware,
        users=block.users,
        age_at_start_days=block.age_at_start_days,
        design_mah=block.design_mah,
        end_of_life_mah=block.end_of_life_mah,
        sends_until_day=block.sends_until_day,
        days=days,
        truth=block.truth(days),
    )


def check_size(*, num_devices: int, num_days: int) -> None:
    """Refuse sizes that no fleet can have."""
    for name, value, most in (("num_devices", num_devices, 2**40), ("num_days", num_days, 36_500)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be between 1 and {most}, got {value}")


def blocks_of(num_devices: int, devices_a_block: int) -> Iterator[NDArray[np.int64]]:
    """Cut the numbers of a fleet's devices into blocks, the last one perhaps smaller."""
    for start in range(0, num_devices, devices_a_block):
        yield np.arange(start, min(start + devices_a_block, num_devices), dtype=np.int64)


def device_ids(device_indices: NDArray[np.int64], *, seed: int) -> tuple[str, ...]:
    """Return identifiers that differ between fleets of different seeds and sort by number."""
    return tuple(f"sim-{seed}-{index:08d}" for index in device_indices.tolist())


def profiles_of(
    lives: Lives | LifeBlock, *, ids: tuple[str, ...], recipe: FleetRecipe
) -> DeviceProfiles:
    """Return what is known of each device from the day it was made."""
    shelf_days = 10.0 + 80.0 * lives.random.uniform(Channel.ENTRY_AGE, 2)
    age_days = lives.age_at_start_days - lives.hardware.enters_day
    age_s = np.floor((age_days + shelf_days) * SECONDS_PER_DAY).astype(np.int64)
    names = np.array([model.name for model in DEVICE_MODELS], dtype=object)
    chemistries = np.array([model.chemistry for model in DEVICE_MODELS], dtype=object)
    climates = np.array([climate.name for climate in CLIMATES], dtype=object)
    regions = np.array([climate.region for climate in CLIMATES], dtype=object)
    return DeviceProfiles(
        device_id=np.array(ids, dtype=object),
        device_model=names[lives.hardware.model],
        chemistry=chemistries[lives.hardware.model],
        design_capacity_mah=lives.design_mah,
        end_of_life_capacity_mah=lives.end_of_life_mah,
        manufactured_at_s=int(recipe.start_at.astimezone(UTC).timestamp()) - age_s,
        region=regions[lives.users.climate],
        climate=climates[lives.users.climate],
        criticality=lives.hardware.criticality,
    )


def joined_profiles(parts: Sequence[DeviceProfiles]) -> DeviceProfiles:
    """Put the profiles of blocks of devices together, in their order."""
    return DeviceProfiles(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in DeviceProfiles.__dataclass_fields__
        }
    )


def joined(blocks: Sequence[SimulatedFleet]) -> SimulatedFleet:
    """Put blocks of a fleet together, in their order."""
    if len(blocks) == 1:
        return blocks[0]
    ids = tuple(name for block in blocks for name in block.telemetry.device_ids)
    counts = np.concatenate([np.diff(block.telemetry.offsets) for block in blocks])
    num_readings = int(counts.sum())
    at_s = np.empty(num_readings, np.int64)
    values = np.empty((num_readings, len(MEASUREMENTS)), np.float32)
    filled = 0
    for block in blocks:
        rows = slice(filled, filled + len(block.telemetry))
        at_s[rows] = block.telemetry.at_s
        values[rows] = block.telemetry.values
        filled = rows.stop
    truth = FleetTruth.joined([block.truth for block in blocks])
    return SimulatedFleet(
        profiles=joined_profiles([block.profiles for block in blocks]),
        telemetry=Telemetry(
            device_ids=ids,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            at_s=at_s,
            values=values,
        ),
        outcomes=truth.outcomes(ids),
        truth=truth,
    )
