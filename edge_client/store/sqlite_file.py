"""The SQLite file under a device's store: made aside, foreign ones refused, all or nothing."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder

from ..errors import StoreDamagedError, StoreError
from .access import (
    APPLICATION_ID,
    BRIEF_TIMEOUT_MS,
    BUSY_TIMEOUT_MS,
    FULL,
    JOURNALS,
    REFUSALS,
    connect,
    is_journal_left,
    named_errors,
    open_ours,
    raise_named,
    regular_file_id,
    set_up,
)
from .row_cipher import PlainRows, SealedRows, key_id, read_key, wrong_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from .row_cipher import KeySource, Rows

SCHEMA_VERSION = 2
ASIDE = ".new"


class _Transaction:
    """One transaction; a class, because a generator would take longer than the write itself."""

    __slots__ = ("_is_part", "_store")

    def __init__(self, store: StoreFile) -> None:
        self._store = store
        self._is_part = False

    def __enter__(self) -> sqlite3.Connection:
        store = self._store
        connection = store._connection  # noqa: SLF001 - a part of the store
        self._is_part = connection.in_transaction
        if self._is_part:
            return connection
        try:
            return store._begin()  # noqa: SLF001
        except REFUSALS as error:
            raise_named(store.path, error)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._is_part:
            return
        try:
            if error is None:
                self._store._commit()  # noqa: SLF001
            else:
                self._store._roll_back()  # noqa: SLF001
        except REFUSALS as failure:
            raise_named(self._store.path, failure)
        if isinstance(error, REFUSALS):
            raise_named(self._store.path, error)


class StoreFile:
    """An open store file of the right program and version. Use it from one thread.

    What a method has returned from survives a power cut: WAL with synchronous FULL. A store of an
    earlier version is brought to the newest one when it is opened. Where another process has put
    another file in its place (sealed, repaired, erased and begun anew), the next access opens that.

    Args:
        path: an existing store.
        key: returns the 32 bytes that it is sealed under; None for a store in the clear.

    Raises:
        StoreMissingError: there is no file at `path`.
        StoreForeignError: the file is empty, no database, or another program's.
        StoreKeyError: the key is missing, wrong, or given for a store in the clear.
        StoreDamagedError: the file is damaged.
        StoreError: the store is of a newer version.
    """

    is_read_only: bool
    """Whether it lies on a read-only disk: it can be read, and takes nothing."""
    is_alone: bool
    """Whether it lies on a full disk: it can be read, by one process at a time."""

    def __init__(self, path: Path, *, key: KeySource | None = None) -> None:
        self.path = path
        self._where = os.fspath(path)
        self._key = key
        self._open()

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

    @property
    def is_sealed(self) -> bool:
        """Whether the rows are sealed under a key."""
        return self._rows.is_sealed

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Write everything inside, or nothing of it; inside another one it is part of that.

        Raises:
            StoreBusyError: the disk is full or refuses, or another process holds the file.
            StoreDamagedError: the file is damaged.
        """
        return _Transaction(self)

    @contextmanager
    def waiting_briefly(self) -> Iterator[None]:
        """Wait 0.1 s instead of 10 s for other processes: for writes that can be done later."""
        self._connection.execute(f"PRAGMA busy_timeout = {BRIEF_TIMEOUT_MS}")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Read rows as they are stored."""
        with named_errors(self.path):
            if not self._connection.in_transaction and self._is_replaced():
                self._open_anew()
            return self._connection.execute(query, parameters).fetchall()

    def fact(self, name: str) -> Any:
        """Return a named value, None where it was never kept.

        Raises:
            StoreDamagedError: it is not what was kept.
        """
        found = self.rows("SELECT value, proof FROM fact WHERE name = ?", name)
        return self._fact_of(name, *found[0]) if found else None

    def facts(self) -> dict[str, Any]:
        """Return all named values."""
        found = self.rows("SELECT name, value, proof FROM fact")
        return {name: self._fact_of(name, value, proof) for name, value, proof in found}

    def keep_fact(self, name: str, value: object) -> None:
        """Keep a named value that JSON can carry, in a transaction of its own."""
        with self.transaction() as connection:
            write_fact(connection, self._rows, name, value)

    def check(self) -> None:
        """Look through the whole file: its structure, and every value that proves itself.

        Raises:
            StoreDamagedError: with the first damage found.
        """
        self._check_structure("integrity_check")
        self.facts()

    def _check_structure(self, how: str) -> None:
        said = self.rows(f"PRAGMA {how}(1)")
        if said != [("ok",)]:
            first = str(said[0][0] if said else "nothing").replace("\n", " ")
            raise StoreDamagedError(
                self.path, f"is damaged ({first})", "run: fedcell-device check --repair"
            )

    def _open(self) -> None:
        was_left_open = is_journal_left(self.path)
        self._file_id = regular_file_id(self.path)
        opened = open_ours(self.path)
        self._connection, is_sealed, self.is_read_only, self.is_alone = opened
        try:
            self._rows: Rows = PlainRows(self.path)
            key = read_key(self.path, self._key, is_sealed=is_sealed)
            if not self.is_read_only:
                with named_errors(self.path):
                    set_up(self._connection)
            self._bring_to_this_version()
            if key is not None:
                self._rows = self._unlock(key)
            if was_left_open:
                self._check_structure("quick_check")
        except BaseException:
            self._connection.close()
            raise

    def _open_anew(self) -> None:
        former = self._connection
        try:
            self._open()
        except BaseException:
            # Nothing more is read from or written to the former file; the next access tries again.
            self._connection, self._file_id = former, 0
            raise
        former.close()

    def _begin(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        # Whoever replaces a store holds its lock meanwhile: from here on it stays.
        while self._is_replaced():
            self._connection.execute("ROLLBACK")
            self._open_anew()
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def _commit(self) -> None:
        try:
            self._before_commit(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself where the disk is full.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _make_room(self, error: BaseException | None) -> bool:
        """Where the disk is full, give back what the log holds twice; tells whether to try again.

        Args:
            error: what SQLite said of a write.
        """
        code = getattr(error, "sqlite_errorcode", 0)
        if code != FULL or self._connection.in_transaction or not is_journal_left(self.path):
            return False
        try:
            is_busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except REFUSALS:
            return False
        return not is_busy

    def _is_replaced(self) -> bool:
        try:
            return os.stat(self._where).st_ino != self._file_id  # noqa: PTH116 - at every access
        except FileNotFoundError:
            return True

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        """Do what ends every transaction; a subclass may keep the file small here."""

    def _fact_of(self, name: str, value: object, proof: object) -> Any:
        text = self._rows.open_text(value, "fact", name)
        if not self._rows.is_sealed:
            self._rows.check(proof, "fact", name, text)
        return json.loads(text)

    def _bring_to_this_version(self) -> None:
        version = self._version()
        if version > SCHEMA_VERSION:
            raise StoreError(
                self.path,
                f"was written in schema version {version}, this fedcell reads {SCHEMA_VERSION}",
                "install the fedcell that wrote it, or a newer one",
            )
        if version < SCHEMA_VERSION:
            from .schema import climb

            # What is damaged must not be vouched for by the newest version.
            self._check_structure("integrity_check")
            with self.transaction() as connection:
                # Another process may have been quicker.
                climb(connection, self.path, from_version=self._version())
            self._after_migration()

    def _after_migration(self) -> None:
        """Do what a store of an earlier version lacks beside its file."""

    def _version(self) -> int:
        with named_errors(self.path):
            found = self._connection.execute("SELECT max(version) FROM schema_version").fetchone()
        if not isinstance(found[0], int) or found[0] < 1:
            remedy = "run: fedcell-device check --repair"
            raise StoreDamagedError(self.path, "is damaged (it has no schema version)", remedy)
        return found[0]

    def _unlock(self, key: bytes) -> SealedRows:
        found = self.rows("SELECT value FROM sealing WHERE name = 'key_id'")
        rows = SealedRows(self.path, key)
        if found == [(key_id(key),)]:
            return rows
        if self._opens_the_profile(rows):
            remedy = "run: fedcell-device check --repair"
            raise StoreDamagedError(self.path, "is damaged (the name of its key)", remedy)
        raise wrong_key(self.path)

    def _opens_the_profile(self, rows: SealedRows) -> bool:
        try:
            for (value,) in self.rows("SELECT value FROM fact WHERE name = 'profile'"):
                rows.open_text(value, "fact", "profile")
                return True
        except StoreDamagedError:
            pass
        return False


def write_fact(connection: sqlite3.Connection, rows: Rows, name: str, value: object) -> None:
    """Write a named value within the caller's transaction."""
    text = json.dumps(value)
    proof = None if rows.is_sealed else rows.proof("fact", name, text)
    connection.execute(
        "INSERT OR REPLACE INTO fact VALUES (?, ?, ?)",
        (name, rows.seal_text(text, "fact", name), proof),
    )


