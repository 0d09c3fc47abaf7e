"""Users who change: from some day on a device is used more or less, or charged otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .counter_random import Channel, KeyedRandom
from .failures import DAYS_A_YEAR
from .users import LEAST_EFC, MOST_EFC, Users, draw_ceiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

_STRIDE = 4
"""Numbers of a channel that belong to one change."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What users do on some days; float64, shape (n_days, n_devices).

    Attributes:
        full_cycles_a_day: mean equivalent full cycles a day.
        soc_ceiling: state of charge at which charging stops.
        changed_on: day of the last change, -1 before the first.
    """

    full_cycles_a_day: Floats
    soc_ceiling: Floats
    changed_on: NDArray[np.int64]


def habits_of(
    random: KeyedRandom,
    users: Users,
    *,
    days: NDArray[np.int64],
    changed_on: NDArray[np.int64],
    recipe: FleetRecipe,
) -> Habits:
    """Return the users' habits on consecutive days.

    Args:
        random: of the devices.
        users: as they were drawn.
        days: from the start, shape (n_days,).
        changed_on: day of each user's last change before them, -1 = none, shape (n_devices,).
        recipe: how often and how far users change.
    """
    day = days[:, None]
    changes = random.uniform(Channel.USER_CHANGE, day) < recipe.user_changes_a_year / DAYS_A_YEAR
    last = np.where(changes, day, -1)
    last[0] = np.maximum(last[0], changed_on)
    np.maximum.accumulate(last, axis=0, out=last)
    changed = last >= 0
    change = _STRIDE * np.maximum(last, 0)
    factor = np.exp(recipe.user_change_sigma * random.normal(Channel.USER_LEVEL, change))
    usual = np.clip(users.full_cycles_a_day * factor, LEAST_EFC, MOST_EFC)
    anew = random.uniform(Channel.USER_HABIT, change) < recipe.habit_change_share
    ceiling = draw_ceiling(random, Channel.USER_HABIT, first=change + 1, recipe=recipe)
    return Habits(
        full_cycles_a_day=np.where(changed, usual, users.full_cycles_a_day),
        soc_ceiling=np.where(changed & anew, ceiling, users.soc_ceiling),
        changed_on=last,
    )
