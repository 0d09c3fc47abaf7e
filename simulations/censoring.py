"""Why an observation ends without a failure, and what happens after one.

Three ways end the first pack's observation before its failure: the device is retired, its owner
replaces the pack while it works (more often once it has become weak, so this censoring is not
independent of the failure), or the study ends. A replacement that follows a notice is a competing
event of its own; it comes in from outside, as times (`notice_replacements_s`).

After a failure a device is either silent for ever, or it reports on: with a new pack after some
days, or with the failed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .counter_random import Channel, KeyedRandom
from .failures import DAYS_A_YEAR, waiting_days
from .manufacturing import PACK_STRIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import FleetRecipe

    Floats = NDArray[np.float64]

FAILED = "failed"
RETIRED = "retired"
REPLACED_BY_OWNER = "replaced_by_owner"
REPLACED_AFTER_NOTICE = "replaced_after_notice"
STUDY_ENDED = "study_ended"
ENDINGS = (FAILED, RETIRED, REPLACED_BY_OWNER, REPLACED_AFTER_NOTICE, STUDY_ENDED)

_WORN_MARGIN = 0.30
_DELAY_SIGMA = 0.7


@dataclass(frozen=True, slots=True)
class OwnerTraits:
    """What the owner of a device would do about one pack; float64, shape (n_devices,).

    Attributes:
        patience: the owner replaces a working pack when the accumulated hazard passes this.
        replacement_delay_days: from a failure to the new pack; infinite where there is none.
        silence: uniform; the device is silent for ever after a failure whose silent share is above.
    """

    patience: Floats
    replacement_delay_days: Floats
    silence: Floats


def draw_owners(
    random: KeyedRandom, *, pack_number: NDArray[np.int64], recipe: FleetRecipe
) -> OwnerTraits:
    """Draw what each owner would do about the pack."""
    first = pack_number * PACK_STRIDE
    delay = recipe.replacement_delay_days * np.exp(
        _DELAY_SIGMA * random.normal(Channel.OWNER, first + 2)
    )
    replaces = random.uniform(Channel.OWNER, first + 3) < recipe.replacement_share
    return OwnerTraits(
        patience=random.exponential(Channel.OWNER, first + 1),
        replacement_delay_days=np.where(replaces, np.maximum(delay, 1.0), np.inf),
        silence=random.uniform(Channel.OWNER, first + 4),
    )


def retirement_days(random: KeyedRandom, *, recipe: FleetRecipe) -> Floats:
    """Return the days from the start to each device's retirement, whatever its pack."""
    rate = -np.log1p(-recipe.retired_a_year)
    return random.exponential(Channel.OWNER, 0) * waiting_days(float(rate))


class OwnerHazards(NamedTuple):
    """The hazard of one day that an owner replaces a working pack: when sound, and when worn."""

    sound: float
    worn: float

    def of(self, margin: Floats) -> Floats:
        """Return the hazards of packs by the health left: 1 = new, 0 = end of life."""
        return np.where(margin < _WORN_MARGIN, self.worn, self.sound)


def owner_hazards(recipe: FleetRecipe) -> OwnerHazards:
    """Return the hazards of one day."""
    sound, more = recipe.owner_replaced_a_year, recipe.owner_replaced_worn_a_year
    return OwnerHazards(sound / DAYS_A_YEAR, (sound + more) / DAYS_A_YEAR)
