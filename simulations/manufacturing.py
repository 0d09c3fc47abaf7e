"""What leaves the factory: device models, and packs that are never quite alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from .counter_random import Channel, KeyedRandom
from .degradation import CellTraits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import FleetRecipe

_CRITICALITIES = np.array(["low", "medium", "high"], dtype=object)
_CRITICALITY_BOUNDS = np.array([0.3, 0.8])
# Numbers of one channel that belong to one pack.
PACK_STRIDE = 16


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """One product of the simulated maker; all figures are chosen, within what is on the market.

    Attributes:
        name: the segment that profiles carry.
        design_capacity_mah: capacity when new.
        end_of_life_share: capacity against design at which the maker replaces the pack.
        charge_c_rate: charging current over capacity, 1/h.
        new_resistance_mohm: resistance of a new pack as the gauge shows it.
        hours_a_cycle: hours of use that spend one full cycle.
        gauge_bias_sd: spread of the gauge's capacity bias over devices, fraction.
        absent: measurements that this model does not have.
        chemistry: of its cells, a name of `chemistries.LAWS`.
    """

    name: str
    design_capacity_mah: float
    end_of_life_share: float
    charge_c_rate: float
    new_resistance_mohm: float
    hours_a_cycle: float
    gauge_bias_sd: float
    absent: frozenset[str] = frozenset()
    chemistry: str = "NMC111"


DEVICE_MODELS = (
    DeviceModel("tracker", 2150.0, 0.75, 0.50, 95.0, 20.0, 0.020),
    DeviceModel("gateway", 5200.0, 0.80, 0.40, 42.0, 24.0, 0.015),
    DeviceModel(
        "lock", 2600.0, 0.70, 0.50, 80.0, 16.0, 0.030, frozenset({"internal_resistance_mohm"})
    ),
    DeviceModel("sensor", 1050.0, 0.78, 0.45, 190.0, 22.0, 0.025, frozenset({"usage_hours"})),
    DeviceModel("handheld", 4100.0, 0.80, 0.70, 55.0, 14.0, 0.018),
    DeviceModel(
        "camera",
        3200.0,
        0.85,
        0.60,
        70.0,
        18.0,
        0.022,
        frozenset({"internal_resistance_mohm", "battery_temp_max_c"}),
    ),
    DeviceModel("meter", 3300.0, 0.80, 0.40, 45.0, 30.0, 0.030, chemistry="LFP"),
    DeviceModel("scanner", 3000.0, 0.80, 0.90, 60.0, 9.0, 0.020, chemistry="NCA"),
    DeviceModel("station", 9800.0, 0.80, 0.30, 19.0, 26.0, 0.015, chemistry="NMC-50Ah-B1"),
)
"""A mix of shares names the first of them, or all: models are added at the end."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The devices of a block; arrays of shape (n_devices,).

    Attributes:
        model: position in `DEVICE_MODELS`.
        criticality: object array of str.
        enters_day: float64, days from the start of the study to the device's first day, whole.
    """

    model: NDArray[np.intp]
    criticality: NDArray[np.object_]
    enters_day: NDArray[np.float64]

    @property
    def chemistries(self) -> list[str]:
        """The chemistry of each device's cells."""
        names = [model.chemistry for model in DEVICE_MODELS]
        return [names[number] for number in self.model.tolist()]

    def of_model(self, name: str) -> NDArray[np.float64]:
        """Return one figure of each device's model."""
        return np.array([float(getattr(model, name)) for model in DEVICE_MODELS])[self.model]

    def lacks(self, measurement: str) -> NDArray[np.bool_]:
        """Return which devices do not have a measurement."""
        return np.array([measurement in model.absent for model in DEVICE_MODELS])[self.model]


def draw_hardware(random: KeyedRandom, *, recipe: FleetRecipe) -> Hardware:
    """Draw the product and the criticality of each device."""
    level = np.searchsorted(_CRITICALITY_BOUNDS, random.uniform(Channel.CRITICALITY))
    model = pick(random.uniform(Channel.DEVICE_MODEL), recipe.device_model_mix)
    enters_day = np.zeros(len(model))
    if recipe.new_model_share > 0:
        is_new = random.uniform(Channel.NEW_MODEL) < recipe.new_model_share
        model[is_new] = [known.name for known in DEVICE_MODELS].index(recipe.new_model)
        after = recipe.new_model_over_days * random.uniform(Channel.NEW_MODEL, 1)
        enters_day = np.where(is_new, np.floor(recipe.new_model_from_day + after), 0.0)
    return Hardware(model=model, criticality=_CRITICALITIES[level], enters_day=enters_day)


def pick(uniform: NDArray[np.float64], mix: tuple[float, ...]) -> NDArray[np.intp]:
    """Turn uniform numbers into positions in a mix of shares."""
    bounds = np.cumsum(mix) / np.sum(mix)
    return np.searchsorted(bounds[:-1], uniform, side="right")


def draw_cells(
    random: KeyedRandom, *, pack_number: NDArray[np.int64], recipe: FleetRecipe
) -> tuple[CellTraits, NDArray[np.bool_]]:
    """Draw how each device's pack differs from the cell of the law.

    Args:
        random: of the devices.
        pack_number: 0 for the first pack of a device, shape (n_devices,).
        recipe: spreads and shares.

    Returns:
        The traits, and which packs are from a bad lot.
    """
    first = pack_number * PACK_STRIDE
    bad_lot = random.uniform(Channel.BAD_LOT, pack_number) < recipe.bad_lot_share
    lot = np.where(bad_lot, recipe.bad_lot_factor, 1.0)
    prone = random.uniform(Channel.CELL, first + 6) < recipe.resistance_prone_share
    gradual = random.uniform(Channel.CELL, first + 7) < recipe.gradual_share
    traits = CellTraits(
        capacity_factor=1.0 + recipe.capacity_sd * random.normal(Channel.CELL, first),
        fade_factor=recipe.fade_scale
        * lot
        * np.exp(recipe.fade_sigma * random.normal(Channel.CELL, first + 1)),
        growth_factor=lot
        * np.where(prone, recipe.resistance_prone_factor, 1.0)
        * np.exp(recipe.growth_sigma * random.normal(Channel.CELL, first + 2)),
        knee_soh=np.clip(
            recipe.knee_soh_mean + recipe.knee_soh_sd * random.normal(Channel.CELL, first + 3),
            0.5,
            0.97,
        ),
        knee_rate=recipe.knee_rate_median
        * np.where(gradual, recipe.gradual_factor, 1.0)
        * np.exp(recipe.knee_rate_sigma * random.normal(Channel.CELL, first + 4)),
        resistance_factor=1.0 + 0.04 * random.normal(Channel.CELL, first + 5),
    )
    return traits, bad_lot


def replace_rows(arrays: object, positions: NDArray[np.intp], new: object) -> None:
    """Take the rows at `positions` from those of `new`, for every array of a record of arrays."""
    for field in fields(arrays):  # type: ignore[arg-type]  # any of our dataclasses of arrays
        getattr(arrays, field.name)[positions] = getattr(new, field.name)[positions]
