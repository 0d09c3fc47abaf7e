"""Taking part in a step: decide, then debit, and only then may anything leave.

A step is charged in full before its update is handed on, whatever the update was, and whether it
arrives or not. So a crash between debit and upload costs a participation and never repeats one: the
step's index is used, and is refused for ever.

Whether a device sat out for too few rows is data, so it is charged as if it had trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.wire.rounds import DeviceReceipt
from privacy.accountant import mu_of_device
from privacy.budget import (
    OwnLimits,
    Refusal,
    StepOffer,
    count_limit,
    count_refusal,
    most_participations,
    step_refusal,
    update_limit,
)
from privacy.device_history import count_history_of, history_of
from privacy.events import CountAnswer, Participation, RecordLevelSteps
from privacy.policy import record_policy

from .ledger_file import append_entries, enrol, read_device_ledger
from .other_places import erasure_of
from .task_policy import refused, verified_policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from models.wire.rounds import RoundTask
    from privacy.events import Event
    from privacy.policy import CountChannel, StreamPolicy

    from ..store.sqlite_file import StoreFile
    from .ledger_file import DeviceLedger


RECEIPT_CHARACTERS = 192
"""Length of every line that a device tells of its ledger; the longest figures fit."""
REFUSAL_FACT = "training_refusal"
"""Named value of the store: the last step that policy or ledger refused, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a device takes part.

    Attributes:
        policy_keys: Ed25519 public keys (32 raw bytes) that may sign policies, by key id.
        own: the device's own limits, below any policy.
    """

    policy_keys: Mapping[str, bytes] = field(default_factory=dict)
    own: OwnLimits = field(default_factory=OwnLimits)


@dataclass(frozen=True, slots=True)
class Admission:
    """A step that the ledger allows, not debited yet.

    Attributes:
        policy: of the stream, its signature checked.
        offer: what the task says of the step.
    """

    policy: StreamPolicy
    offer: StepOffer


def admit(store: StoreFile, task: RoundTask, *, terms: Terms, now: datetime) -> Admission:
    """Decide whether a device may answer a task; nothing is charged.

    A store from before there were ledgers gets its ledger here, if its owner agreed to training
    when there was none.

    Args:
        store: the open store.
        task: as the server sent it.
        terms: the device's.
        now: aware time.

    Raises:
        ParticipationRefusedError: a rule refuses; `refusal` says which.
        LedgerError: the ledger cannot be relied on, likewise.
    """
    _require_not_erased(store.path)
    enrol(store, now=now)
    policy = verified_policy(task.policy, terms.policy_keys)
    offer = StepOffer(
        stream=task.stream,
        index=task.index,
        clipping_norm=task.clipping_norm,
        cohort_size=task.cohort_size,
        record=record_policy(task.recipe),
        has_norm_bit=task.has_norm_bit,
    )
    admission = Admission(policy, offer)
    _require_step(read_device_ledger(store.path, store), admission, own=terms.own)
    return admission


def debit(store: StoreFile, admission: Admission, *, terms: Terms, now: datetime) -> DeviceLedger:
    """Charge a step durably, after deciding once more while nobody else can write the ledger.

    Args:
        store: the open store.
        admission: from `admit`.
        terms: the device's.
        now: aware time.

    Returns:
        The ledger with the step; its update may leave now.

    Raises:
        ParticipationRefusedError: another process was faster, or the device was erased meanwhile.
        LedgerError: the ledger cannot be relied on, or not be written.
        StoreError: the store refuses.
    """

    def choose(ledger: DeviceLedger) -> list[Event]:
        _require_not_erased(store.path)
        _require_step(ledger, admission, own=terms.own)
        return _charged(admission)

    return append_entries(store, choose, now=now)


def debit_count(
    store: StoreFile, *, policy: str, channel: str, index: int, terms: Terms, now: datetime
) -> CountChannel:
    """Charge an answer to a count durably; the answer may leave once this returns.

    Args:
        store: the open store.
        policy: signed envelope of the policy that names the channel, as JSON text.
        channel: which counts.
        index: which release of the channel.
        terms: the device's.
        now: aware time.

    Returns:
        The channel, as the policy has it.

    Raises:
        ParticipationRefusedError: a rule refuses; what leaves instead is an answer of zeros.
        LedgerError: the ledger cannot be relied on, or not be written.
        StoreError: the store refuses.
    """
    _require_not_erased(store.path)
    enrol(store, now=now)
    verified = verified_policy(policy, terms.policy_keys)

    def choose(ledger: DeviceLedger) -> list[Event]:
        _require_not_erased(store.path)
        history = count_history_of(ledger.events, channel=channel, policy_digest=verified.digest)
        refusal = count_refusal(
            verified, channel=channel, index=index, history=history, own=terms.own
        )
        if refusal is not None:
            most = count_limit(verified.privacy, history=history, held_out=history.is_held_out)
            what = (
                f"release {index} of {channel!r} after {history.answers} answers, "
                f"mu squared {history.mu_squared:.6g} of {most:.6g}"
            )
            raise refused(refusal, what)
        return [_answer(verified, _channel(verified, channel), index)]

    append_entries(store, choose, now=now)
    return _channel(verified, channel)


def receipt_line(ledger: DeviceLedger, *, pseudonym: str) -> str:
    """Return what a device tells the server of its ledger, of one length whatever was decided.

    Spaces at its end, which JSON ignores, fill it up.

    Args:
        ledger: as it stands; an empty one where the device's cannot be read.
        pseudonym: of the device in the step.
    """
    taken = sum(isinstance(event, Participation) for event in ledger.events)
    said = DeviceReceipt(
        pseudonym=pseudonym,
        participations=taken,
        mu_squared=mu_of_device(ledger.events) ** 2,
        head=ledger.head,
    )
    return said.to_line().ljust(RECEIPT_CHARACTERS)


def _require_not_erased(path: Path) -> None:
    if (erasure := erasure_of(path)) is not None:
        what = f"the device's data was erased ({erasure}); it never trains again"
        raise refused(Refusal.ERASED, what)


def _require_step(ledger: DeviceLedger, admission: Admission, *, own: OwnLimits) -> None:
    policy, offer = admission.policy, admission.offer
    history = history_of(ledger.events, stream=offer.stream)
    refusal = step_refusal(policy, offer=offer, history=history, own=own)
    if refusal is None:
        return
    taken = history.participations + history.elsewhere
    most = most_participations(policy.privacy, history=history)
    limit = update_limit(policy.privacy, history=history)
    what = (
        f"step {offer.index} of {offer.stream!r} after {history.last_index}, "
        f"{taken} of {most} participations, mu squared {history.mu_squared:.6g} of {limit:.6g}, "
        f"cohort {offer.cohort_size} of at least {policy.privacy.min_cohort_size}"
    )
    raise refused(refusal, what)


def _charged(admission: Admission) -> list[Event]:
    policy, offer = admission.policy, admission.offer
    privacy, record = policy.privacy, policy.record
    step: list[Event] = [
        Participation(
            stream=offer.stream,
            index=offer.index,
            noise_multiplier=privacy.noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            cohort_size=policy.cohort_size,
            policy_digest=policy.digest,
            clip_noise_multiplier=privacy.clip_noise_multiplier,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            update_share=privacy.update_share,
            max_participations=privacy.max_participations,
        )
    ]
    if record.noise_multiplier > 0:
        step.append(
            RecordLevelSteps(
                noise_multiplier=record.noise_multiplier,
                max_grad_norm=record.max_grad_norm,
                sampling_rate=record.sampling_rate,
                steps=record.steps,
            )
        )
    return step


def _channel(policy: StreamPolicy, name: str) -> CountChannel:
    return next(channel for channel in policy.channels if channel.name == name)


def _answer(policy: StreamPolicy, channel: CountChannel, index: int) -> CountAnswer:
    return CountAnswer(
        channel=channel.name,
        index=index,
        noise_multiplier=channel.noise_multiplier,
        policy_digest=policy.digest,
        epsilon=policy.privacy.epsilon,
        delta=policy.privacy.delta,
        update_share=policy.privacy.update_share,
        held_out=channel.held_out,
    )
