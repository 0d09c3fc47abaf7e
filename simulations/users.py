"""How devices are used: how much, when they charge, how far, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .counter_random import Channel, KeyedRandom
from .manufacturing import pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .counter_random import Counter
    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

# By quarters of a day, from the one in which the charge ends: share of the discharge that is done,
# and share of the day's use.
_DISCHARGED = np.array([0.0, 0.25, 0.60, 0.95])
_ACTIVITY = np.array([0.05, 0.25, 0.35, 0.35])
_SLOT_MIX = (0.15, 0.55, 0.15, 0.15)
LEAST_EFC, MOST_EFC = 0.03, 2.0
_DEEPEST = 0.90
COLDEST_C, HOTTEST_C = -30.0, 70.0


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a block of devices; arrays of shape (n_devices,) unless said.

    Attributes:
        full_cycles_a_day: mean equivalent full cycles a day.
        weekend_factor: factor of Saturdays and Sundays.
        soc_ceiling: state of charge at which charging stops.
        charge_slot: the quarter of the day, 0 to 3 from midnight UTC, in which the charge ends.
        discharged: share of the discharge done in each quarter, shape (4, n_devices).
        activity: share of the day's use in each quarter, same shape.
        indoor_share: share of the ambient temperature that is indoor.
        self_heating_c: above ambient in full use.
        climate: position in `CLIMATES`.
    """

    full_cycles_a_day: Floats
    weekend_factor: Floats
    soc_ceiling: Floats
    charge_slot: NDArray[np.intp]
    discharged: Floats
    activity: Floats
    indoor_share: Floats
    self_heating_c: Floats
    climate: NDArray[np.intp]

    def load(self, full_cycles: Floats) -> Floats:
        """Return the use in each quarter of a day against one full cycle a day, evenly spread.

        Args:
            full_cycles: of the day, shape (..., n_devices).

        Returns:
            float64, shape (..., 4, n_devices).
        """
        load = (4.0 * full_cycles)[..., None, :] * self.activity
        return np.minimum(load, 2.0, out=load)

    def cycles_of_days(
        self,
        random: KeyedRandom,
        *,
        days: NDArray[np.int64],
        weekend: NDArray[np.bool_],
        shape: float,
        usual: Floats | None = None,
    ) -> Floats:
        """Return the equivalent full cycles of some days.

        A day is gamma-distributed about the user's mean, by the cube of Wilson and Hilferty 1931
        (PNAS 17:684): gamma(k) / k is close to (1 - 1 / 9k + z / 3 sqrt(k))^3.

        Args:
            random: of the devices.
            days: shape (n_days,), from the start.
            weekend: which of them are, same shape.
            shape: k.
            usual: the users' means on these days, shape (n_days, n_devices), where they change.

        Returns:
            float64, shape (n_days, n_devices).
        """
        root = random.normal(Channel.DAILY_USAGE, days[:, None])
        root /= 3.0 * np.sqrt(shape)
        root += 1.0 - 1.0 / (9.0 * shape)
        np.maximum(root, 0.0, out=root)
        cycles = root * root
        cycles *= root
        cycles *= self.full_cycles_a_day if usual is None else usual
        cycles[weekend] *= self.weekend_factor
        return np.clip(cycles, LEAST_EFC, MOST_EFC, out=cycles)


def draw_users(random: KeyedRandom, *, recipe: FleetRecipe) -> Users:
    """Draw the user of each device."""
    slot = pick(random.uniform(Channel.CHARGE_SLOT), _SLOT_MIX)
    since_charge = (np.arange(4)[:, None] - slot) % 4
    # Beta(5, 2) is the fifth smallest of six uniform numbers.
    six = random.uniform(Channel.INDOOR, np.arange(6, dtype=np.int64)[:, None])
    cycles = recipe.efc_median * np.exp(recipe.efc_sigma * random.normal(Channel.USAGE_LEVEL))
    return Users(
        full_cycles_a_day=np.clip(cycles, LEAST_EFC, MOST_EFC),
        weekend_factor=np.exp(0.3 * random.normal(Channel.USAGE_WEEKEND)),
        soc_ceiling=draw_ceiling(random, Channel.CHARGE_CEILING, first=0, recipe=recipe),
        charge_slot=slot,
        discharged=_DISCHARGED[since_charge],
        activity=_ACTIVITY[since_charge],
        indoor_share=np.sort(six, axis=0)[4],
        self_heating_c=np.clip(
            recipe.self_heating_mean_c
            + recipe.self_heating_sd_c * random.normal(Channel.SELF_HEATING),
            0.5,
            20.0,
        ),
        climate=pick(random.uniform(Channel.CLIMATE), recipe.climate_mix),
    )


def draw_ceiling(
    random: KeyedRandom, channel: Channel, *, first: Counter, recipe: FleetRecipe
) -> Floats:
    """Draw the state of charge at which charging stops, from two numbers of a channel."""
    stops_early = random.uniform(channel, first) < recipe.soc_ceiling_share
    ceiling = 0.80 + 0.10 * random.uniform(channel, first + 1)
    return np.where(stops_early, ceiling, 1.0)


def depth_of(full_cycles: Floats, ceiling: Floats) -> Floats:
    """Return the depth of discharge of a day's charges, fraction.

    A device charges once a day, or as often as it must so that no charge is deeper than 90 % of
    what its ceiling leaves.
    """
    charges = full_cycles / (_DEEPEST * ceiling)
    np.ceil(charges, out=charges)
    return np.divide(full_cycles, charges, out=charges)


def state_of_charge(users: Users, depth: Floats, *, ceiling: Floats) -> Floats:
    """Return the state of charge in the day's four quarters.

    Args:
        users: of the block.
        depth: of discharge, shape (..., n_devices).
        ceiling: at which charging stops, the same shape or (n_devices,).

    Returns:
        float64, shape (..., 4, n_devices).
    """
    charge = depth[..., None, :] * users.discharged
    return np.subtract(ceiling[..., None, :], charge, out=charge)


def cell_temperature(
    users: Users, *, outdoor_c: Floats, indoor_c: Floats, full_cycles: Floats
) -> Floats:
    """Return the mean cell temperature in the day's four quarters, degrees Celsius.

    Args:
        users: of the block.
        outdoor_c: shape (..., 4, n_climates).
        indoor_c: shape (n_climates,).
        full_cycles: of the day, shape (..., n_devices).

    Returns:
        float64, shape (..., 4, n_devices).
    """
    outdoor = outdoor_c.take(users.climate, axis=-1)
    temperature = indoor_c.take(users.climate) - outdoor
    temperature *= users.indoor_share
    temperature += outdoor
    warmth = users.load(full_cycles)
    warmth *= users.self_heating_c
    temperature += warmth
    return np.clip(temperature, COLDEST_C, HOTTEST_C, out=temperature)
