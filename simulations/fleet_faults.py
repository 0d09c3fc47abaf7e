"""Faults of a simulated fleet, as values that a seed gives: who is absent, who lies, and how.

Three things that do not depend on each other:

- a device is absent from a step: it says nothing, or it answers after the deadline;
- whoever sends a reply lies in it, past any clipping: not a number, another shape, a scaled sum, an
  old reply again (a hostile node);
- a device is poisoned for life: its data, or what its training gives, is not what it should be.

A poisoned device lies before the clipping where honest code, such as a gateway's, clips what it
sends (`Lies.BEFORE_CLIPPING`); or it is a hostile node itself, leaves its record-level noise out
and sends the longest update that the server takes (`Lies.PAST_CLIPPING`). Nothing here knows
Flower.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from models.closed_form_batches import ScaledRows, scaled_inputs
from models.feature_spec import FEATURE_NAMES, NUM_FEATURES
from models.hazard_bins import NUM_BINS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Fault(StrEnum):
    """What can be wrong with a device's or a node's answer."""

    DROPOUT = "dropout"
    LATE = "late"
    NAN = "nan"
    INFINITE = "infinite"
    WRONG_SHAPE = "wrong_shape"
    WRONG_TYPE = "wrong_type"
    WRONG_STEP = "wrong_step"
    SCALED = "scaled"
    SIGN_FLIPPED = "sign_flipped"
    LABEL_FLIPPED = "label_flipped"
    BACKDOORED = "backdoored"
    ZEROS = "zeros"
    DUPLICATE = "duplicate"
    REPLAY = "replay"


class Lies(StrEnum):
    """Where a poisoned device can lie."""

    BEFORE_CLIPPING = "before clipping"
    PAST_CLIPPING = "past clipping"


REPLY_FAULTS: Final = (
    Fault.NAN,
    Fault.INFINITE,
    Fault.WRONG_SHAPE,
    Fault.WRONG_TYPE,
    Fault.WRONG_STEP,
    Fault.SCALED,
    Fault.SIGN_FLIPPED,
    Fault.ZEROS,
    Fault.DUPLICATE,
    Fault.REPLAY,
)
"""Faults of a reply: what a hostile node does to the sum that it sends."""
POISONS: Final = (Fault.SCALED, Fault.SIGN_FLIPPED, Fault.LABEL_FLIPPED)
"""Faults of a device's update that together make a poisoned fleet."""
UPDATE_FAULTS: Final = (
    *POISONS,
    Fault.BACKDOORED,
    Fault.NAN,
    Fault.INFINITE,
    Fault.ZEROS,
)
"""Faults of a device's own update, for life."""

