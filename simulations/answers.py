"""What owners say when they are asked whether the battery has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.labels import OwnerAnswers
from models.telemetry import SECONDS_PER_DAY

from .counter_random import Channel, KeyedRandom
from .manufacturing import PACK_STRIDE

if TYPE_CHECKING:
    from .recipe import FleetRecipe
    from .truth import FleetTruth

_LATEST_DAYS = 3.0


def owner_answers(truth: FleetTruth, *, seed: int, recipe: FleetRecipe) -> OwnerAnswers:
    """Return the answers of the owners of failed packs, as `models.labels` takes them.

    Only answers name a cause beside capacity and resistance. An owner puts the failure up to three
    days late. Owners of devices that fell silent are never asked: survivorship again.

    Args:
        truth: of the fleet.
        seed: the fleet's.
        recipe: shares of owners who answer, and who know the cause.
    """
    packs = truth.packs
    is_last = np.concatenate([packs.device[1:] != packs.device[:-1], [True]])
    heard = (packs.cause >= 0) & ~(is_last & truth.is_silent[packs.device])
    failed = packs.rows(heard)
    random = KeyedRandom(seed=seed, device_indices=truth.device_index[failed.device])
    first = failed.pack_number * PACK_STRIDE
    answers = random.uniform(Channel.ANSWER, first) < recipe.answer_share
    knows = random.uniform(Channel.ANSWER, first + 1) < recipe.cause_known_share
    late_s = _LATEST_DAYS * SECONDS_PER_DAY * random.uniform(Channel.ANSWER, first + 2)
    return OwnerAnswers(
        device=failed.device[answers].astype(np.intp),
        failed_at_s=(failed.ended_at_s + late_s)[answers].astype(np.int64),
        cause=np.where(knows, failed.cause, -1)[answers].astype(np.int8),
    )
