"""Write a simulated fleet as a fleet dataset, block by block, in bounded memory."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.durable_file import write_durably
from models.errors import DatasetError
from models.fleet_dataset import write_fleet

from .answers import owner_answers
from .errors import DiskTooSmallError
from .fleet import (
    blocks_of,
    device_ids,
    joined_profiles,
    life_block,
    profiles_of,
    simulate_blocks,
)
from .physics import DEVICES_A_BLOCK as LIVES_A_BLOCK
from .prevalence import FleetSummary, summarise
from .truth import FleetTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from models.telemetry import DeviceProfiles, Telemetry

    from .recipe import FleetRecipe

BYTES_A_READING = 12
BYTES_A_DEVICE = 30
"""On disk, from fleets of 150 to 2,000 devices: 13.1-13.6 bytes, 13-34 bytes."""
SIMULATION_FILE = "simulation.json"


@dataclass(frozen=True, slots=True)
class WrittenFleet:
    """What was written: the number of readings, and what became of the devices."""

    readings: int
    summary: FleetSummary


def write_simulated_fleet(
    directory: Path,
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe,
    on_devices_done: Callable[[int], None],
    scenario: str | None = None,
    on_devices_lived: Callable[[int], None] = lambda _: None,
) -> WrittenFleet:
    """Simulate a fleet and write it; the dataset appears whole or not at all.

    The lives are lived twice, first for the outcomes, then for the readings, so that no more than
    a block of readings is ever in memory.

    Args:
        directory: must not exist, or be an empty folder.
        num_devices: as in `fleet.simulate_fleet`.
        num_days: as in `fleet.simulate_fleet`.
        seed: as in `fleet.simulate_fleet`.
        recipe: as in `fleet.simulate_fleet`.
        on_devices_done: told of the devices of each block once their readings are written.
        scenario: that the recipe is from, to be noted.
        on_devices_lived: told of the devices of each block once their outcomes are known.

    Raises:
        models.errors.DatasetError: when the place is taken or cannot be written.
        DiskTooSmallError: when the disk has less room than the readings will take.
        ValueError: when a number is out of its range.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        # Said before the simulation, which `write_fleet` would have to wait for.
        raise DatasetError(directory, "exists already", "choose a new folder or remove it")
    _refuse_more_than_fits(
        directory, num_devices=num_devices, num_days=num_days, cadence_h=recipe.cadence_h
    )
    truth, profiles = _outcomes(
        num_devices=num_devices,
        num_days=num_days,
        seed=seed,
        recipe=recipe,
        on_devices_lived=on_devices_lived,
    )
    readings = 0

    def telemetry() -> Iterator[Telemetry]:
        nonlocal readings
        for fleet in simulate_blocks(
            num_devices=num_devices, num_days=num_days, seed=seed, recipe=recipe
        ):
            yield fleet.telemetry
            readings += len(fleet.telemetry)
            on_devices_done(len(fleet.profiles))

    summary = summarise(truth)
    write_fleet(
        directory,
        profiles=profiles,
        telemetry=telemetry(),
        outcomes=truth.outcomes(tuple(profiles.device_id.tolist())),
        answers=owner_answers(truth, seed=seed, recipe=recipe),
    )
    made_of = {
        "num_devices": num_devices,
        "num_days": num_days,
        "seed": seed,
        "scenario": scenario,
        "recipe": recipe.to_json(),
        "summary": summary.to_json(),
    }
    write_durably(directory / SIMULATION_FILE, f"{json.dumps(made_of, indent=2)}\n".encode())
    return WrittenFleet(readings=readings, summary=summary)


def _outcomes(
    *,
    num_devices: int,
    num_days: int,
    seed: int,
    recipe: FleetRecipe,
    on_devices_lived: Callable[[int], None],
) -> tuple[FleetTruth, DeviceProfiles]:
    """Let the devices live for what becomes of them, without their readings."""
    truths: list[FleetTruth] = []
    profiles: list[DeviceProfiles] = []
    for numbers in blocks_of(num_devices, LIVES_A_BLOCK):
        block = life_block(numbers, num_days=num_days, seed=seed, recipe=recipe)
        block.live_unseen(num_days)
        ids = device_ids(numbers, seed=seed)
        profiles.append(profiles_of(block, ids=ids, recipe=recipe))
        truths.append(block.truth(None))
        on_devices_lived(len(numbers))
    return FleetTruth.joined(truths), joined_profiles(profiles)


def _refuse_more_than_fits(
    directory: Path, *, num_devices: int, num_days: int, cadence_h: int
) -> None:
    """Refuse a fleet that the disk cannot hold, before hours are spent on it."""
    readings = num_devices * num_days * 24 // cadence_h
    wanted = readings * BYTES_A_READING + num_devices * BYTES_A_DEVICE
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise DiskTooSmallError(
            f"{directory}: up to {readings:,} readings take about {wanted / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB are free; simulate fewer devices or days, or choose another disk"
        )
