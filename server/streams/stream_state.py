"""The steps of one stream, each durable, without Flower: what a crash may interrupt and not undo.

    invite      the cohort is counted in the privacy home, and the step marked, before a task leaves
    commit      the step's one sum is on disk, and its digest in the home, before noise is applied
    charge      the ledger entry is durable before anything leaves
    release     the sum meets the noise of its index, and no other sum ever does
    checkpoint  weights and optimiser after the step are durable before the next task leaves

A process that is killed anywhere goes on from where it was: a cohort that was invited without a
committed sum is asked again, and no other cohort is ever offered its index; a committed sum meets
the same noise, which the stream's key and the sum's digest give again bit for bit. Where the files
do not agree, for one of them was put back from a backup, the stream ends: a new one must be opened.
Where nothing shows it, as after a snapshot of the whole disk, each sum that is committed anew, an
equal one too, meets noise of its own, and so do all steps after it: the releases of both lives
together show no sum without noise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from models.durable_file import sync_folder
from privacy import BudgetExceededError, UpdateGrid
from privacy.budget import Refusal
from privacy.ledger import entries_of_stream

from ..engine.aggregation import mean_update
from ..privacy_home.folder_origin import anchor_of
from ..privacy_home.participation_counts import StreamRecord, cohort_digest
from ..privacy_home.privacy_errors import StreamRefusedError
from .release_witness import bear_witness
from .stream_agreement import policy_of, require_agreement, require_own_kind, require_own_stream
from .stream_files import (
    OPEN_A_NEW_STREAM,
    Aggregate,
    Checkpoint,
    StepMark,
    discard_aggregate,
    lock_stream,
    new_nonce,
    read_aggregate,
    read_checkpoint,
    write_aggregate,
    write_checkpoint,
    write_mark,
)
from .stream_key import KEY_FILE, StreamSecrets, new_secrets, read_secrets, write_secrets
from .stream_norm import StepNorm
from .stream_opening import note_first_opening, open_again, replay
from .stream_terms import bind_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from privacy import LedgerEntry, NoiseSource, ReleaseNoise

    from ..engine.server_optimizer import OptimizerState
    from ..privacy_home.participation_counts import LifeCounts, StepRecord
    from ..privacy_home.privacy_ledger import PrivacyHome
    from .stream_key import OperatorKey
    from .stream_terms import StreamKeys, StreamTerms


class StepPhase(StrEnum):
    """How far the step at hand has come."""

    INVITED = "invited"
    COMMITTED = "committed"
    CHARGED = "charged"


@dataclass(slots=True, kw_only=True)
class StreamState:
    """One stream at work; `begin_stream` and `resume_stream` make it.

    Attributes:
        folder: of the run.
        home: counts devices and holds the ledger.
        terms: constants of the stream.
        noise: of the next step that is released.
        size: number of entries of a sum: the weights, and that of bits where the norm adapts.
        norm: clipping norm of the step at hand.
        next_index: the step at hand, or the next to be invited.
        phase: of the step at hand; None between two steps.
        secrets: of the stream; None for a comparison.
        operator: seals what is kept.
        entry: the ledger entry of the last step charged here.
        was_noise_only: whether the last step that was committed is noise alone.
        draw_nonce: for each commit of a real stream.
    """

    folder: Path
    home: PrivacyHome
    terms: StreamTerms
    noise: ReleaseNoise
    size: int
    norm: StepNorm
    lock: int
    next_index: int = 0
    phase: StepPhase | None = None
    secrets: StreamSecrets | None = None
    operator: OperatorKey | None = None
    entry: LedgerEntry | None = None
    was_noise_only: bool = False
    draw_nonce: Callable[[], str] = new_nonce
    _most: int = field(init=False, default=0)
    _cohort_digest: str = field(init=False, default="")
    _aggregate: Aggregate | None = field(init=False, default=None)

    @property
    def most_participations(self) -> int:
        """Greatest number of steps of the stream to which any one device was invited."""
        return self._most

    def invite(
        self,
        *,
        device_ids: Sequence[str],
        choose: Callable[[LifeCounts], Sequence[int] | NDArray[np.intp]],
    ) -> tuple[str, ...]:
        """Choose the cohort of the next step and count it, durably, before any task leaves.

        Args:
            device_ids: whom the choice is among.
            choose: returns positions in `device_ids`, from what each of them has spent.

        Returns:
            The cohort.

        Raises:
            BudgetExceededError: a chosen device has no budget left or had its turn, or too few are.
            StreamRefusedError: the stream has no further step.
        """
        self._require(None)
        if self.next_index >= self.terms.num_rounds:
            what = f"stream {self.terms.stream!r} has {self.terms.num_rounds} steps and no more"
            raise StreamRefusedError(self.folder, what, OPEN_A_NEW_STREAM)
        cohort, self._most = self.home.invite(
            self.terms.stream,
            self.next_index,
            device_ids=device_ids,
            choose=lambda counts: self._whole_cohort(choose(counts)),
            cost=self.terms.cost,
        )
        self._cohort_digest = cohort_digest(cohort)
        self._mark_invited()
        return cohort

    def commit(self, total: NDArray[np.int64], *, noise_only: bool = False) -> None:
        """Fix the sum of the step at hand: no other will ever meet its noise.

        Args:
            total: int64, shape (size,), on the grid.
            noise_only: whether the round was aborted; the sum is then taken as zero.
        """
        self._require(StepPhase.INVITED)
        aggregate = Aggregate(
            stream=self.terms.stream,
            index=self.next_index,
            cohort_digest=self._cohort_digest,
            cohort_size=self.terms.cohort_size,
            noise_only=noise_only,
            total=np.zeros(self.size, np.int64) if noise_only else total,
            nonce=self.draw_nonce() if self.noise.entry_kind == "stream" else "",
        )
        write_aggregate(self.folder, aggregate, self.operator)
        self.home.commit(
            self.terms.stream, self.next_index, digest=aggregate.digest, noise_only=noise_only
        )
        self._aggregate, self.phase = aggregate, StepPhase.COMMITTED
        self.was_noise_only = noise_only

    def charge(self, at: datetime) -> LedgerEntry:
        """Make the ledger entry of the step at hand durable; only then may anything leave."""
        self._require(StepPhase.COMMITTED)
        event = self.terms.event(
            self.next_index,
            noise=self.noise,
            most_participations=self._most,
            noise_only=self._committed().noise_only,
        )
        kind = self.terms.entry_kind(self.noise)
        self.entry = self.home.charge(event, kind=kind, at=at)
        self.phase = StepPhase.CHARGED
        return self.entry

    def release(self) -> NDArray[np.float64]:
        """Return the released mean update of the step at hand, float64, shape (n_weights,)."""
        self._require(StepPhase.CHARGED)
        committed = self._committed()
        if self.secrets is not None and self.secrets.binds(self.next_index):
            bind_noise(self.noise, self.next_index, committed.digest)
        mean = mean_update(
            committed.total,
            noise=self.noise.noise(self.next_index, self.size),
            num_invited=self.terms.cohort_size,
            grid=UpdateGrid(clipping_norm=self.terms.clipping_norm),
        )
        return self.norm.of_update(mean, noise_only=committed.noise_only)

    def checkpoint(
        self, state: OptimizerState, *, released: NDArray[np.float64] | None = None
    ) -> None:
        """Keep what the step at hand led to, durably; then the next task may leave.

        Args:
            state: after the step.
            released: what it was stepped with; without it nothing bears witness that the release
                carried noise, and no model of the stream can be released.

        Raises:
            StreamRefusedError: what was released carries less noise than is claimed.
        """
        self._require(StepPhase.CHARGED)
        entry_hash = "" if self.entry is None else self.entry.hash
        if released is not None and self.terms.policy is not None:
            bear_witness(
                self.folder,
                self.norm.in_unit(released),
                self._committed().total[: len(released)],
                policy=self.terms.policy,
                index=self.next_index,
                entry_hash=entry_hash,
                weights=state.weights,
            )
        write_checkpoint(
            self.folder,
            Checkpoint(
                state=state,
                index=self.next_index,
                entry_hash=entry_hash,
                clipping_norm=self.norm.to_keep,
            ),
        )
        discard_aggregate(self.folder)
        self.norm.move()
        self._aggregate, self.phase = None, None
        self.next_index += 1

    def take_up(self, steps: Sequence[StepRecord], *, num_charged: int) -> None:
        """Take up the step at which the process before this one ended.

        Args:
            steps: of the stream, as the home holds them.
            num_charged: how many of them the ledger holds.

        Raises:
            StreamRefusedError: the committed sum is not there.
        """
        self._most = steps[-1].most_participations if steps else 0
        if self.next_index >= len(steps):
            discard_aggregate(self.folder)
            return
        step = steps[self.next_index]
        self._cohort_digest = step.cohort_digest
        if step.aggregate_digest is None:
            # The process before this one may have ended before its mark; the next looks for it.
            self._mark_invited()
            return
        self._aggregate = read_aggregate(
            self.folder,
            stream=self.terms.stream,
            digest=step.aggregate_digest,
            operator=self.operator,
        )
        self.was_noise_only = self._aggregate.noise_only
        self.phase = StepPhase.CHARGED if num_charged > self.next_index else StepPhase.COMMITTED

    def end(self) -> None:
        """Destroy the stream's key once every step is released: nobody can take noise off then."""
        if self.next_index >= self.terms.num_rounds:
            self.abandon()

    def abandon(self) -> None:
        """Destroy the key and the sum at hand of a stream that will have no further step."""
        if self.secrets is not None:
            (self.folder / KEY_FILE).unlink(missing_ok=True)
        discard_aggregate(self.folder)
        sync_folder(self.folder)

    def close(self) -> None:
        """Let go of the stream."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def _mark_invited(self) -> None:
        self.phase, of = StepPhase.INVITED, self.terms.stream
        mark = StepMark(stream=of, index=self.next_index, cohort_digest=self._cohort_digest)
        write_mark(self.folder, mark)

    def _whole_cohort(
        self, chosen: Sequence[int] | NDArray[np.intp]
    ) -> Sequence[int] | NDArray[np.intp]:
        """Return a choice of at most n, and of no fewer than devices were told."""
        if not self.terms.least_invited <= len(chosen) <= self.terms.cohort_size:
            raise BudgetExceededError(
                reason=Refusal.COHORT_TOO_SMALL,
                spent=0,
                requested=len(chosen),
                limit=self.terms.least_invited,
            )
        return chosen

    def _committed(self) -> Aggregate:
        if self._aggregate is None:
            raise RuntimeError("no sum is committed")
        return self._aggregate

    def _require(self, phase: StepPhase | None) -> None:
        if self.phase is not phase:
            raise RuntimeError(f"step {self.next_index} is {self.phase}, and must be {phase}")


def begin_stream(
    folder: Path,
    home: PrivacyHome,
    terms: StreamTerms,
    *,
    start: OptimizerState,
    keys: StreamKeys,
    source: NoiseSource,
    operator: OperatorKey | None = None,
    lock: int | None = None,
) -> StreamState:
    """Open a new stream: its key, its name in the home, and the weights that it starts from.

    Args:
        folder: of the run.
        home: counts devices and holds the ledger.
        terms: constants of the stream.
        start: weights and optimiser before the first step.
        keys: of streams with correlated noise.
        source: of independent noise, for a comparison.
        operator: seals what is kept.
        lock: of the folder, where the caller holds it; it goes over to the stream.

    Raises:
        StreamRefusedError: the stream's name was used before.
        StreamKeyError: the folder holds a stream already.
    """
    lock = lock_stream(folder) if lock is None else lock
    try:
        size, norm = terms.size(len(start.weights)), StepNorm.of(terms)
        own, anchor = None, ""
        if terms.policy is None:
            noise = terms.comparison_noise(source)
        else:
            key = keys.new_key(terms.policy)
            noise = keys.noise(key, terms.policy, next_index=0, size=size)
            own = new_secrets(
                terms.stream,
                terms.policy_digest,
                noise_key=key,
                kind=noise.entry_kind,
                is_sealed=operator is not None,
            )
            write_secrets(folder / KEY_FILE, own, operator=operator)
            anchor = anchor_of(folder / KEY_FILE)
        record = StreamRecord(
            policy_digest=terms.policy_digest,
            anchor=anchor,
            max_participations=terms.cost.max_participations,
        )
        home.open_stream(terms.stream, record)
        if own is not None:
            note_first_opening(folder, home, own)
        first = Checkpoint(state=start, index=-1, entry_hash="", clipping_norm=norm.to_keep)
        write_checkpoint(folder, first)
    except BaseException:
        os.close(lock)
        raise
    return StreamState(
        folder=folder,
        home=home,
        terms=terms,
        noise=noise,
        size=size,
        norm=norm,
        lock=lock,
        secrets=own,
        operator=None if own is None else operator,
    )


def resume_stream(
    folder: Path,
    home: PrivacyHome,
    terms: StreamTerms,
    *,
    keys: StreamKeys,
    operator: OperatorKey | None = None,
    lock: int | None = None,
) -> tuple[StreamState, OptimizerState]:
    """Take up a stream whose process ended, and return it with weights and optimiser.

    Args:
        folder: of the run.
        home: counts devices and holds the ledger.
        terms: constants of the stream, as its policy says them.
        keys: of streams with correlated noise.
        operator: opens what is kept.
        lock: of the folder, where the caller holds it; it goes over to the stream.

    Raises:
        StreamRefusedError: what is here is not the newest, or of another stream; open a new one.
        StreamKeyError: the key cannot be read.
    """
    lock = lock_stream(folder) if lock is None else lock
    try:
        policy = policy_of(folder, terms)
        own = read_secrets(folder / KEY_FILE, operator=operator)
        record, steps = home.stream(terms.stream)
        require_own_stream(folder, own, record, terms, noted=home.last_opening(terms.stream))
        checkpoint = read_checkpoint(folder)
        charged = entries_of_stream(home.entries, terms.stream)
        require_agreement(folder, checkpoint, steps, charged)
        size, next_index = terms.size(len(checkpoint.state.weights)), checkpoint.index + 1
        noise = keys.noise(own.noise_key, policy, next_index=0, size=size)
        require_own_kind(folder, own, noise)
        own = open_again(folder, home, own, steps, operator=operator)
        replay(noise, own, steps[:next_index], size=size)
        state = StreamState(
            folder=folder,
            home=home,
            terms=terms,
            noise=noise,
            size=size,
            norm=StepNorm.of(terms, checkpoint.clipping_norm),
            lock=lock,
            next_index=next_index,
            secrets=own,
            operator=operator if own.is_sealed else None,
            entry=charged[-1] if charged else None,
        )
        state.take_up(steps, num_charged=len(charged))
    except BaseException:
        os.close(lock)
        raise
    return state, checkpoint.state
