"""Whether a cohort may be invited, whoever chose it: the last look before it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from privacy import BudgetExceededError
from privacy.budget import MU_ROUNDING, Refusal

from .participation_counts import last_step_of_any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from .participation_counts import AnswerCost, LifeCounts, StepCost


def require_budget(found: LifeCounts, positions: Sequence[int], cost: StepCost) -> None:
    """Refuse a choice that a device has no budget for, whoever made it."""
    chosen = np.array(positions, np.intp)
    refused = chosen[~found.may_go_on(cost)[chosen]]
    if not len(refused):
        return
    first = refused[0]
    if found.answers_held_out[first]:
        raise BudgetExceededError(reason=Refusal.HELD_OUT, spent=0, requested=1, limit=0)
    most = min(int(found.max_participations[first]), cost.max_participations)
    if found.participations[first] >= most:
        raise BudgetExceededError(
            reason=Refusal.RETIRED, spent=int(found.participations[first]), requested=1, limit=most
        )
    limit = min(float(found.mu_squared_limit[first]), cost.mu_squared_limit)
    raise _spent(found, first, cost, spent=float(found.mu_squared[first]), limit=limit)


def require_budget_for_answer(found: LifeCounts, cost: AnswerCost) -> None:
    """Refuse to ask a device for a count that it has no budget for, or not in that role.

    Args:
        found: what each device that is asked has spent.
        cost: of the answer.

    Raises:
        BudgetExceededError: with the rule that refuses the first of them.
    """
    refused = np.flatnonzero(~found.may_answer(cost))
    if not len(refused):
        return
    first = refused[0]
    if cost.held_out and (found.answers_in_training[first] or found.participations[first]):
        raise BudgetExceededError(reason=Refusal.NOT_HELD_OUT, spent=0, requested=1, limit=0)
    if not cost.held_out and found.answers_held_out[first]:
        raise BudgetExceededError(reason=Refusal.HELD_OUT, spent=0, requested=1, limit=0)
    limit = min(float(found.counts_limit[first]), cost.mu_squared_limit)
    raise _spent(found, first, cost, spent=float(found.counts_mu_squared[first]), limit=limit)


def _spent(
    found: LifeCounts, first: np.intp, cost: StepCost | AnswerCost, *, spent: float, limit: float
) -> BudgetExceededError:
    """The error of a share that is spent, or, where there is room in it, of the whole."""
    if spent + cost.mu_squared <= limit * (1 + MU_ROUNDING):
        spent = float(found.spent[first])
        limit = min(float(found.mu_squared_in_all[first]), cost.mu_squared_in_all)
    return BudgetExceededError(
        reason=Refusal.BUDGET_SPENT, spent=spent, requested=cost.mu_squared, limit=limit
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
