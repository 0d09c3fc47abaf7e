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

CHEMISTRY = "NMC111"
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
    """

    name: str
    design_capacity_mah: float
    end_of_life_share: float
    charge_c_rate: float
    new_resistance_mohm: float
    hours_a_cycle: float
    gauge_bias_sd: float
    absent: frozenset[str] = frozenset()


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
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """The devices of a block; arrays of shape (n_devices,).

    Attributes:
        model: position in `DEVICE_MODELS`.
        criticality: object array of str.
    """

    model: NDArray[np.intp]
    criticality: NDArray[np.object_]

    def of_model(self, name: str) -> NDArray[np.float64]:
        """Return one figure of each device's model."""
        return np.array([float(getattr(model, name)) for model in DEVICE_MODELS])[self.model]

    def lacks(self, measurement: str) -> NDArray[np.bool_]:
        """Return which devices do not have a measurement."""
        return np.array([measurement in model.absent for model in DEVICE_MODELS])[self.model]


def draw_hardware(random: KeyedRandom, *, recipe: FleetRecipe) -> Hardware:
    """Draw the product and the criticality of each device."""
    level = np.searchsorted(_CRITICALITY_BOUNDS, random.uniform(Channel.CRITICALITY))
    return Hardware(
        model=pick(random.uniform(Channel.DEVICE_MODEL), recipe.device_model_mix),
        criticality=_CRITICALITIES[level],
    )


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
    """Write the rows of `new` over those at `positions`, for every array of a record of arrays."""
    for field in fields(arrays):  # type: ignore[arg-type]  # any of our dataclasses of arrays
        getattr(arrays, field.name)[positions] = getattr(new, field.name)
