"""What a privacy home knows of a stream beside its ledger, and the ε that is told from both.

A device's own ledger counts its whole life, in other homes, too. So where a device says that it has
spent more than the ledger gives, that is what is told. A word counts up to what the policies here
let that device spend, and no further: an honest device that has spent more has refused all of them,
and a dishonest one shall not name any figure it likes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.accountant import gaussian_epsilon, release_epsilon
from privacy.budget import MU_ROUNDING

from .enrolment_record import knows_enrolment
from .owner_cap import knows_owners
from .participation_counts import most_said_mu_squared

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from privacy import Event

    from .worst_case import WorstCase


@dataclass(frozen=True, slots=True)
class HomeWords:
    """What a home knows beside its ledger.

    Attributes:
        said_mu_squared: greatest Σ 1/σ² that any one device says it has debited, as far as the
            policies here let it.
        knows_owners: whether the owners of the stream's devices are known, as far as it is asked of
            one stream; else of every stream.
        knows_enrolment: whether a record says who was enrolled in the stream, or in every stream;
            else it was whoever could be reached when the stream began.
    """

    said_mu_squared: float = 0.0
    knows_owners: bool = True
    knows_enrolment: bool = True

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """Return ε_release as it is told: the ledger's, or what devices say where that is more.

        Args:
            events: of the ledger that ε_release is made of, oldest first.
            delta: δ.
        """
        of_ledger = release_epsilon(events, delta=delta)
        said = gaussian_epsilon(mu=math.sqrt(self.said_mu_squared), delta=delta)
        # Within rounding both say the same, and the ledger's figure is the one to be checked.
        return said if said > of_ledger * (1 + MU_ROUNDING) else of_ledger

    def is_more_than(self, events: Sequence[Event], *, delta: float) -> bool:
        """Whether devices say that they have spent more than the ledger gives."""
        return self.epsilon(events, delta=delta) > release_epsilon(events, delta=delta)


def words_in(
    connection: sqlite3.Connection, *, uncounted: WorstCase, stream: str = ""
) -> HomeWords:
    """Return what the counts know beside the ledger.

    Args:
        connection: to the counts.
        uncounted: what every device is charged, and held to, on top of its count.
        stream: of which owners and enrolment are asked; unnamed: of each.
    """
    return HomeWords(
        said_mu_squared=min(most_said_mu_squared(connection), uncounted.mu_squared_limit_in_all),
        knows_owners=knows_owners(connection, stream),
        knows_enrolment=knows_enrolment(connection, stream),
    )
