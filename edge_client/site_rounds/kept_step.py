"""The step that a device was offered last, as its store keeps it, sealed under the store's key.

One at a time: the next offer takes the place of the one before. What was answered is kept as it
was sealed to the gateway, which the device itself cannot open, until the step is released, over, or
another is offered; the privacy ledger alone remembers for life which steps were answered.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from models.network_shape import NUM_WEIGHTS
from models.wire.codec import encode, of_object, parse_object
from models.wire.contribution import ContributionForm, StepKind
from models.wire.counts import MOST_COUNTS
from models.wire.errors import WireError
from models.wire.site_rounds import CountOffer, RoundOffer, update_form

from .time_left import Moment, seconds_left

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.wire.contribution import Step

    from ..store.sqlite_file import StoreFile

STEP_FACT: Final = "site_round"
"""Named value of the store."""
_OFFERS: Final[dict[str, type[RoundOffer | CountOffer]]] = {
    offer.TYPE: offer for offer in (RoundOffer, CountOffer)
}
_LONGEST_OFFER: Final = 1 << 16


class StepState(StrEnum):
    """How far a step has come on this device."""

    OFFERED = "offered"
    ANSWERED = "answered"
    CLOSED = "closed"


class Ending(StrEnum):
    """Why a step is closed."""

    RELEASED = "released"
    OVER = "over"
    NO_CONSENT = "no_consent"
    BUDGET_OF_BYTES = "budget_of_bytes"
    NO_MATERIAL = "no_material"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """One step, as it stands.

    Attributes:
        offer: as the gateway signed it.
        gateway: that offered it.
        seal_key: of the gateway, raw X25519 key, hex.
        granted: when the server signed that this gateway may ask.
        received: when the offer came.
        state: how far it has come.
        ending: why it is closed, None where it is not.
        parts: of the answer, each as it travels; empty before there is one, and after its end.
    """

    offer: RoundOffer | CountOffer
    gateway: str
    seal_key: str
    granted: datetime
    received: Moment
    state: StepState = StepState.OFFERED
    ending: Ending | None = None
    parts: tuple[bytes, ...] = ()

    @property
    def step(self) -> Step:
        """What an answer names."""
        return self.offer.step(self.gateway)

    @property
    def most_parts(self) -> int:
        """In how many parts an answer travels at most, known before the material is there."""
        if isinstance(self.offer, CountOffer):
            return ContributionForm(kind=StepKind.COUNT, num_entries=MOST_COUNTS).num_parts
        return update_form(self.offer.task, num_weights=NUM_WEIGHTS).num_parts

    def left_s(self, now: Moment) -> float:
        """Return for how many seconds an answer still counts, 0 where it does not."""
        return seconds_left(self.received, float(self.offer.deadline_s), now=now)

    def answered(self, parts: tuple[bytes, ...]) -> KeptStep:
        """Return it with its answer."""
        return replace(self, state=StepState.ANSWERED, parts=parts)

    def closed(self, ending: Ending) -> KeptStep:
        """Return it at its end, without its answer."""
        return replace(self, state=StepState.CLOSED, ending=ending, parts=())

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        return {
            "offer": encode(self.offer).decode(),
            "gateway": self.gateway,
            "seal_key": self.seal_key,
            "granted": self.granted.isoformat(),
            "received": self.received.to_plain(),
            "state": self.state.value,
            "ending": None if self.ending is None else self.ending.value,
            "parts": [base64.b64encode(part).decode("ascii") for part in self.parts],
        }

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> KeptStep:
        """Read it.

        Raises:
            KeyError: a value is missing.
            TypeError, AttributeError: a value is of another kind.
            ValueError: a value cannot be.
            WireError: the offer is none that this version knows.
        """
        body = parse_object(values["offer"].encode(), limit=_LONGEST_OFFER)
        ending = values["ending"]
        return KeptStep(
            offer=of_object(body, _OFFERS[str(body.get("type"))]),
            gateway=str(values["gateway"]),
            seal_key=str(values["seal_key"]),
            granted=_aware(values["granted"]),
            received=Moment.from_plain(values["received"]),
            state=StepState(values["state"]),
            ending=None if ending is None else Ending(ending),
            parts=tuple(base64.b64decode(part, validate=True) for part in values["parts"]),
        )


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("granted must name its time zone")
    return moment


def kept_step(store: StoreFile) -> KeptStep | None:
    """Return the step that was offered last; None before the first, and where none can be read."""
    values = store.fact(STEP_FACT)
    if not isinstance(values, dict):
        return None
    try:
        return KeptStep.from_plain(values)
    except (KeyError, TypeError, ValueError, AttributeError, WireError):
        # A later version's, or none: nothing is answered for it.
        return None


def keep_step(store: StoreFile, step: KeptStep) -> None:
    """Keep a step in place of the one before.

    Raises:
        StoreError: the one before is still there.
    """
    store.keep_fact(STEP_FACT, step.to_plain())
