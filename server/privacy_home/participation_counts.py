"""The server's own count of every device, for life, over all streams and runs.

Every function works within one transaction of `counts_file`, which the privacy home opens, and
which is durable once it has ended.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from privacy.budget import MU_ROUNDING

from .privacy_errors import StreamRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

UNLIMITED: Final = 2**62
_NEVER: Final = -(2**40)


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeCounts:
    """What devices have spent in their lives, in the order in which they were asked for.

    Attributes:
        participations: int64, shape (n_devices,): steps of all streams; the larger of the server's
            count and of what the device itself said.
        mu_squared: float64, shape (n_devices,): Σ 1/σ² over them, by the server's count.
        counts_mu_squared: float64, shape (n_devices,): of the counts that they were asked for.
        said_mu_squared: float64, shape (n_devices,): Σ 1/σ² over all that the device has debited by
            its own word, answers to counts included.
        max_participations: int64, shape (n_devices,): least k of all policies so far.
        mu_squared_limit: float64, shape (n_devices,): least part of μ² for updates so far.
        counts_limit: float64, shape (n_devices,): least part of μ² for counts so far.
        mu_squared_in_all: float64, shape (n_devices,): least μ² for everything so far.
        answers_held_out: bool, shape (n_devices,): who was asked as one that never trains.
        answers_in_training: bool, shape (n_devices,): who was asked as one that may train.
    """

    participations: NDArray[np.int64]
    mu_squared: NDArray[np.float64]
    counts_mu_squared: NDArray[np.float64]
    said_mu_squared: NDArray[np.float64]
    max_participations: NDArray[np.int64]
    mu_squared_limit: NDArray[np.float64]
    counts_limit: NDArray[np.float64]
    mu_squared_in_all: NDArray[np.float64]
    answers_held_out: NDArray[np.bool_]
    answers_in_training: NDArray[np.bool_]

    @property
    def spent(self) -> NDArray[np.float64]:
        """Updates and counts together, by the server or by the device's word: the larger."""
        return np.maximum(self.mu_squared + self.counts_mu_squared, self.said_mu_squared)

    def may_go_on(self, cost: StepCost) -> NDArray[np.bool_]:
        """Tell who has budget for one more step: bool, shape (n_devices,).

        Who answered as a device that never trains may take part in none: what these spend and what
        the others spend are two sums in the ledger, and never the same device's.

        Args:
            cost: of the step.
        """
        most = np.minimum(self.max_participations, cost.max_participations)
        return (
            (self.participations < most)
            & _is_within(self.mu_squared, cost, self.mu_squared_limit)
            & self._is_within_all(cost)
            & ~self.answers_held_out
        )

    def may_answer(self, cost: AnswerCost) -> NDArray[np.bool_]:
        """Tell who has budget for one more answer to a count: bool, shape (n_devices,).

        Args:
            cost: of the answer.
        """
        in_training = self.answers_in_training | (self.participations > 0)
        return (
            _is_within(self.counts_mu_squared, cost, self.counts_limit)
            & self._is_within_all(cost)
            & ~(in_training if cost.held_out else self.answers_held_out)
        )

    def _is_within_all(self, cost: StepCost | AnswerCost) -> NDArray[np.bool_]:
        in_all = np.minimum(self.mu_squared_in_all, cost.mu_squared_in_all)
        return self.spent + cost.mu_squared <= in_all * (1 + MU_ROUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one invitation to a step costs a device, and how far it may go.

    Attributes:
        mu_squared: 1/σ²; infinite without noise.
        max_participations: k for life.
        mu_squared_limit: part of μ² that updates may use.
        mu_squared_in_all: μ² that updates and all else may use together.
        min_separation: b, least difference of index between two steps of a device in one stream.
    """

    mu_squared: float
    max_participations: int = UNLIMITED
    mu_squared_limit: float = float("inf")
    mu_squared_in_all: float = float("inf")
    min_separation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCost:
    """What one answer to a count costs a device, and how far it may go.

    Attributes:
        mu_squared: 1/σ² of the answer.
        mu_squared_limit: part of μ² that counts may use.
        mu_squared_in_all: μ² that counts and all else may use together.
        held_out: whether only devices that never train are asked.
    """

    mu_squared: float
    mu_squared_limit: float = float("inf")
    mu_squared_in_all: float = float("inf")
    held_out: bool = False


def _is_within(
    spent: NDArray[np.float64], cost: StepCost | AnswerCost, so_far: NDArray[np.float64]
) -> NDArray[np.bool_]:
    limit = np.minimum(so_far, cost.mu_squared_limit) * (1 + MU_ROUNDING)
    return spent + cost.mu_squared <= limit


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """How far one step of a stream has come.

    Attributes:
        index: of the step.
        cohort_digest: of the devices that were invited.
        most_participations: greatest number of steps of this stream, this one included, to which
            any one device was invited.
        aggregate_digest: of the committed aggregate; None while there is none.
        noise_only: whether the committed aggregate is that of an aborted round.
    """

    index: int
    cohort_digest: str
    most_participations: int
    aggregate_digest: str | None
    noise_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """What the home knows of a stream.

    Attributes:
        policy_digest: of its policy; empty for a comparison.
        anchor: what tells its key file from a copy of it.
        max_participations: k.
    """

    policy_digest: str
    anchor: str
    max_participations: int


def cohort_digest(device_ids: Sequence[str]) -> str:
    """SHA-256 of a cohort, whatever its order."""
    return hashlib.sha256("\n".join(sorted(device_ids)).encode()).hexdigest()


def keep_stream(
    connection: sqlite3.Connection, stream: str, record: StreamRecord, *, where: Path
) -> None:
    """Keep a new stream.

    Raises:
        StreamRefusedError: its name was used before.
    """
    try:
        connection.execute(
            "INSERT INTO streams VALUES (?, ?, ?, ?)",
            (stream, record.policy_digest, record.anchor, record.max_participations),
        )
    except sqlite3.IntegrityError:
        what = f"knows a stream {stream!r} already"
        raise StreamRefusedError(where, what, "open it under a new name, with a new key") from None


def stream_record(connection: sqlite3.Connection, stream: str) -> StreamRecord | None:
    """Return what is known of a stream; None for one that was never opened here."""
    row = connection.execute(
        "SELECT policy_digest, anchor, max_participations FROM streams WHERE stream = ?", (stream,)
    ).fetchone()
    if row is None:
        return None
    return StreamRecord(policy_digest=row[0], anchor=row[1], max_participations=row[2])


def steps_of(connection: sqlite3.Connection, stream: str) -> tuple[StepRecord, ...]:
    """Return the steps of a stream, oldest first."""
    rows = connection.execute(
        "SELECT step, cohort_digest, most_participations, aggregate_digest, noise_only "
        "FROM steps WHERE stream = ? ORDER BY step",
        (stream,),
    )
    return tuple(
        StepRecord(
            index=step,
            cohort_digest=cohort,
            most_participations=most,
            aggregate_digest=aggregate,
            noise_only=bool(noise_only),
        )
        for step, cohort, most, aggregate, noise_only in rows
    )


def all_devices(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return every device that is counted, sorted."""
    rows = connection.execute("SELECT device FROM devices ORDER BY device")
    return tuple(row[0] for row in rows)


def life_counts(connection: sqlite3.Connection, device_ids: Sequence[str]) -> LifeCounts:
    """Return what devices have spent, counted and said; a device never seen has spent nothing."""
    rows = connection.execute(
        "SELECT device, MAX(participations, said_participations), mu_squared, counts_mu_squared, "
        "said_mu_squared, max_participations, mu_squared_limit, counts_limit, mu_squared_in_all, "
        "answers_held_out, answers_in_training FROM devices"
    )
    columns = list(zip(*rows, strict=True)) or [()] * 11
    place = {device: number for number, device in enumerate(columns[0])}
    found = np.fromiter(
        (place.get(device_id, len(place)) for device_id in device_ids), np.intp, len(device_ids)
    )

    def at(column: int, nothing: float, kind: type) -> NDArray[Any]:
        return np.array([*columns[column], nothing], kind)[found]

    return LifeCounts(
        participations=at(1, 0, np.int64),
        mu_squared=at(2, 0.0, np.float64),
        counts_mu_squared=at(3, 0.0, np.float64),
        said_mu_squared=at(4, 0.0, np.float64),
        max_participations=at(5, UNLIMITED, np.int64),
        mu_squared_limit=at(6, math.inf, np.float64),
        counts_limit=at(7, math.inf, np.float64),
        mu_squared_in_all=at(8, math.inf, np.float64),
        answers_held_out=at(9, False, np.bool_),
        answers_in_training=at(10, False, np.bool_),
    )


def cohort_of(connection: sqlite3.Connection, stream: str, index: int) -> tuple[str, ...]:
    """Return the devices that were invited to a step, sorted."""
    rows = connection.execute(
        "SELECT device FROM invitations WHERE stream = ? AND step = ? ORDER BY device",
        (stream, index),
    )
    return tuple(row[0] for row in rows)


def invited_devices(connection: sqlite3.Connection, stream: str) -> tuple[str, ...]:
    """Return the devices that were ever invited to a stream, sorted."""
    rows = connection.execute(
        "SELECT device FROM stream_devices WHERE stream = ? ORDER BY device", (stream,)
    )
    return tuple(row[0] for row in rows)


def last_step_of_any(connection: sqlite3.Connection, stream: str, device_ids: Sequence[str]) -> int:
    """Return the last step of a stream to which any of some devices was invited; -1 for none."""
    found = -1
    for device_id in device_ids:
        row = connection.execute(
            "SELECT last_step FROM stream_devices WHERE stream = ? AND device = ?",
            (stream, device_id),
        ).fetchone()
        if row is not None:
            found = max(found, int(row[0]))
    return found


def stream_history(
    connection: sqlite3.Connection, stream: str, device_ids: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each device's steps of one stream: how many, and the last (far below 0 for none)."""
    rows = connection.execute(
        "SELECT device, participations, last_step FROM stream_devices WHERE stream = ?", (stream,)
    )
    known = {device: (count, last) for device, count, last in rows}
    found = [known.get(device_id, (0, _NEVER)) for device_id in device_ids]
    return (
        np.array([count for count, _ in found], np.int64),
        np.array([last for _, last in found], np.int64),
    )


def add_invitations(
    connection: sqlite3.Connection,
    stream: str,
    index: int,
    device_ids: Sequence[str],
    cost: StepCost,
) -> int:
    """Count each invited device, whether it will answer or not.

    Returns:
        Greatest number of steps of this stream to which any one device was invited.
    """
    try:
        connection.executemany(
            "INSERT INTO invitations VALUES (?, ?, ?)",
            [(stream, index, device_id) for device_id in device_ids],
        )
    except sqlite3.IntegrityError:
        what = f"a device was invited to step {index} of {stream!r} twice"
        raise StreamRefusedError("participation counts", what, "name each device once") from None
    enter(connection, device_ids)
    limits = (cost.max_participations, cost.mu_squared_limit, cost.mu_squared_in_all)
    connection.executemany(
        "UPDATE devices SET participations = participations + 1, mu_squared = mu_squared + ?, "
        "max_participations = MIN(max_participations, ?), "
        "mu_squared_limit = MIN(mu_squared_limit, ?), "
        "mu_squared_in_all = MIN(mu_squared_in_all, ?) WHERE device = ?",
        [(cost.mu_squared, *limits, device_id) for device_id in device_ids],
    )
    connection.executemany(
        "INSERT INTO stream_devices VALUES (?, ?, 1, ?) ON CONFLICT(stream, device) DO UPDATE SET "
        "participations = participations + 1, last_step = excluded.last_step",
        [(stream, device_id, index) for device_id in device_ids],
    )
    most_participations = connection.execute(
        "SELECT COALESCE(MAX(participations), 0) FROM stream_devices WHERE stream = ?", (stream,)
    ).fetchone()[0]
    connection.execute(
        "INSERT INTO steps VALUES (?, ?, ?, ?, NULL, NULL)",
        (stream, index, cohort_digest(device_ids), most_participations),
    )
    return int(most_participations)


def commit_step(
    connection: sqlite3.Connection, stream: str, index: int, *, digest: str, noise_only: bool
) -> bool:
    """Fix the one aggregate of a step; False where the step has one, or was never invited."""
    changed = connection.execute(
        "UPDATE steps SET aggregate_digest = ?, noise_only = ? "
        "WHERE stream = ? AND step = ? AND aggregate_digest IS NULL",
        (digest, int(noise_only), stream, index),
    )
    return changed.rowcount == 1


def most_mu_squared(connection: sqlite3.Connection) -> float:
    """Return the greatest μ² of any one device, updates and counts together."""
    row = connection.execute(
        "SELECT COALESCE(MAX(mu_squared + counts_mu_squared), 0.0) FROM devices"
    ).fetchone()
    return float(row[0])


def most_said_mu_squared(connection: sqlite3.Connection) -> float:
    """Return the greatest μ² that any one device says it spent, up to what policies here let it."""
    row = connection.execute(
        "SELECT COALESCE(MAX(MIN(said_mu_squared, mu_squared_in_all)), 0.0) FROM devices"
    ).fetchone()
    return float(row[0])


def enter(connection: sqlite3.Connection, device_ids: Iterable[str]) -> None:
    """Begin to count devices that were never seen before."""
    connection.executemany(
        "INSERT OR IGNORE INTO devices (device, participations, mu_squared, counts_mu_squared, "
        "max_participations, mu_squared_limit, said_participations, said_mu_squared) "
        "VALUES (?, 0, 0.0, 0.0, ?, ?, 0, 0.0)",
        [(device_id, UNLIMITED, math.inf) for device_id in device_ids],
    )
