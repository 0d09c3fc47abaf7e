"""Everything that is drawn for a pack before it is put in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .censoring import OwnerTraits, draw_owners
from .failures import FailureTraits, draw_failure_traits
from .manufacturing import draw_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .counter_random import KeyedRandom
    from .degradation import CellTraits
    from .recipe import FleetRecipe


class DrawnPacks(NamedTuple):
    """One pack of each device; arrays of shape (n_devices,)."""

    cells: CellTraits
    failure_traits: FailureTraits
    owners: OwnerTraits
    is_bad_lot: NDArray[np.bool_]


def draw_packs(random: KeyedRandom, *, number: int, recipe: FleetRecipe) -> DrawnPacks:
    """Draw the pack of a number of each device, 0 for the one with which it enters."""
    pack_number = np.full(random.num_devices, number, np.int64)
    cells, bad_lot = draw_cells(random, pack_number=pack_number, recipe=recipe)
    failure_traits = draw_failure_traits(
        random,
        pack_number=pack_number,
        lot_factor=np.where(bad_lot, recipe.bad_lot_factor, 1.0),
        recipe=recipe,
    )
    owners = draw_owners(random, pack_number=pack_number, recipe=recipe)
    return DrawnPacks(cells, failure_traits, owners, bad_lot)
