"""What a device's ledger comes to: each participation, its cost, what is left, and the receipts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from privacy.accountant import device_epsilon, gaussian_epsilon, mu_of_device
from privacy.device_history import count_history_of, history_of
from privacy.events import CountAnswer, Participation, RecordLevelSteps
from privacy.policy import USUAL_DELTA

from ..errors import LedgerError
from .ledger_file import is_enrolled, read_device_ledger
from .other_places import erasure_of, ledger_elsewhere
from .receipts import ReceiptState, checked_again, read_receipts, state_of_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from privacy.device_history import DeviceEvent
    from privacy.ledger import LedgerEntry

    from ..store.sqlite_file import StoreFile
    from .ledger_file import DeviceLedger

RECORD_DELTA: Final = 1e-5
"""δ at which ε_record is shown, the same as on model cards."""
SOUND: Final = "sound"
NEVER_ENROLLED: Final = "never_enrolled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAccount:
    """One participation.

    Attributes:
        at: when it was debited, ISO 8601, UTC.
        stream: of the step.
        index: of the step.
        mu_squared: what it cost.
        clip_noise_multiplier: σ_b of the bit that it sent, where the clipping norm adapts; its part
            of the cost is 1/σ_b².
        epsilon_after: ε of all that was debited up to it, at the account's δ.
        receipt: whether the server's receipt came, and matches.
        differs: what does not.
        policy_digest: SHA-256 of the signed policy.
    """

    at: str
    stream: str
    index: int
    mu_squared: float
    clip_noise_multiplier: float | None
    epsilon_after: float
    receipt: ReceiptState
    differs: tuple[str, ...]
    policy_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CountAccount:
    """One answer to a count.

    Attributes:
        at: when it was debited, ISO 8601, UTC.
        channel: which counts.
        index: which release of the channel.
        mu_squared: what it cost.
        epsilon_after: ε of all that was debited up to it, at the account's δ.
    """

    at: str
    channel: str
    index: int
    mu_squared: float
    epsilon_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAccount:
    """The second, weaker statement: of one training row against whoever sees an update.

    Attributes:
        epsilon: ε_record at `delta`; None where it cannot be derived here, or is unbounded.
        delta: δ_record.
        steps: steps of DP-SGD that were charged.
        unprotected: participations that were trained without it: then ε_record is unbounded.
        missing: the library that would derive it, where it is not installed.
    """

    epsilon: float | None = None
    delta: float = RECORD_DELTA
    steps: int = 0
    unprotected: int = 0
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerAccount:
    """What a device's ledger comes to.

    Attributes:
        state: `sound`, `never_enrolled`, or a value of `privacy.budget.Refusal`.
        problem: what is wrong, None where nothing is.
        is_erased: whether the device's data was erased: nothing is ever debited again.
        num_entries: of the ledger.
        head: hash of the last of them.
        num_participations: how often the device has taken part.
        steps: the participations, the first first.
        counts: the answers to counts, the first first.
        max_participations: the least k of all policies, None before the first.
        participations_left: how many more the policies so far allow.
        epsilon: ε of everything debited, at `delta`; None before the first entry.
        epsilon_limit: the least ε that all policies allow, at `delta`.
        delta: 1e-8, or the least δ of all policies where that is less.
        record: the statement on rows.
    """

    state: str
    problem: str | None = None
    is_erased: bool = False
    num_entries: int = 0
    head: str | None = None
    num_participations: int = 0
    steps: tuple[StepAccount, ...] = ()
    counts: tuple[CountAccount, ...] = ()
    max_participations: int | None = None
    participations_left: int | None = None
    epsilon: float | None = None
    epsilon_limit: float | None = None
    delta: float | None = None
    record: RecordAccount = field(default_factory=RecordAccount)

    @property
    def is_sound(self) -> bool:
        """Whether the ledger can be relied on, or there was never any."""
        return self.state in {SOUND, NEVER_ENROLLED}

    @property
    def num_differing(self) -> int:
        """Number of participations whose receipt differs from what was debited."""
        return sum(step.receipt is ReceiptState.DIFFERS for step in self.steps)


def account_of(
    path: Path,
    store: StoreFile | None = None,
    *,
    is_brief: bool = False,
    policy_keys: Mapping[str, bytes] | None = None,
) -> LedgerAccount:
    """Read and verify a device's ledger, and say what it comes to.

    Args:
        path: of the store.
        store: the open store, None where it cannot be opened: then one place less knows the head.
        is_brief: leaves out single steps, answers, receipts and the statement on rows.
        policy_keys: Ed25519 public keys (32 raw bytes), by key id, under which every receipt is
            checked once more; None takes what was found when it came.
    """
    is_erased = erasure_of(path) is not None
    try:
        if not is_enrolled(path, store) and (is_erased or ledger_elsewhere(path) is None):
            return LedgerAccount(state=NEVER_ENROLLED, is_erased=is_erased)
        ledger = read_device_ledger(path, store)
    except LedgerError as error:
        return LedgerAccount(state=error.refusal, problem=str(error), is_erased=is_erased)
    history = history_of(ledger.events, stream="")
    delta, limit = _promise(ledger.events)
    receipts = () if is_brief else read_receipts(path)
    if policy_keys is not None:
        receipts = checked_again(receipts, ledger=ledger, keys=policy_keys)
    return LedgerAccount(
        state=SOUND,
        is_erased=is_erased,
        num_entries=len(ledger.entries),
        head=ledger.head,
        num_participations=participations(ledger.events),
        steps=() if is_brief else _steps(ledger, receipts, delta),
        counts=() if is_brief else _counts(ledger, delta),
        max_participations=history.max_participations,
        participations_left=0 if is_erased else _left(ledger.events),
        epsilon=None if delta is None else device_epsilon(ledger.events, delta=delta),
        epsilon_limit=limit,
        delta=delta,
        record=RecordAccount() if is_brief else _record(ledger.events),
    )


def participations(events: Sequence[DeviceEvent]) -> int:
    """Return how often a device has taken part."""
    return sum(isinstance(event, Participation) for event in events)


def promised_delta(events: Sequence[DeviceEvent]) -> float:
    """Return δ at which a ledger is told: the usual one, or a policy's where that is less.

    A policy cannot make what is spent look less by a greater δ of its own.
    """
    said = [event for event in events if not isinstance(event, RecordLevelSteps)]
    return min([USUAL_DELTA, *(event.delta for event in said if event.delta is not None)])


def _promise(events: Sequence[DeviceEvent]) -> tuple[float | None, float | None]:
    """Return δ at which a ledger is told, and the ε at it that the least budget allows."""
    if not events:
        return None, None
    delta = promised_delta(events)
    most = count_history_of(events, channel="", policy_digest="").mu_squared_in_all
    limit = None if most is None else gaussian_epsilon(mu=math.sqrt(most), delta=delta)
    return delta, limit


def _left(events: Sequence[DeviceEvent]) -> int | None:
    taken = [event for event in events if isinstance(event, Participation)]
    history = history_of(events, stream="")
    if not taken or history.max_participations is None or history.mu_squared_limit is None:
        return None
    if history.is_held_out:
        return 0
    cost = mu_of_device(taken[-1:]) ** 2
    free = history.mu_squared_limit - history.mu_squared
    if history.mu_squared_in_all is not None:
        spent = history.mu_squared + history.counts_mu_squared
        free = min(free, history.mu_squared_in_all - spent)
    by_budget = math.floor(free / cost + 1e-6)
    return max(0, min(history.max_participations - len(taken), by_budget))


def _steps(
    ledger: DeviceLedger, receipts: Sequence[Mapping[str, Any]], delta: float | None
) -> tuple[StepAccount, ...]:
    found = []
    for number, (entry, event) in enumerate(_numbered(ledger), 1):
        if not isinstance(event, Participation):
            continue
        state, differs = state_of_step(receipts, stream=event.stream, index=event.index)
        found.append(
            StepAccount(
                at=entry.at.isoformat(),
                stream=event.stream,
                index=event.index,
                mu_squared=mu_of_device([event]) ** 2,
                clip_noise_multiplier=event.clip_noise_multiplier,
                epsilon_after=_epsilon(ledger.events[:number], delta),
                receipt=state,
                differs=differs,
                policy_digest=event.policy_digest,
            )
        )
    return tuple(found)


def _counts(ledger: DeviceLedger, delta: float | None) -> tuple[CountAccount, ...]:
    return tuple(
        CountAccount(
            at=entry.at.isoformat(),
            channel=event.channel,
            index=event.index,
            mu_squared=mu_of_device([event]) ** 2,
            epsilon_after=_epsilon(ledger.events[:number], delta),
        )
        for number, (entry, event) in enumerate(_numbered(ledger), 1)
        if isinstance(event, CountAnswer)
    )


def _numbered(ledger: DeviceLedger) -> list[tuple[LedgerEntry, DeviceEvent]]:
    return list(zip(ledger.entries, ledger.events, strict=True))


def _epsilon(events: Sequence[DeviceEvent], delta: float | None) -> float:
    return math.inf if delta is None else device_epsilon(events, delta=delta)


def _record(events: Sequence[DeviceEvent]) -> RecordAccount:
    steps = [event for event in events if isinstance(event, RecordLevelSteps)]
    unprotected = participations(events) - len(steps)
    num_steps = sum(event.steps for event in steps)
    if not steps or unprotected > 0:
        return RecordAccount(steps=num_steps, unprotected=max(0, unprotected))
    try:
        from privacy.record_accountant import RecordAccountant
    except ModuleNotFoundError as error:
        return RecordAccount(steps=num_steps, missing=error.name or "dp_accounting")
    epsilon = RecordAccountant.of_ledger(events).epsilon(delta=RECORD_DELTA)
    return RecordAccount(epsilon=epsilon, steps=num_steps)
