"""What every device is charged for releases of which nobody knows any more who took part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from privacy import CorrelatedRelease, CountRelease, GaussianRelease
from privacy.accountant import mu_squared_of_step
from privacy.discrete_accounting import mu_squared_of_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from privacy import LedgerEntry

_COUNTED_KINDS: Final = frozenset({"stream", "comparison"})


@dataclass(frozen=True, slots=True)
class LegacySpending:
    """The worst case of one device, as if it were whoever was asked most, everywhere.

    Attributes:
        participations: Σ over streams of the most participations in each.
        mu_squared: Σ of what these cost.
        counts_mu_squared: Σ over channels of what the most answers in each cost.
    """

    participations: int = 0
    mu_squared: float = 0.0
    counts_mu_squared: float = 0.0

    @property
    def mu_squared_in_all(self) -> float:
        """Of updates and counts together."""
        return self.mu_squared + self.counts_mu_squared


def legacy_spending(entries: Sequence[LedgerEntry]) -> LegacySpending:
    """Return the worst case of some releases, comparisons included: devices took part in them.

    Args:
        entries: of a ledger, oldest first.
    """
    updates: dict[str, tuple[int, float]] = {}
    answers: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.kind not in _COUNTED_KINDS:
            continue
        event = entry.event
        if isinstance(event, CountRelease):
            key = (event.policy_digest, event.channel)
            cost = event.most_answers * mu_squared_of_count(event.noise_multiplier)
            answers[key] = max(answers.get(key, 0.0), cost)
        elif isinstance(event, GaussianRelease | CorrelatedRelease):
            taken = event.most_participations
            cost = taken * _cost_of_step(event) if taken else 0.0
            updates[event.stream] = max(updates.get(event.stream, (0, 0.0)), (taken, cost))
    return LegacySpending(
        participations=sum(taken for taken, _ in updates.values()),
        mu_squared=sum(cost for _, cost in updates.values()),
        counts_mu_squared=sum(answers.values()),
    )


def _cost_of_step(event: GaussianRelease | CorrelatedRelease) -> float:
    if isinstance(event, GaussianRelease):
        return mu_squared_of_step(noise_multiplier=event.noise_multiplier)
    return mu_squared_of_step(
        noise_multiplier=event.noise_multiplier,
        clip_noise_multiplier=event.clip_noise_multiplier,
    )
