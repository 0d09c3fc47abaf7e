"""Whether a cohort may be invited, whoever chose it: the last look before it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from privacy import BudgetExceededError
from privacy.budget import Refusal

from .participation_counts import last_step_of_any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .participation_counts import LifeCounts, StepCost


def require_budget(found: LifeCounts, positions: Sequence[int], cost: StepCost) -> None:
    """Refuse a choice that a device has no budget for, whoever made it."""
    chosen = np.array(positions, np.intp)
    refused = chosen[~found.may_go_on(cost)[chosen]]
    if not len(refused):
        return
    first = refused[0]
    most = min(int(found.max_participations[first]), cost.max_participations)
    if found.participations[first] >= most:
        raise BudgetExceededError(
            reason=Refusal.RETIRED, spent=int(found.participations[first]), requested=1, limit=most
        )
    raise BudgetExceededError(
        reason=Refusal.BUDGET_SPENT,
        spent=float(max(found.mu_squared[first], found.said_mu_squared[first])),
        requested=cost.mu_squared,
        limit=min(float(found.mu_squared_limit[first]), cost.mu_squared_limit),
    )


def require_separation(
    connection: sqlite3.Connection,
    stream: str,
    index: int,
    cohort: Sequence[str],
    cost: StepCost,
) -> None:
    """Refuse a choice under which the sensitivity of the stream's noise would not hold."""
    last = last_step_of_any(connection, stream, cohort) if cost.min_separation > 1 else -1
    if last >= 0 and index - last < cost.min_separation:
        raise BudgetExceededError(
            reason=Refusal.TOO_SOON, spent=last, requested=index, limit=last + cost.min_separation
        )
