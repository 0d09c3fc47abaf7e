"""Which hours a device can take part in a round: on its charger, reachable and not in use.

A pure function of seed, device and hour: nothing has to be lived through, and any device and any
week can be asked for alone. Charges end in the quarter of the day in which the device's telemetry
says that they do, on the days on which it says so, and bursts of outage are those that leave holes
in its readings. How long a device stays on its charger, and how often its link fails, is chosen.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .counter_random import Channel, KeyedRandom
from .manufacturing import draw_hardware
from .recipe import FleetRecipe
from .recording import LONGEST_OUTAGE_DAYS, outage_ends
from .sensing import SKIPPED_CHARGE_SHARE
from .users import draw_users

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .manufacturing import Hardware
    from .users import Users

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

HOURS_A_DAY = 24
_HOURS_A_QUARTER = 6
_SATURDAY = 5
_CHARGE_TAIL_H = 0.4
_MEDIAN_STAY_H = 4.0
_STAY_SIGMA = 0.6
_LONGEST_STAY_H = 12.0
_DAY_TO_DAY_H = 0.7
_LINK_LOST_SHARE = 0.04
_DEFAULT_RECIPE = FleetRecipe()


class Availability(NamedTuple):
    """What devices are ready for, hour by hour; bool, shape (n_hours, n_devices).

    Attributes:
        charging: on the charger for the whole hour.
        reachable: there, with a link, and in no outage.
        idle: not in use.
    """

    charging: Flags
    reachable: Flags
    idle: Flags

    @property
    def can_train(self) -> Flags:
        """Whether the device can take part in a round in that hour."""
        return self.charging & self.reachable & self.idle


def availability(
    device_indices: NDArray[np.int64],
    *,
    first_hour: int,
    num_hours: int,
    seed: int,
    recipe: FleetRecipe = _DEFAULT_RECIPE,
) -> Availability:
    """Return what devices are ready for.

    Users who change are taken as they were drawn, and a device that has failed or was retired is
    not known here: whoever lets the fleet live knows both.

    Args:
        device_indices: int64, shape (n_devices,), their numbers in the fleet.
        first_hour: hours from the start of the study, 0 = the first midnight UTC.
        num_hours: at least 1.
        seed: of the fleet.
        recipe: of the fleet.

    Raises:
        ValueError: when a number is out of its range.
    """
    if first_hour < 0 or num_hours < 1:
        raise ValueError(
            f"first_hour must be at least 0 and num_hours at least 1, got {first_hour}, {num_hours}"
        )
    random = KeyedRandom(seed=seed, device_indices=np.asarray(device_indices, np.int64))
    hardware = draw_hardware(random, recipe=recipe)
    users = draw_users(random, recipe=recipe)
    hours = first_hour + np.arange(num_hours, dtype=np.int64)
    first_day, last_day = first_hour // HOURS_A_DAY, int(hours[-1]) // HOURS_A_DAY
    # A stay on the charger may begin on the day before, and end on the day after.
    days = np.arange(first_day - 1, last_day + 2, dtype=np.int64)
    cycles = users.cycles_of_days(
        random,
        days=days,
        weekend=(recipe.start_at.astimezone(UTC).weekday() + days) % 7 >= _SATURDAY,
        shape=recipe.efc_shape,
    )
    return Availability(
        charging=_charging(random, users, hardware, days=days, cycles=cycles, hours=hours),
        reachable=_reachable(random, hardware, hours=hours, recipe=recipe),
        idle=_idle(random, users, hardware, days=days, cycles=cycles, hours=hours),
    )


def _charging(
    random: KeyedRandom,
    users: Users,
    hardware: Hardware,
    *,
    days: NDArray[np.int64],
    cycles: Floats,
    hours: NDArray[np.int64],
) -> Flags:
    day = days[:, None]
    usual_end = _HOURS_A_QUARTER * (users.charge_slot + random.uniform(Channel.PLUG, 0))
    ends = HOURS_A_DAY * day + usual_end
    ends += _DAY_TO_DAY_H * random.normal(Channel.PLUG, 2 * day + 4)
    begins = ends - cycles / hardware.of_model("charge_c_rate") - _CHARGE_TAIL_H
    stay = _MEDIAN_STAY_H * np.exp(_STAY_SIGMA * random.normal(Channel.PLUG, 2 * day + 5))
    leaves = ends + np.minimum(stay, _LONGEST_STAY_H)
    skipped = random.uniform(Channel.CHARGE_SKIPPED, day) < SKIPPED_CHARGE_SHARE
    leaves[skipped | (day < 0)] = -np.inf
    of_day = hours // HOURS_A_DAY - days[0]
    hour = hours[:, None]
    charging = np.zeros((len(hours), len(usual_end)), bool)
    for shift in (-1, 0, 1):
        row = of_day + shift
        charging |= (begins[row] <= hour) & (hour + 1 <= leaves[row])
    return charging


def _reachable(
    random: KeyedRandom,
    hardware: Hardware,
    *,
    hours: NDArray[np.int64],
    recipe: FleetRecipe,
) -> Flags:
    hour, of_day = hours[:, None], hours // HOURS_A_DAY
    first = max(int(of_day[0]) - int(LONGEST_OUTAGE_DAYS), 0)
    days = np.arange(first, int(of_day[-1]) + 1, dtype=np.int64)[:, None]
    none = np.full(random.num_devices, -1.0)
    outage_until = outage_ends(random, days, before=none, recipe=recipe)[of_day - first]
    reachable = random.uniform(Channel.LINK, hour) >= _LINK_LOST_SHARE
    reachable &= hour >= HOURS_A_DAY * outage_until
    reachable &= hour >= HOURS_A_DAY * hardware.enters_day
    return reachable


def _idle(
    random: KeyedRandom,
    users: Users,
    hardware: Hardware,
    *,
    days: NDArray[np.int64],
    cycles: Floats,
    hours: NDArray[np.int64],
) -> Flags:
    quarter = hours % HOURS_A_DAY // _HOURS_A_QUARTER
    hours_in_use = cycles[hours // HOURS_A_DAY - days[0]] * users.activity[quarter]
    hours_in_use *= hardware.of_model("hours_a_cycle") / _HOURS_A_QUARTER
    idle: Flags = random.uniform(Channel.IN_USE, hours[:, None]) >= hours_in_use
    return idle
