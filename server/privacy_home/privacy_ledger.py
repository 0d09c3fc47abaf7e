"""A privacy home: what was released from devices' data, and what each device has spent, for life.

A folder with the ledger of releases (`ledger.jsonl`), the count of every device over all streams
and runs (`participations.db`), and `home.json`, which is written once. Writers take turns by a lock
on `home.lock`. The two files watch each other: the counts hold the ledger's head, and every release
that the ledger holds has its step in the counts; so neither can be put back alone from a backup.
`home.json` is never touched again, and a file's time of change cannot be set, so the counts tell a
folder that was put back as a whole; and they know the file that they are kept in. A snapshot of the
whole disk shows nothing here: then devices say more than the server knows, and no noise repeats.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from privacy import CorrelatedRelease, CountRelease
from privacy.accountant import mu_of_releases
from privacy.ledger import entries_of_stream

from . import counts_file
from . import participation_counts as counts
from .counted_answers import add_answers
from .device_words import keep_words, standings
from .enrolment_record import keep_bindings, keep_enrolment, kept_bindings, kept_enrolment
from .home_budget import require_budget, require_budget_for_answer, require_separation
from .home_files import (
    COUNTS_FILE,
    HEAD_FACT,
    WORST_CASE_FACT,
    head_fact,
    is_behind,
    is_home,
    make_counts,
    require_no_loss,
    require_own_folder,
)
from .home_lock import locked_home
from .home_words import words_in
from .ledger_file import LEDGER_FILE, LedgerFile, read_ledger_file
from .owner_cap import keep_owners, require_owner_cap
from .privacy_errors import (
    HomeMissingError,
    HomeUnavailableError,
    StreamRefusedError,
)
from .stream_openings import keep_opening, opening_of, require_open
from .worst_case import WorstCase, worst_case

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from privacy import EntryKind, Event, LedgerEntry

    from .device_words import Standing
    from .enrolment_record import EnrolmentSource, KeptEnrolment
    from .home_words import HomeWords
    from .owner_cap import KeptOwners
    from .participation_counts import AnswerCost, LifeCounts, StepCost, StepRecord, StreamRecord


@dataclass(slots=True)
class PrivacyHome:
    """An open privacy home; `open_home` opens it.

    Attributes:
        path: the folder.
        worst_case: what every device is charged on top of its count.
    """

    path: Path
    worst_case: WorstCase = field(init=False, default=WorstCase())
    _ledger: LedgerFile = field(init=False)

    def __post_init__(self) -> None:
        """Name the ledger's file."""
        self._ledger = LedgerFile(self.path / LEDGER_FILE)

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """The ledger as last read under the lock, verified."""
        return self._ledger.entries

    def open_stream(self, stream: str, record: StreamRecord) -> None:
        """Enter a new stream.

        Raises:
            StreamRefusedError: its name was used before.
        """
        with self._turn() as connection:
            if entries_of_stream(self.entries, stream):
                what = f"holds a release of a stream {stream!r} already"
                raise StreamRefusedError(
                    self._ledger.path, what, "open it under a new name, with a new key"
                )
            counts.keep_stream(connection, stream, record, where=self.path)

    def stream(self, stream: str) -> tuple[StreamRecord | None, tuple[StepRecord, ...]]:
        """Return what is known of a stream, and its steps, oldest first."""
        with self._turn() as connection:
            return counts.stream_record(connection, stream), counts.steps_of(connection, stream)

    def last_opening(self, stream: str) -> str:
        """Return what was noted of a stream's last opening for writing; empty if nothing was."""
        with self._turn() as connection:
            return opening_of(connection, stream)

    def note_opening(self, stream: str, opening: str) -> None:
        """Note durably how a stream is opened for writing.

        Raises:
            StreamRefusedError: it ended when the home was taken over.
        """
        with self._turn() as connection:
            require_open(connection, stream, where=self.path)
            keep_opening(connection, stream, opening)

    def stream_history(
        self, stream: str, device_ids: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each device's steps of one stream: how many, and the last."""
        with self._turn() as connection:
            return counts.stream_history(connection, stream, device_ids)

    def keep_owners(
        self, stream: str, owners: Mapping[str, str], *, most_devices: int
    ) -> KeptOwners:
        """Keep who owns which device; none takes what was kept, with the devices invited so far.

        Raises:
            StreamRefusedError: the stream began with other owners, or another bound.
        """
        with self._turn() as connection:
            return keep_owners(
                connection, stream, owners, most_devices=most_devices, where=self.path
            )

    def keep_enrolment(
        self, stream: str, device_ids: Iterable[str], source: EnrolmentSource
    ) -> KeptEnrolment:
        """Keep who is enrolled in a stream as it begins; afterwards return what was kept then.

        Args:
            stream: its name.
            device_ids: who is enrolled now.
            source: what says so.
        """
        with self._turn() as connection:
            return keep_enrolment(connection, stream, device_ids, source)

    def kept_enrolment(self, stream: str) -> tuple[KeptEnrolment | None, dict[str, int]]:
        """Return who is enrolled in a stream, None: not kept, and the node of each bound device."""
        with self._turn() as connection:
            return kept_enrolment(connection, stream), kept_bindings(connection, stream)

    def keep_bindings(self, stream: str, nodes: Mapping[str, int | None]) -> None:
        """Keep which node each device of a stream is bound to; None says nothing of it."""
        with self._turn() as connection:
            keep_bindings(connection, stream, nodes)

    def cohort(self, stream: str, index: int) -> tuple[str, ...]:
        """Return the devices that were invited to a step, sorted."""
        with self._turn() as connection:
            return counts.cohort_of(connection, stream, index)

    def life_counts(self, device_ids: Sequence[str]) -> LifeCounts:
        """Return what devices have spent in their lives, by this home or by their own word."""
        with self._turn() as connection:
            return self._life_counts(connection, device_ids)

    def invite(
        self,
        stream: str,
        index: int,
        *,
        device_ids: Sequence[str],
        choose: Callable[[LifeCounts], Sequence[int] | NDArray[np.intp]],
        cost: StepCost,
    ) -> tuple[tuple[str, ...], int]:
        """Choose a cohort and count each of its devices, durably, before any task leaves.

        Choosing happens under the lock, so that two runs never both invite a device for the last
        part of its budget.

        Args:
            stream: of the step.
            index: of the step; never offered before.
            device_ids: whom the choice is among.
            choose: returns positions in `device_ids`, from what each of them has spent.
            cost: of the step for each of them.

        Returns:
            The cohort's devices, and the greatest number of steps of this stream, this one
            included, to which any one device was invited.

        Raises:
            StreamRefusedError: the index was offered before, is not the next, one owner would have
                too many devices in the stream, or it ended when the home was taken over.
            BudgetExceededError: a device that was chosen has no budget left, has answered as one
                that never trains, or had its turn fewer than b steps ago.
        """
        with self._turn() as connection:
            require_open(connection, stream, where=self.path)
            steps = counts.steps_of(connection, stream)
            if index != len(steps):
                what = f"has offered {len(steps)} steps of stream {stream!r}, not step {index}"
                raise StreamRefusedError(self.path, what, "open a new stream")
            found = self._life_counts(connection, device_ids)
            positions = [int(position) for position in choose(found)]
            require_budget(found, positions, cost)
            cohort = tuple(device_ids[position] for position in positions)
            require_separation(connection, stream, index, cohort, cost)
            most = counts.add_invitations(connection, stream, index, cohort, cost)
            require_owner_cap(connection, stream)
            return cohort, most

    def commit(self, stream: str, index: int, *, digest: str, noise_only: bool) -> None:
        """Fix the one aggregate that step `index` will ever be released with.

        Raises:
            StreamRefusedError: the step has one already, or was never invited.
        """
        with self._turn() as connection:
            require_open(connection, stream, where=self.path)
            if not counts.commit_step(
                connection, stream, index, digest=digest, noise_only=noise_only
            ):
                what = f"step {index} of stream {stream!r} has an aggregate already"
                raise StreamRefusedError(self.path, what, "open a new stream")

    def charge(self, event: Event, *, kind: EntryKind, at: datetime) -> LedgerEntry:
        """Append an entry and return once it is durable; only then may anything leave.

        Raises:
            StreamRefusedError: a stream's step that was not invited, committed and next, or that
                would pass the policy.
            HomeUnavailableError: the disk refuses; nothing was charged.
        """
        with self._turn() as connection:
            if isinstance(event, CorrelatedRelease):
                self._require_next(connection, event)
            stated = self._with_most_spent(connection, event, kind)
            entry = self._ledger.append(stated, kind=kind, at=at)
            counts_file.keep_fact(connection, HEAD_FACT, head_fact(self.entries))
        return entry

    def charge_answers(
        self, series: str, release: int, device_ids: Sequence[str], *, cost: AnswerCost
    ) -> int:
        """Count each device that is asked for a count, durably, before any question leaves.

        Returns:
            Greatest number of releases of this series that any one device was asked for.

        Raises:
            StreamRefusedError: a device was asked for this release before.
            BudgetExceededError: a device has no budget left, or is not one that the count asks.
        """
        with self._turn() as connection:
            found = self._life_counts(connection, device_ids)
            most = add_answers(connection, series, release, device_ids, cost)
            require_budget_for_answer(found, cost)
            return most

    def note_said(self, said: Mapping[str, tuple[int, float]]) -> None:
        """Keep what devices say they have spent: participations and μ²; the larger counts."""
        with self._turn() as connection:
            keep_words(connection, said)

    def standings(self, device_ids: Sequence[str]) -> dict[str, Standing]:
        """Return what devices' words are held against: the count of each, and how far it was ahead.

        Args:
            device_ids: stable identifiers.
        """
        with self._turn() as connection:
            return standings(connection, device_ids)

    def words_on(self, stream: str) -> HomeWords:
        """Return what is known beside the ledger, of a stream and of all that devices said."""
        with self._turn() as connection:
            return words_in(connection, uncounted=self.worst_case, stream=stream)

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock and one transaction, over a home whose files agree."""
        with locked_home(self.path), counts_file.transaction(self.path / COUNTS_FILE) as connection:
            require_own_folder(self.path, connection)
            self._ledger.catch_up()
            if is_behind(self._ledger.path, self.entries, connection):
                # A crash came between the last entry and the note of it.
                counts_file.keep_fact(connection, HEAD_FACT, head_fact(self.entries))
            num_uncounted = int(counts_file.fact(connection, WORST_CASE_FACT))
            if num_uncounted and self.worst_case == WorstCase():
                self.worst_case = worst_case(self.entries[:num_uncounted])
            yield connection

    def _life_counts(self, connection: sqlite3.Connection, device_ids: Sequence[str]) -> LifeCounts:
        found = counts.life_counts(connection, device_ids)
        self.worst_case.charge(found)
        return found

    def _with_most_spent(
        self, connection: sqlite3.Connection, event: Event, kind: EntryKind
    ) -> Event:
        """State what the device that spent most has spent, where the ledger alone says too much.

        Over several streams and channels the ledger adds up the most of each, as if it were one
        device's. A count that holds invitations of which nothing was released yet is not stated.
        """
        alike = [entry.event for entry in self.entries if entry.kind == kind]
        others = [e for e in alike if getattr(e, "stream", None) != getattr(event, "stream", "")]
        if not others or not isinstance(event, CorrelatedRelease | CountRelease):
            return event
        most = counts.most_mu_squared(connection) + self.worst_case.mu_squared_in_all
        if not math.isfinite(most):
            return event
        stated = replace(event, most_mu_squared=most)
        try:
            mu_of_releases([*alike, stated])
        except ValueError:
            return event
        return stated

    def _require_next(self, connection: sqlite3.Connection, event: CorrelatedRelease) -> None:
        require_open(connection, event.stream, where=self.path)
        charged = len(entries_of_stream(self.entries, event.stream))
        steps = counts.steps_of(connection, event.stream)
        record = counts.stream_record(connection, event.stream)
        step = steps[event.index] if event.index < len(steps) else None
        is_next = event.index == charged == len(steps) - 1
        if not is_next or step is None or step.aggregate_digest is None or record is None:
            what = f"step {event.index} of stream {event.stream!r} is not what comes next"
            raise StreamRefusedError(self._ledger.path, what, "open a new stream")
        if not step.most_participations == event.most_participations <= record.max_participations:
            what = f"step {event.index} of stream {event.stream!r} would pass its budget"
            raise StreamRefusedError(self._ledger.path, what, "open a new stream")


def open_home(path: Path, *, create: bool = True) -> PrivacyHome:
    """Open a privacy home for writing; a folder that is none yet becomes one.

    Args:
        path: the folder.
        create: whether it may; else its home must be there.

    Raises:
        HomeMissingError: there is none, and none may be made.
        HomeBrokenError: its files do not verify, do not agree, or were put back from a backup.
        HomeUnavailableError: another process holds it, or the disk refuses.
    """
    if not create and not is_home(path):
        what = "there is no privacy home, and a run that goes on makes none"
        remedy = "mount its disk, or put the whole folder back where the run had it"
        raise HomeMissingError(path, what, remedy)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "name another folder"
        raise HomeUnavailableError(path, f"cannot be made ({error.strerror})", remedy) from error
    with locked_home(path):
        if not (path / COUNTS_FILE).exists():
            entries = read_ledger_file(path / LEDGER_FILE)
            require_no_loss(path, entries)
            make_counts(path, entries)
    home = PrivacyHome(path)
    home.life_counts(())
    return home


def read_home(path: Path) -> tuple[LedgerEntry, ...]:
    """Read and verify the ledger of a home without changing anything there.

    Raises:
        HomeMissingError: the folder holds no ledger.
        HomeBrokenError: the chain does not verify.
    """
    if not (path / LEDGER_FILE).exists():
        remedy = "name the folder of a privacy home or of a run"
        raise HomeMissingError(path / LEDGER_FILE, "there is no such ledger", remedy)
    return read_ledger_file(path / LEDGER_FILE)
