"""The server's own count of every device, for life, over all streams and runs: one SQLite file.

It holds stable device ids, for scheduling needs them; nobody but its owner may read it. What is
stored elsewhere bears pseudonyms. Every function works within one transaction, which the home of
the file opens, and which is durable once it has ended.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .privacy_errors import HomeBrokenError, HomeUnavailableError, StreamRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1
LOCK_TIMEOUT_S: Final = 10.0
UNLIMITED: Final = 2**62
MU_ROUNDING: Final = 1e-9
"""Relative amount by which a sum of squares may pass its limit: k additions round."""
_NEVER: Final = -(2**40)

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE streams (
    stream TEXT PRIMARY KEY, policy_digest TEXT NOT NULL, anchor TEXT NOT NULL,
    max_participations INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE steps (
    stream TEXT NOT NULL, step INTEGER NOT NULL, cohort_digest TEXT NOT NULL,
    most_participations INTEGER NOT NULL, aggregate_digest TEXT, noise_only INTEGER,
    PRIMARY KEY (stream, step)
) WITHOUT ROWID;
CREATE TABLE devices (
    device TEXT PRIMARY KEY, participations INTEGER NOT NULL, mu_squared REAL NOT NULL,
    counts_mu_squared REAL NOT NULL, max_participations INTEGER NOT NULL,
    mu_squared_limit REAL NOT NULL, said_participations INTEGER NOT NULL,
    said_mu_squared REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE invitations (
    stream TEXT NOT NULL, step INTEGER NOT NULL, device TEXT NOT NULL,
    PRIMARY KEY (stream, step, device)
) WITHOUT ROWID;
CREATE TABLE stream_devices (
    stream TEXT NOT NULL, device TEXT NOT NULL, participations INTEGER NOT NULL,
    last_step INTEGER NOT NULL, PRIMARY KEY (stream, device)
) WITHOUT ROWID;
CREATE TABLE answers (
    series TEXT NOT NULL, release INTEGER NOT NULL, device TEXT NOT NULL,
    PRIMARY KEY (series, release, device)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class LifeCounts:
    """What devices have spent in their lives, in the order in which they were asked for.

    Attributes:
        participations: int64, shape (n_devices,): steps of all streams; the larger of the server's
            count and of what the device itself said.
        mu_squared: float64, shape (n_devices,): Σ 1/σ² over them, by the server's count.
        said_mu_squared: float64, shape (n_devices,): Σ 1/σ² over all that the device has debited by
            its own word, answers to counts included.
        max_participations: int64, shape (n_devices,): least k of all policies so far.
        mu_squared_limit: float64, shape (n_devices,): least part of μ² for updates so far.
    """

    participations: NDArray[np.int64]
    mu_squared: NDArray[np.float64]
    said_mu_squared: NDArray[np.float64]
    max_participations: NDArray[np.int64]
    mu_squared_limit: NDArray[np.float64]

    def may_go_on(self, cost: StepCost) -> NDArray[np.bool_]:
        """Tell who has budget for one more step: bool, shape (n_devices,).

        Args:
            cost: of the step.
        """
        most = np.minimum(self.max_participations, cost.max_participations)
        limit = np.minimum(self.mu_squared_limit, cost.mu_squared_limit) * (1 + MU_ROUNDING)
        in_all = cost.mu_squared_in_all * (1 + MU_ROUNDING)
        return (
            (self.participations < most)
            & (self.mu_squared + cost.mu_squared <= limit)
            & (self.said_mu_squared + cost.mu_squared <= in_all)
        )


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


def create_counts(path: Path, facts: Mapping[str, str]) -> None:
    """Make the file with its tables, readable for nobody else; it appears whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.unlink(missing_ok=True)
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(aside, isolation_level=None)
    try:
        connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
    finally:
        connection.close()
    handle = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    aside.replace(path)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Do everything or nothing; what was done is durable afterwards.

    Raises:
        HomeUnavailableError: the file is held, or its disk is full or read-only.
        HomeBrokenError: it is no such file.
    """
    try:
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        try:
            # EXTRA syncs the folder, too, once the journal is gone: a commit survives a power cut.
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        remedy = "free space, end the other process or make it writable, then try again"
        raise HomeUnavailableError(path, str(error), remedy) from error
    except sqlite3.DatabaseError as error:
        remedy = "put the newest copy back, or: fedcell privacy ledger --home DIR --rebuild-counts"
        raise HomeBrokenError(path, f"is damaged ({error})", remedy) from error


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Look without writing anything.

    Raises:
        HomeBrokenError: it is no such file.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        remedy = "put the newest copy back, or: fedcell privacy ledger --home DIR --rebuild-counts"
        raise HomeBrokenError(path, f"cannot be read ({error})", remedy) from error
    finally:
        connection.close()


def fact(connection: sqlite3.Connection, name: str) -> str:
    """Return a fact about the file."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def keep_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a fact about the file."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


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


