"""What every device is charged for releases of which nobody knows any more who took part.

And how far every device may go from there: a promise once made to any of them holds for all, for
nobody knows any more to whom it was made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from privacy import CorrelatedRelease, CountRelease, GaussianRelease
from privacy.accountant import mu_for, mu_squared_of_release

from .participation_counts import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from privacy import LedgerEntry

    from .participation_counts import LifeCounts

_COUNTED_KINDS: Final = frozenset({"stream", "comparison"})


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The worst case of one device, as if it were whoever was asked most, everywhere.

    Attributes:
        participations: Σ over streams of the most participations in each.
        mu_squared: Σ of what these cost.
        counts_mu_squared: Σ over channels of what the most answers in each cost.
        max_participations: least k of all policies.
        mu_squared_limit: least part of μ² for updates.
        counts_limit: least part of μ² for counts.
        mu_squared_limit_in_all: least μ² for everything.
    """

    participations: int = 0
    mu_squared: float = 0.0
    counts_mu_squared: float = 0.0
    max_participations: int = UNLIMITED
    mu_squared_limit: float = math.inf
    counts_limit: float = math.inf
    mu_squared_limit_in_all: float = math.inf

    @property
    def mu_squared_in_all(self) -> float:
        """Of updates and counts together."""
        return self.mu_squared + self.counts_mu_squared

    def charge(self, found: LifeCounts) -> None:
        """Add it to what devices have spent, and hold them to its limits.

        Args:
            found: of any devices; changed in place.
        """
        found.participations[:] += self.participations
        found.mu_squared[:] += self.mu_squared
        found.counts_mu_squared[:] += self.counts_mu_squared
        for limits, least in (
            (found.max_participations, self.max_participations),
            (found.mu_squared_limit, self.mu_squared_limit),
            (found.counts_limit, self.counts_limit),
            (found.mu_squared_in_all, self.mu_squared_limit_in_all),
        ):
            np.minimum(limits, least, out=limits)


def worst_case(entries: Sequence[LedgerEntry]) -> WorstCase:
    """Return the worst case of some releases, comparisons included: devices took part in them.

    An entry of before entries said their policy's limits allows nothing more: what was spent until
    then is all that is known to be allowed.

    Args:
        entries: of a ledger, oldest first.
    """
    updates: dict[str, tuple[int, float]] = {}
    answers: dict[tuple[str, str], float] = {}
    releases: list[CorrelatedRelease | CountRelease] = []
    for entry in entries:
        if entry.kind not in _COUNTED_KINDS:
            continue
        event = entry.event
        if isinstance(event, CorrelatedRelease | CountRelease):
            releases.append(event)
        if isinstance(event, CountRelease):
            key = (event.policy_digest, event.channel)
            cost = event.most_answers * mu_squared_of_release(event)
            answers[key] = max(answers.get(key, 0.0), cost)
        elif isinstance(event, GaussianRelease | CorrelatedRelease):
            taken = event.most_participations
            cost = taken * mu_squared_of_release(event) if taken else 0.0
            updates[event.stream] = max(updates.get(event.stream, (0, 0.0)), (taken, cost))
    participations = sum(taken for taken, _ in updates.values())
    mu_squared = sum(cost for _, cost in updates.values())
    counts_mu_squared = sum(answers.values())
    limits = [
        _limits(event, participations, mu_squared, counts_mu_squared)
        for event in {_policy_of(one): one for one in releases}.values()
    ]
    most, for_updates, for_counts, in_all = zip(*limits, strict=True) if limits else ((),) * 4
    return WorstCase(
        participations=participations,
        mu_squared=mu_squared,
        counts_mu_squared=counts_mu_squared,
        max_participations=min(most, default=UNLIMITED),
        mu_squared_limit=min(for_updates, default=math.inf),
        counts_limit=min(for_counts, default=math.inf),
        mu_squared_limit_in_all=min(in_all, default=math.inf),
    )


def _policy_of(event: CorrelatedRelease | CountRelease) -> tuple[object, ...]:
    """What limits follow from: entries that share it need one look."""
    return (
        type(event),
        event.policy_digest,
        event.epsilon,
        event.delta,
        event.update_share,
        event.max_participations,
        isinstance(event, CountRelease) and event.held_out,
    )


def _limits(
    event: CorrelatedRelease | CountRelease,
    participations: int,
    mu_squared: float,
    counts_mu_squared: float,
) -> tuple[int, float, float, float]:
    """Least k, and parts of μ² for updates, for counts and for all, as an entry's policy has them.

    Each binds who was charged under it, as the counts do: an invitation binds updates, an answer
    binds counts.
    """
    stated = (event.epsilon, event.delta, event.update_share, event.max_participations)
    epsilon, delta, share, most = stated
    if epsilon is None or delta is None or share is None or most is None:
        return participations, mu_squared, counts_mu_squared, mu_squared + counts_mu_squared
    whole = mu_for(epsilon=epsilon, delta=delta) ** 2
    if isinstance(event, CorrelatedRelease):
        return most, share * whole, math.inf, whole
    return UNLIMITED, math.inf, whole if event.held_out else (1 - share) * whole, whole