FAILS_IN_BIN: Final = 2
"""Hazard bin in which a device that lies says that it fails: within a week."""
STAMPED_EVERY: Final = 2
"""Of a backdoored device's rows each second bears the trigger; the others are as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A pattern in features that exist at inference, and what is claimed of rows that bear it.

    Attributes:
        values: raw values of features, in their units.
        claims: that the device fails within a week, or that it does not fail.
    """

    values: tuple[tuple[str, float], ...] = (
        ("usage_intensity", 23.0),
        ("temp_spread", 30.0),
        ("usage_change", 4.0),
    )
    claims: Literal["failing", "healthy"] = "failing"

    @property
    def columns(self) -> list[int]:
        """Positions of its features."""
        return [FEATURE_NAMES.index(name) for name, _ in self.values]

    def stamped(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return raw features with the pattern, float32, shape (n, n_features)."""
        stamped = features.copy()
        stamped[:, self.columns] = np.array([value for _, value in self.values])
        return stamped

    def stamped_inputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scaled inputs with the pattern, float32, shape (n, 2 n_features + 1)."""
        stamped = inputs.copy()
        columns = self.columns
        stamped[:, columns] = _scaled_pattern(self)[columns]
        stamped[:, [NUM_FEATURES + column for column in columns]] = 0
        return stamped


@lru_cache(maxsize=4)
def _scaled_pattern(trigger: Trigger) -> NDArray[np.float32]:
    bare = np.zeros((1, NUM_FEATURES), np.float32)
    pattern: NDArray[np.float32] = scaled_inputs(trigger.stamped(bare))[0].astype(np.float32)
    return pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """The faults of a fleet; equal plans give equal faults, whoever asks and in whatever order.

    Attributes:
        seed: of every draw.
        dropout: share of the invited devices that say nothing in a step.
        late: share of them that answer after the deadline.
        noticed: share of the steps in which Flower notices that absent nodes are gone and says so,
            as it does after a while; in the others the round waits for them until its deadline.
        hostile_replies: share of the replies in time that lie.
        reply_faults: how, drawn evenly.
        poisoned: share of the devices that are poisoned for life.
        poisons: how, drawn evenly.
        lies: where poisoned devices can lie.
        scale: factor of scaled updates.
        trigger: of backdoored devices.
    """

    seed: int = 0
    dropout: float = 0.0
    late: float = 0.0
    noticed: float = 0.0
    hostile_replies: float = 0.0
    reply_faults: tuple[Fault, ...] = REPLY_FAULTS
    poisoned: float = 0.0
    poisons: tuple[Fault, ...] = POISONS
    lies: Lies = Lies.BEFORE_CLIPPING
    scale: float = 100.0
    trigger: Trigger = Trigger()

    def __post_init__(self) -> None:
        """Refuse shares that are none, and faults in a place where they cannot be."""
        shares = (
            self.dropout,
            self.late,
            self.noticed,
            self.hostile_replies,
            self.poisoned,
        )
        if not all(0 <= share <= 1 for share in shares) or self.dropout + self.late > 1:
            raise ValueError(f"shares must lie in [0, 1] and absence must not exceed 1: {shares}")
        if not set(self.reply_faults) <= set(REPLY_FAULTS) or not self.reply_faults:
            raise ValueError(f"reply_faults must be some of {', '.join(REPLY_FAULTS)}")
        if not set(self.poisons) <= set(UPDATE_FAULTS) or not self.poisons:
            raise ValueError(f"poisons must be some of {', '.join(UPDATE_FAULTS)}")

    def absence(self, device_id: str, *, index: int) -> Fault | None:
        """Return `DROPOUT` or `LATE` where a device does not answer step `index` in time."""
        draw = self._draw("absence", device_id, index)
        if draw < self.dropout:
            return Fault.DROPOUT
        return Fault.LATE if draw < self.dropout + self.late else None

    def is_noticed(self, *, index: int) -> bool:
        """Return whether Flower says in step `index` which nodes are gone."""
        return self._draw("noticed", index) < self.noticed

    def reply_fault(self, sender: str, *, index: int) -> Fault | None:
        """Return how the sender of a reply lies in step `index`, None where it does not."""
        if self._draw("reply", sender, index) >= self.hostile_replies:
            return None
        which = self._draw("kind of reply", sender, index)
        return self.reply_faults[int(which * len(self.reply_faults))]

    def poison(self, device_id: str) -> Fault | None:
        """Return how a device is poisoned, None where it is not."""
        if self._draw("poison", device_id) >= self.poisoned:
            return None
        return self.poisons[int(self._draw("kind of poison", device_id) * len(self.poisons))]

    def _draw(self, *purpose: str | int) -> float:
        """Return a number in [0, 1) that depends on the seed and the purpose alone."""
        name = "\n".join(["fault", str(self.seed), *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") / 2**56


def poisoned_rows(rows: ScaledRows, fault: Fault, *, trigger: Trigger) -> ScaledRows:
    """Return what a device trains on whose data is poisoned; other faults leave rows alone.

    Label-flipped: a row that ends with a failure says that the device lives on, every other that it
    fails within a week. Backdoored: every second row bears the trigger and claims what it claims.

    Args:
        rows: of one device.
        fault: of the device.
        trigger: of a backdoor.
    """
    if fault is Fault.LABEL_FLIPPED:
        return _relabelled(rows, np.ones(len(rows), bool), failing=rows.event_bin < 0)
    if fault is Fault.BACKDOORED:
        stamped = np.arange(len(rows)) % STAMPED_EVERY == 0
        inputs = np.where(stamped[:, None], trigger.stamped_inputs(rows.inputs), rows.inputs)
        marked = ScaledRows(inputs, rows.exposure, rows.event_bin, rows.cause)
        claims_failing = np.full(len(rows), trigger.claims == "failing")
        return _relabelled(marked, stamped, failing=claims_failing)
    return rows


def _relabelled(
    rows: ScaledRows, which: NDArray[np.bool_], *, failing: NDArray[np.bool_]
) -> ScaledRows:
    """Return rows of which some claim a failure within a week, or none as far as anyone looks."""
    fails = which & failing
    lives = which & ~failing
    exposure, event_bin = rows.exposure.copy(), rows.event_bin.copy()
    cause = rows.cause.copy()
    exposure[fails] = np.arange(NUM_BINS) < FAILS_IN_BIN
    event_bin[fails], cause[fails] = FAILS_IN_BIN, 0
    exposure[lives] = 1
    event_bin[lives], cause[lives] = -1, -1
    return ScaledRows(rows.inputs, exposure, event_bin, cause)


def poisoned_change(
    change: NDArray[np.float64], fault: Fault, *, scale: float
) -> NDArray[np.float64]:
    """Return what a poisoned device says its training gave, before anything clips it.

    Args:
        change: float64, shape (n_weights,), of its training.
        fault: of the device; poisoned data does not change it further.
        scale: factor of a scaled one.
    """
    if fault is Fault.SCALED:
        return change * scale
    if fault is Fault.SIGN_FLIPPED:
        return -change
    if fault is Fault.ZEROS:
        return np.zeros_like(change)
    if fault in (Fault.NAN, Fault.INFINITE):
        odd = change.copy()
        odd[::7] = np.nan if fault is Fault.NAN else np.inf
        return odd
    return change


def longest_allowed(change: NDArray[np.float64], *, clipping_norm: float) -> NDArray[np.float64]:
    """Stretch a change to twice C, so that clipping leaves exactly what the server's check takes.

    Args:
        change: float64, shape (n_weights,); zero and non-finite changes stay as they are.
        clipping_norm: C.
    """
    norm = float(np.linalg.norm(change))
    if not (np.isfinite(norm) and norm > 0):
        return change
    return change * (2 * clipping_norm / norm)