def life_counts(connection: sqlite3.Connection, device_ids: Sequence[str]) -> LifeCounts:
    """Return what devices have spent, counted and said; a device never seen has spent nothing."""
    rows = connection.execute(
        "SELECT device, MAX(participations, said_participations), mu_squared, said_mu_squared, "
        "max_participations, mu_squared_limit FROM devices"
    )
    known = {row[0]: row[1:] for row in rows}
    nothing = (0, 0.0, 0.0, UNLIMITED, float("inf"))
    found = [known.get(device_id, nothing) for device_id in device_ids]
    return LifeCounts(
        participations=np.array([row[0] for row in found], np.int64),
        mu_squared=np.array([row[1] for row in found], np.float64),
        said_mu_squared=np.array([row[2] for row in found], np.float64),
        max_participations=np.array([row[3] for row in found], np.int64),
        mu_squared_limit=np.array([row[4] for row in found], np.float64),
    )


def cohort_of(connection: sqlite3.Connection, stream: str, index: int) -> tuple[str, ...]:
    """Return the devices that were invited to a step, sorted."""
    rows = connection.execute(
        "SELECT device FROM invitations WHERE stream = ? AND step = ? ORDER BY device",
        (stream, index),
    )
    return tuple(row[0] for row in rows)


def invited_since(connection: sqlite3.Connection, stream: str, index: int) -> frozenset[str]:
    """Return the devices that were invited to step `index` of a stream or a later one."""
    rows = connection.execute(
        "SELECT DISTINCT device FROM invitations WHERE stream = ? AND step >= ?", (stream, index)
    )
    return frozenset(row[0] for row in rows)


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
    limits = (cost.max_participations, cost.mu_squared_limit)
    connection.executemany(
        "INSERT INTO devices VALUES (?, 1, ?, 0.0, ?, ?, 0, 0.0) ON CONFLICT(device) DO UPDATE SET "
        "participations = participations + 1, mu_squared = mu_squared + excluded.mu_squared, "
        "max_participations = MIN(max_participations, excluded.max_participations), "
        "mu_squared_limit = MIN(mu_squared_limit, excluded.mu_squared_limit)",
        [(device_id, cost.mu_squared, *limits) for device_id in device_ids],
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


def add_answers(
    connection: sqlite3.Connection,
    series: str,
    release: int,
    device_ids: Sequence[str],
    mu_squared: float,
) -> int:
    """Count each device that is asked for a count.

    Returns:
        Greatest number of releases of this series that any one device was asked for.

    Raises:
        StreamRefusedError: a device was asked for this release before.
    """
    try:
        connection.executemany(
            "INSERT INTO answers VALUES (?, ?, ?)",
            [(series, release, device_id) for device_id in device_ids],
        )
    except sqlite3.IntegrityError:
        what = f"a device was asked for release {release} of {series!r} before"
        raise StreamRefusedError("participation counts", what, "ask for the next one") from None
    connection.executemany(
        "INSERT INTO devices VALUES (?, 0, 0.0, ?, ?, ?, 0, 0.0) ON CONFLICT(device) DO UPDATE "
        "SET counts_mu_squared = counts_mu_squared + excluded.counts_mu_squared",
        [(device_id, mu_squared, UNLIMITED, float("inf")) for device_id in device_ids],
    )
    most = connection.execute(
        "SELECT COALESCE(MAX(asked), 0) FROM "
        "(SELECT COUNT(*) AS asked FROM answers WHERE series = ? GROUP BY device)",
        (series,),
    ).fetchone()
    return int(most[0])


def most_mu_squared(connection: sqlite3.Connection) -> float:
    """Return the greatest μ² of any one device, updates and counts together."""
    row = connection.execute(
        "SELECT COALESCE(MAX(mu_squared + counts_mu_squared), 0.0) FROM devices"
    ).fetchone()
    return float(row[0])


def keep_said(connection: sqlite3.Connection, said: Mapping[str, tuple[int, float]]) -> None:
    """Keep what devices said of their own ledgers: participations and μ², where it is more."""
    connection.executemany(
        "INSERT INTO devices VALUES (?, 0, 0.0, 0.0, ?, ?, ?, ?) ON CONFLICT(device) DO UPDATE SET "
        "said_participations = MAX(said_participations, excluded.said_participations), "
        "said_mu_squared = MAX(said_mu_squared, excluded.said_mu_squared)",
        [
            (device_id, UNLIMITED, float("inf"), count, mu_squared)
            for device_id, (count, mu_squared) in said.items()
        ],
    )
