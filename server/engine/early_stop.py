"""When a run of rounds stops early: it has not become better for a while, on public data.

The rule sees figures on data that is nobody's: a simulated reference fleet. Judged on devices of
the fleet, the round at which a run stops would tell something of them that no ledger charges. What
was released stays released and charged; the stream ends there, and its key is destroyed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

REFERENCE_QUALITY: Final = "reference_average_precision"
"""Name of the figure on public data by which a run stops early; more is better."""


def looks_without_gain(qualities: Iterable[float | None]) -> int:
    """Return how many looks have passed since the best one.

    Args:
        qualities: of the model at the start and after rounds, oldest first; more is better. None
            where nobody looked; a value that is no number counts as a look without gain.
    """
    best, since = -float("inf"), 0
    for quality in qualities:
        if quality is None:
            continue
        if quality > best:
            best, since = quality, 0
        else:
            since += 1
    return since


def is_over(qualities: Iterable[float | None], *, patience: int) -> bool:
    """Tell whether a run stops now.

    Args:
        qualities: as `looks_without_gain` takes them.
        patience: looks without gain that end the run; 0 never ends it.
    """
    return patience > 0 and looks_without_gain(qualities) >= patience
