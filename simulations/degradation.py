"""Wear of lithium-ion packs, vectorised over devices, one step a day.

Before the knee a pack wears by the law of its chemistry (`simulations.chemistries`), times factors
of its own. Past the knee the cell loses more, and ever faster (lithium plating and pore clogging;
Attia et al. 2022, J. Electrochem. Soc. 169:060517, list the ways). Below the state of health
`knee_soh` the additional loss of a day is EFC 2e-4 s (1 + 25 depth), where depth = knee_soh - q;
s and knee_soh come from a fit to cycled cells (`python -m simulations.knee_fit`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chemistries import Law, Rates

    Floats = NDArray[np.float64]

KNEE_LOSS_A_CYCLE = 2e-4
KNEE_STEEPENING = 25.0


@dataclass(frozen=True, slots=True)
class CellTraits:
    """How one pack differs from the cell of the law; float64, shape (n_devices,).

    Attributes:
        capacity_factor: capacity when new against the design.
        fade_factor: factor on both rates of capacity loss.
        growth_factor: factor on both rates of resistance growth.
        knee_soh: state of health at the knee, fraction; 0 switches the knee off.
        knee_rate: s, factor on the loss past the knee.
        resistance_factor: resistance when new against the model's.
    """

    capacity_factor: Floats
    fade_factor: Floats
    growth_factor: Floats
    knee_soh: Floats
    knee_rate: Floats
    resistance_factor: Floats


@dataclass(slots=True)
class Wear:
    """State of wear of one pack a device; float64, shape (n_devices,), changed in place.

    Attributes:
        calendar_fade_power: loss in storage to the power 1 / p of the law.
        cycle_fade_power: loss in use to the power 1 / p of the law.
        calendar_growth_power: growth of resistance in storage to the power 1 / p of the law.
        cycle_growth: growth of resistance by use, or by loss.
        knee_loss: loss past the knee.
        full_cycles: equivalent full cycles since new.
    """

    calendar_fade_power: Floats
    cycle_fade_power: Floats
    calendar_growth_power: Floats
    cycle_growth: Floats
    knee_loss: Floats
    full_cycles: Floats

    @staticmethod
    def new(num_devices: int) -> Wear:
        """Return the state of packs that were never used."""
        return Wear(*(np.zeros(num_devices) for _ in fields(Wear)))

    def renew(self, positions: NDArray[np.intp]) -> None:
        """Put new packs into the devices at `positions`."""
        for field in fields(Wear):
            getattr(self, field.name)[positions] = 0.0


def advance_one_day(
    wear: Wear,
    *,
    law: Law,
    rates: Rates,
    traits: CellTraits,
    full_cycles: Floats,
    capacity: Floats,
) -> None:
    """Age the packs by one day, in place.

    Args:
        wear: the state, changed.
        law: of the packs' chemistry.
        rates: of the law, under the day's stress.
        traits: of the packs.
        full_cycles: equivalent full cycles of the day, shape (n_devices,).
        capacity: q before the day, `law.capacity(wear)`.
    """
    depth = traits.knee_soh - capacity
    past = np.flatnonzero(depth > 0.0)
    if len(past):
        steepness = 1.0 + KNEE_STEEPENING * depth[past]
        loss = full_cycles[past] * KNEE_LOSS_A_CYCLE * traits.knee_rate[past] * steepness
        wear.knee_loss[past] += loss
    law.wear_on(wear, rates=rates, traits=traits, full_cycles=full_cycles, capacity=capacity)
    wear.full_cycles += full_cycles


def aged_by(
    *,
    days: Floats,
    law: Law,
    fade_power_a_day: Floats,
    growth_power_a_day: Floats,
    mean_rates: Rates,
    traits: CellTraits,
    full_cycles_a_day: Floats,
    throughput_a_day: Floats,
) -> Wear:
    """Return the wear after a constant average stress, before the knee.

    Args:
        days: age, shape (n_devices,).
        law: of the packs' chemistry.
        fade_power_a_day: mean over the year of what a day adds to the power of the loss in storage.
        growth_power_a_day: the same of resistance.
        mean_rates: rates of which the cycle parts are used.
        traits: of the packs.
        full_cycles_a_day: mean equivalent full cycles a day.
        throughput_a_day: mean throughput of a day, as the law counts it.
    """
    wear = Wear(
        calendar_fade_power=fade_power_a_day * days,
        cycle_fade_power=law.cycle_power(mean_rates.cycle_fade * traits.fade_factor)
        * throughput_a_day
        * days,
        calendar_growth_power=growth_power_a_day * days,
        cycle_growth=mean_rates.cycle_growth * traits.growth_factor * throughput_a_day * days,
        knee_loss=np.zeros_like(days),
        full_cycles=full_cycles_a_day * days,
    )
    wear.cycle_growth += law.growth_at(wear, traits)
    return wear
