"""The file in which a privacy home counts devices: SQLite, durable, for its owner alone.

It holds stable device ids, for scheduling needs them; what is stored elsewhere bears pseudonyms.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from .privacy_errors import HomeBrokenError, HomeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCHEMA_VERSION: Final = 1
LOCK_TIMEOUT_S: Final = 10.0

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
