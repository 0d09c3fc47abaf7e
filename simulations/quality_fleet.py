"""The fleet of a quality study: simulated once, its rows scaled once, mapped from disk since.

Simulation only: the rows of real devices stay on them.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from models.closed_form_batches import ScaledRows
from models.durable_file import write_durably
from models.training_rows import TrainingRows

from .errors import SimulationsError
from .fleet_rows import fleet_rows
from .fleet_writing import write_simulated_fleet
from .recipe import FleetRecipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MADE_OF_FILE: Final = "made-of.json"
"""Written last: without it the folder is not whole and is made anew."""
_ROW_COLUMNS: Final = ("inputs", "exposure", "event_bin", "cause")
_HELD_OUT_COLUMNS: Final = ("device", "features", "exposure", "event_bin", "cause")
_EVERY_DAYS: Final = 7
"""Of held-out rows each seventh is kept: a week apart they say nearly as much."""


class StudyFleetError(SimulationsError):
    """The fleet of a study cannot be used; another folder can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFleetPlan:
    """What a study's fleet is made of.

    Attributes:
        num_devices: enrolled devices, those without enough rows too.
        num_days: of telemetry.
        seed: of the fleet.
    """

    num_devices: int = 10_000
    num_days: int = 600
    seed: int = 22

    @property
    def num_simulated(self) -> int:
        """Devices to simulate: a fifth never trains, by identifier; four standard deviations."""
        return round(1.25 * self.num_devices + 3 * math.sqrt(self.num_devices))

    def to_json(self) -> dict[str, int]:
        """Return the plan as a JSON object."""
        return {"num_devices": self.num_devices, "num_days": self.num_days, "seed": self.seed}


@dataclass(frozen=True)
class StudyFleet:
    """A study's fleet on disk.

    Attributes:
        folder: where `prepared_fleet` left it.
        plan: what it is made of.
    """

    folder: Path
    plan: StudyFleetPlan

    @cached_property
    def device_ids(self) -> tuple[str, ...]:
        """Enrolled devices, those without enough rows too."""
        made_of = json.loads((self.folder / _MADE_OF_FILE).read_text(encoding="utf-8"))
        return tuple(made_of["device_ids"])

    @cached_property
    def rows(self) -> ScaledRows:
        """Scaled rows of all enrolled devices, one device after the other."""
        columns = {
            name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ROW_COLUMNS
        }
        return ScaledRows(**columns)

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Where the rows of each device begin and end."""
        bounds = np.load(self.folder / "bounds.npy", allow_pickle=False)
        return list(pairwise(bounds.tolist()))

    @cached_property
    def held_out(self) -> TrainingRows:
        """Rows of devices that never train, a week apart, by the true outcomes."""
        with np.load(self.folder / "held-out.npz", allow_pickle=False) as columns:
            return TrainingRows(**{name: columns[name] for name in _HELD_OUT_COLUMNS})


def prepared_fleet(
    folder: Path,
    plan: StudyFleetPlan,
    *,
    on_devices_done: Callable[[int], None] = lambda _: None,
) -> StudyFleet:
    """Return the study's fleet; it is simulated unless the folder already holds it whole.

    Args:
        folder: of this fleet alone.
        plan: what it is made of.
        on_devices_done: told of each block of simulated devices.

    Raises:
        StudyFleetError: the folder holds another fleet, or too few devices could be enrolled.
    """
    made_of = folder / _MADE_OF_FILE
    if made_of.exists():
        held = json.loads(made_of.read_text(encoding="utf-8"))["plan"]
        if held != plan.to_json():
            raise StudyFleetError(f"{folder}: holds the fleet {held}; choose another folder")
        return StudyFleet(folder, plan)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    readings = folder / "readings"
    write_simulated_fleet(
        readings,
        num_devices=plan.num_simulated,
        num_days=plan.num_days,
        seed=plan.seed,
        recipe=FleetRecipe(),
        on_devices_done=on_devices_done,
    )
    fleet = fleet_rows(readings)
    shutil.rmtree(readings)
    if len(fleet.device_ids) < plan.num_devices:
        raise StudyFleetError(
            f"{folder}: {len(fleet.device_ids)} devices could be enrolled, not {plan.num_devices}; "
            "choose another seed"
        )
    training = fleet.training.take(fleet.training.device < plan.num_devices)
    scaled = ScaledRows.of(training)
    for name in _ROW_COLUMNS:
        np.save(folder / f"{name}.npy", getattr(scaled, name))
    counts = np.bincount(training.device, minlength=plan.num_devices)
    np.save(folder / "bounds.npy", np.concatenate([[0], np.cumsum(counts)]))
    thinned = fleet.held_out.take(slice(None, None, _EVERY_DAYS))
    held_out = {name: getattr(thinned, name) for name in _HELD_OUT_COLUMNS}
    np.savez(folder / "held-out.npz", **held_out)
    facts = {"plan": plan.to_json(), "device_ids": fleet.device_ids[: plan.num_devices]}
    write_durably(made_of, json.dumps(facts).encode())
    return StudyFleet(folder, plan)