def create_store_file(
    path: Path, fill: Callable[[sqlite3.Connection, Rows], None], *, key: bytes | None = None
) -> None:
    """Make an empty store beside its final name, let `fill` write into it, rename it into place.

    Nobody but the user who made it can read it.

    Args:
        path: where it shall be; nothing is there.
        fill: writes into the new tables, in the same transaction.
        key: 32 bytes to seal the rows under; None leaves them in the clear.

    Raises:
        StoreError: something is at `path` already; it stays as it is.
        StoreBusyError: the folder cannot be written.
    """
    if path.exists():
        raise StoreError(path, "exists already", "choose another path, or remove it first")
    write_aside(path, fill, key=key)
    put_in_place(path)


def write_aside(
    path: Path, fill: Callable[[sqlite3.Connection, Rows], None], *, key: bytes | None
) -> None:
    """Make a whole store beside its final name; see `create_store_file`."""
    from .schema import climb

    aside = path.with_name(path.name + ASIDE)
    rows: Rows = PlainRows(path) if key is None else SealedRows(path, key)
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("", *JOURNALS):
            path.with_name(aside.name + ending).unlink(missing_ok=True)
        # SQLite gives its journals the mode of the file that they belong to.
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = connect(aside, is_new=True)
        try:
            connection.execute("BEGIN")
            climb(connection, path, from_version=0)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {int(rows.is_sealed)}")
            if key is not None:
                connection.execute("INSERT INTO sealing VALUES ('key_id', ?)", (key_id(key),))
            fill(connection, rows)
            connection.execute("COMMIT")
        finally:
            connection.close()


def put_in_place(path: Path) -> None:
    """Rename a store that was made aside to its name, and sync the folder.

    Raises:
        StoreBusyError: the folder cannot be written.
    """
    with named_errors(path):
        # A journal without its store would be played into the new one.
        for ending in JOURNALS:
            path.with_name(path.name + ending).unlink(missing_ok=True)
        path.with_name(path.name + ASIDE).replace(path)
        sync_folder(path.parent)
