"""What the server's signed configuration leaves of the owner's consent, as the store keeps it.

It can only narrow: what happens is what the owner agrees to *and* the configuration leaves. The
owner's word itself stays as it is, and counts again once the configuration no longer stands
against it. Light: `fedcell-device predict` reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StoppedError

if TYPE_CHECKING:
    from ..store.mailbox import Mailbox, Purpose
    from ..store.sqlite_file import StoreFile

CONFIGURATION_FACT = "configuration"
PREDICTION = "prediction"
STOPPABLE = ("training", PREDICTION, "summaries", "notices")
LEAST_HOURS, MOST_HOURS = 1, 168


def in_force(store: StoreFile) -> dict[str, Any]:
    """Return the configuration in force: `sequence`, `received_at`, and what it says; {} for none.

    Values that this version does not know, or that are out of bounds, are left out.
    """
    kept = store.fact(CONFIGURATION_FACT)
    if not isinstance(kept, dict) or not isinstance(kept.get("sequence"), int):
        return {}
    found = {"sequence": kept["sequence"], "received_at": str(kept.get("received_at", ""))}
    found |= {name: False for name in STOPPABLE if kept.get(name) is False}
    hours = kept.get("predict_every_h")
    if isinstance(hours, int) and LEAST_HOURS <= hours <= MOST_HOURS:
        found["predict_every_h"] = hours
    if isinstance(kept.get("ring"), str):
        found["ring"] = kept["ring"]
    return found


def stopped(store: StoreFile) -> tuple[str, ...]:
    """Return what the configuration stops, of `STOPPABLE`."""
    said = in_force(store)
    return tuple(name for name in STOPPABLE if said.get(name) is False)


def allowed(store: Mailbox, purpose: Purpose) -> bool:
    """Tell whether something may be done for a purpose: the owner agrees, and it is not stopped."""
    return store.consents()[purpose].granted and purpose.value not in stopped(store)


def require_prediction(store: StoreFile) -> None:
    """Refuse to predict where predictions are stopped.

    Raises:
        StoppedError: they are.
    """
    if PREDICTION in stopped(store):
        raise StoppedError(PREDICTION)
