"""The file in which a privacy home counts devices: SQLite, durable, for its owner alone.

It holds stable device ids, for scheduling needs them; what is stored elsewhere bears pseudonyms.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from models.held_out_devices import held_out_devices

from .privacy_errors import HomeBrokenError, HomeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCHEMA_VERSION: Final = 3
LOCK_TIMEOUT_S: Final = 10.0
_LACKS: Final = ("no such table", "no such column")
_REMEDY: Final = (
    "put the newest copy back, or: fedcell privacy ledger --home DIR --rebuild-counts --head HASH"
)

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
    said_mu_squared REAL NOT NULL, counts_limit REAL NOT NULL DEFAULT 9e999,
    mu_squared_in_all REAL NOT NULL DEFAULT 9e999, answers_held_out INTEGER NOT NULL DEFAULT 0,
    answers_in_training INTEGER NOT NULL DEFAULT 0, said_surplus INTEGER
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
_OWNERS = """
CREATE TABLE owners (
    stream TEXT NOT NULL, device TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (stream, device)
) WITHOUT ROWID;
"""

_SINCE_VERSION_1 = (
    "ALTER TABLE devices ADD COLUMN counts_limit REAL NOT NULL DEFAULT 9e999",
    "ALTER TABLE devices ADD COLUMN mu_squared_in_all REAL NOT NULL DEFAULT 9e999",
    "ALTER TABLE devices ADD COLUMN answers_held_out INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN answers_in_training INTEGER NOT NULL DEFAULT 0",
    _OWNERS,
)
"""What a file of version 1 lacks; the limits of what it counted are not known: none, as then."""
_SINCE_VERSION_2 = ("ALTER TABLE devices ADD COLUMN said_surplus INTEGER",)
"""What a file of version 2 lacks: how far ahead devices were, as if none had spoken."""


def create_counts(path: Path, facts: Mapping[str, str]) -> None:
    """Make the file with its tables, readable for nobody else; it appears whole or not at all.

    What stood there goes, with a journal that a crash may have left: it is not this file's.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.unlink(missing_ok=True)
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(aside, isolation_level=None)
    try:
        connection.executescript(_SCHEMA + _OWNERS)
        connection.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
    finally:
        connection.close()
    handle = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    aside.replace(path)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Do everything or nothing; what was done is durable afterwards.

    Raises:
        HomeUnavailableError: the file is held, or its disk is full or read-only.
        HomeBrokenError: it is gone, or no such file.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=LOCK_TIMEOUT_S,
            isolation_level=None,
        )
        try:
            # EXTRA syncs the folder, too, once the journal is gone: a commit survives a power cut.
            connection.execute("PRAGMA synchronous=EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            try:
                _bring_up_to_date(connection)
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if not path.exists():
            raise HomeBrokenError(path, "is gone", _REMEDY) from error
        if str(error).startswith(_LACKS):
            raise HomeBrokenError(path, f"is damaged ({error})", _REMEDY) from error
        remedy = "free space, end the other process or make it writable, then try again"
        raise HomeUnavailableError(path, str(error), remedy) from error
    except sqlite3.DatabaseError as error:
        raise HomeBrokenError(path, f"is damaged ({error})", _REMEDY) from error


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Look without writing anything.

    Raises:
        HomeBrokenError: it is no such file.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if _version(connection) < SCHEMA_VERSION:
            # A file of yesterday is read as a copy, which alone is brought up to date.
            with closing(connection):
                copy = sqlite3.connect(":memory:", isolation_level=None)
                connection.backup(copy)
            connection = copy
            _bring_up_to_date(connection)
        yield connection
    except sqlite3.DatabaseError as error:
        raise HomeBrokenError(path, f"cannot be read ({error})", _REMEDY) from error
    finally:
        connection.close()


def _version(connection: sqlite3.Connection) -> int:
    return int(fact(connection, "schema_version") or 1)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    if version >= SCHEMA_VERSION:
        return
    if version < 2:
        _bring_to_version_2(connection)
    for statement in _SINCE_VERSION_2:
        connection.execute(statement)
    keep_fact(connection, "schema_version", str(SCHEMA_VERSION))


def _bring_to_version_2(connection: sqlite3.Connection) -> None:
    """Add limits and roles; who answered as what follows from the identifier."""
    for statement in _SINCE_VERSION_1:
        connection.execute(statement)
    answered = [row[0] for row in connection.execute("SELECT DISTINCT device FROM answers")]
    roles = [(bool(out), not out) for out in held_out_devices(answered)]
    connection.executemany(
        "UPDATE devices SET answers_held_out = ?, answers_in_training = ? WHERE device = ?",
        [(*role, device) for role, device in zip(roles, answered, strict=True)],
    )


def fact(connection: sqlite3.Connection, name: str) -> str:
    """Return a fact about the file."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def keep_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a fact about the file."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
