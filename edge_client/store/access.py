"""Opening a store's file without harm: foreign ones are refused, and refusals are named."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..errors import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreForeignError,
    StoreMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x46434C44
"""In the header of every store, where SQLite keeps the number of the program that made a file."""
FULL = sqlite3.SQLITE_FULL
"""SQLite's code where the disk has no room."""
JOURNALS = ("-wal", "-shm")
REFUSALS = (sqlite3.DatabaseError, OSError, UnicodeDecodeError)
"""What SQLite and the operating system raise; `raise_named` turns it into our errors."""

BUSY_TIMEOUT_MS = 10_000
BRIEF_TIMEOUT_MS = 100
"""For writes that are done again later where another process holds the store."""

_ELSEWHERE = "choose another path, or move the file away and run: fedcell-device init"
_OUTSIDE_CODES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


_NO_INDEX_CODES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)
"""What SQLite says where the disk has no room for the index of the log that processes share."""
_READ_ONLY_CODES = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})


def connect(path: Path, *, is_new: bool = False) -> sqlite3.Connection:
    """Open a database in write-ahead mode, with a sync at each commit.

    Args:
        path: of the file.
        is_new: it is empty; its pages shall know who points at them, so that it can shrink.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1_000, isolation_level=None)
    try:
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class Opened(NamedTuple):
    """A store's database, open, nothing set up.

    Attributes:
        connection: to it.
        is_sealed: whether its rows are sealed.
        is_read_only: it lies on a read-only disk: it is read as it is, without a journal.
        is_alone: it lies on a full disk: this process keeps the others out, and the log's index in
            memory.
    """

    connection: sqlite3.Connection
    is_sealed: bool
    is_read_only: bool
    is_alone: bool


def open_ours(path: Path) -> Opened:
    """Open a database that says it is a store, and look whether its rows are sealed.

    SQLite itself reads the header: a process that opened and closed the file beside it would take
    away the locks of its other connections, and another process could remove their journal.

    Raises:
        StoreMissingError: there is no file at `path`.
        StoreForeignError: the file is empty, no database, or another program's.
        StoreBusyError: it cannot be read.
        StoreDamagedError: it is damaged.
        StoreError: it is no regular file.
    """
    regular_file_id(path)
    is_read_only = is_on_read_only_disk(path) and not is_journal_left(path)
    is_alone = False
    with named_errors(path):
        connection = _connected(path, is_read_only=is_read_only)
        try:
            try:
                application, is_sealed = _header(connection)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) not in _NO_INDEX_CODES:
                    raise
                connection.close()
                is_alone = True
                connection = _connected(path, is_read_only=False)
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                application, is_sealed = _header(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise StoreForeignError(path, "is no SQLite database", _ELSEWHERE) from None
            raise
    if application != APPLICATION_ID:
        connection.close()
        raise StoreForeignError(path, "is the database of another program", _ELSEWHERE)
    return Opened(connection, is_sealed, is_read_only, is_alone)


def _header(connection: sqlite3.Connection) -> tuple[int, bool]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return int(application), bool(connection.execute("PRAGMA user_version").fetchone()[0])


def is_on_read_only_disk(path: Path) -> bool:
    """Whether the file system that a store lies on takes no writes."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _connected(path: Path, *, is_read_only: bool) -> sqlite3.Connection:
    where, timeout_s = str(path), BUSY_TIMEOUT_MS / 1_000
    if is_read_only:
        # Without a promise that nobody writes, SQLite wants to make its journal first.
        where = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(where, timeout=timeout_s, isolation_level=None, uri=is_read_only)


def set_up(connection: sqlite3.Connection) -> None:
    """Have commits written ahead, and each of them synced."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def regular_file_id(path: Path) -> int:
    """Return the file's number on its disk; refuse what cannot be a store without opening it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise StoreMissingError(
            path, "there is no store here", f"make one: fedcell-device --store {path} init"
        ) from None
    except OSError as error:
        raise StoreBusyError(path, f"cannot be read: {error.strerror}", "check the path") from None
    if stat.S_ISDIR(found.st_mode):
        raise StoreBusyError(path, "cannot be read: is a folder", "check the path")
    # Opening a pipe would wait for its writer.
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(path, "is no regular file", "choose another path")
    if not found.st_size:
        raise StoreForeignError(path, "the file has 0 bytes", _ELSEWHERE)
    return found.st_ino


def is_journal_left(path: Path) -> bool:
    """Whether the last process left without closing, or another one has the store open now."""
    try:
        return path.with_name(path.name + JOURNALS[0]).stat().st_size > 0
    except OSError:
        return False


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system refuse into our errors, with path and remedy."""
    try:
        yield
    except REFUSALS as error:
        raise_named(path, error)


def read_only(path: Path) -> StoreBusyError:
    """Return the error for what a read-only disk does not take."""
    if is_journal_left(path):
        what = "lies on a read-only disk, and its journal cannot be read without writing"
    else:
        what = "lies on a read-only disk"
    return StoreBusyError(path, what, "nothing was written; mount the disk writable")


def disk_full(path: Path) -> StoreBusyError:
    """Return the error for what a full disk does not take."""
    return StoreBusyError(path, "the disk is full", "nothing was written; make room on it")


def raise_named(path: Path, error: Exception) -> NoReturn:
    """Raise what SQLite or the operating system refused as ours, anything else as it is."""
    repair = "run: fedcell-device check --repair"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _READ_ONLY_CODES and is_on_read_only_disk(path.parent):
            raise read_only(path) from error
        if code == FULL:
            raise disk_full(path) from error
        if code in _OUTSIDE_CODES:
            remedy = "nothing was written; check the disk and other processes"
            raise StoreBusyError(path, str(error), remedy) from error
        raise StoreDamagedError(path, f"is damaged ({error})", repair) from error
    if isinstance(error, UnicodeDecodeError):
        # SQLite quotes what it has found in a damaged schema.
        raise StoreDamagedError(path, "is damaged (its schema is no text)", repair) from error
    if isinstance(error, OSError):
        what = f"cannot be written: {error.strerror}"
        raise StoreBusyError(path, what, "check the folder and the disk") from error
    raise error
