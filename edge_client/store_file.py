"""The SQLite file under a device's store: made aside, foreign ones refused, all or nothing."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder

from .errors import StoreBusyError, StoreError, StoreMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SCHEMA_VERSION = 1
APPLICATION_ID = 0x46434C44
"""In the header of every store, where SQLite keeps the number of the program that made a file."""

_BUSY_TIMEOUT_S = 10.0
_MAGIC = b"SQLite format 3\x00"
_APPLICATION_ID_AT = slice(68, 72)
_HEADER_BYTES = 100
_OUTSIDE_ERRORS = ("full", "locked", "busy", "readonly", "read-only", "unable to open", "disk i/o")
_SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE reading (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s INTEGER NOT NULL,
    measurements BLOB NOT NULL -- little-endian float32, in the order of MEASUREMENTS, NaN = missing
);
CREATE INDEX reading_at ON reading (at_s);
CREATE TABLE refusal (reason TEXT PRIMARY KEY, num_readings INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE consent (
    purpose TEXT PRIMARY KEY, granted INTEGER NOT NULL, changed_at_s INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE notice (
    message_id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    received_at_s INTEGER NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    purpose TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
"""


class StoreFile:
    """An open store file of the right program and version. Use it from one thread.

    What a method has returned from survives a power cut: WAL with synchronous FULL.

    Args:
        path: an existing store.

    Raises:
        StoreMissingError: there is no file at `path`.
        StoreError: the file is empty, no database, damaged, another program's, or newer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _refuse_foreign_file(path)
        with _named_errors(path):
            self._connection = _connect(path)
        try:
            self._refuse_other_version()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything inside, or nothing of it; inside another one it is part of that.

        Raises:
            StoreBusyError: the disk is full or refuses, or another process holds the file.
            StoreError: the file is damaged.
        """
        if self._is_writing():
            yield self._connection
            return
        with _named_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself where the disk is full.
                if self._is_writing():
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Read rows."""
        with _named_errors(self.path):
            return self._connection.execute(query, parameters).fetchall()

    def fact(self, name: str) -> Any:
        """Return a named value, None where it was never kept."""
        found = self.rows("SELECT value FROM fact WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    def keep_fact(self, name: str, value: object) -> None:
        """Keep a named value that JSON can carry, in a transaction of its own."""
        with self.transaction() as connection:
            write_fact(connection, name, value)

    def _is_writing(self) -> bool:
        return self._connection.in_transaction

    def _refuse_other_version(self) -> None:
        version = self.rows("SELECT max(version) FROM schema_version")[0][0]
        if version != SCHEMA_VERSION:
            raise StoreError(
                self.path,
                f"was written in schema version {version}, this fedcell reads {SCHEMA_VERSION}",
                "install the fedcell that wrote it, or a newer one",
            )


def write_fact(connection: sqlite3.Connection, name: str, value: object) -> None:
    """Write a named value within the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))


def create_store_file(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make an empty store beside its final name, let `fill` write into it, rename it into place.

    Nobody but the user who made it can read it.

    Raises:
        StoreError: something is at `path` already; it stays as it is.
        StoreBusyError: the folder cannot be written.
    """
    if path.exists():
        raise StoreError(path, "exists already", "choose another path, or remove it first")
    aside = path.with_name(path.name + ".new")
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        # SQLite gives its journals the mode of the file that they belong to.
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = _connect(aside)
        try:
            connection.executescript(f"BEGIN; {_SCHEMA}")
            connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            fill(connection)
            connection.execute("COMMIT")
        finally:
            connection.close()
        aside.replace(path)
        sync_folder(path.parent)


def remove_store_file(path: Path, *, belongings: tuple[Path, ...]) -> tuple[Path, ...]:
    """Remove a store, what SQLite keeps beside it, and the folders that belong to it.

    Returns:
        What was removed.

    Raises:
        StoreBusyError: the folder cannot be written.
    """
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-shm", ".new")]
    folders = [folder for folder in belongings if folder.is_dir()]
    files = [file for folder in folders for file in folder.iterdir()] + [*beside, path]
    removed = [file for file in files if file.exists()]
    with _named_errors(path):
        for file in removed:
            file.unlink()
        for folder in folders:
            folder.rmdir()
        sync_folder(path.parent)
    return tuple(removed + folders)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign_file(path: Path) -> None:
    # Opening a pipe would wait for its writer.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise StoreError(path, "is no regular file", "choose another path")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise StoreMissingError(
            path, "there is no store here", f"make one: fedcell-device --store {path} init"
        ) from None
    except OSError as error:
        raise StoreBusyError(path, f"cannot be read: {error.strerror}", "check the path") from None
    remedy = "choose another path, or move the file away and run: fedcell-device init"
    if not header:
        raise StoreError(path, "the file has 0 bytes", remedy)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreError(path, "is no SQLite database", remedy)
    if int.from_bytes(header[_APPLICATION_ID_AT], "big") != APPLICATION_ID:
        raise StoreError(path, "is the database of another program", remedy)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if any(words in str(error).lower() for words in _OUTSIDE_ERRORS):
            raise StoreBusyError(
                path, str(error), "nothing was written; check the disk and other processes"
            ) from error
        raise StoreError(
            path,
            f"is damaged ({error})",
            "move the file away, run fedcell-device init, and fill it from a backup",
        ) from error
    except OSError as error:
        raise StoreBusyError(
            path, f"cannot be written: {error.strerror}", "check the folder and the disk"
        ) from error
