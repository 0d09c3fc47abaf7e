"""One database: opened by URL, brought to the newest revision, used in transactions."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import URL, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from ..errors import (
    StorageDriverError,
    StorageError,
    StorageMissingError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

MIGRATIONS = "server.storage:migrations"
REVISION_TABLE = "alembic_version"
LOCK_TIMEOUT_S = 10.0
_READS_ONLY = "fedcell_reads_only"


@dataclass(frozen=True, slots=True)
class Database:
    """An open database.

    Attributes:
        url: where it is, without a password.
        engine: SQLAlchemy's; several threads may use it.
    """

    url: str
    engine: Engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection; everything done with it is kept, or nothing.

        Raises:
            StorageUnavailableError: the database is locked, full or gone; nothing was written.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise StorageUnavailableError(
                self.url, _reason(error), "free space or start the database, then try again"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that reads beside whoever writes, also within their transaction.

        Raises:
            StorageUnavailableError: the database is gone.
        """
        try:
            with self.engine.connect() as opened:
                connection = opened.execution_options(**{_READS_ONLY: True})
                with connection.begin():
                    yield connection
        except OperationalError as error:
            remedy = "start the database, then try again"
            raise StorageUnavailableError(self.url, _reason(error), remedy) from error

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self.close()


def open_database(url: str, *, must_exist: bool = False) -> Database:
    """Open a database and bring its tables to the newest revision.

    Args:
        url: such as `sqlite:///hub.db` or `postgresql+psycopg://user@host/name`.
        must_exist: whether a file that is not there yet is refused instead of made.

    Raises:
        StorageMissingError: it must exist and does not.
        StorageError: the URL is none, or a later version of fedcell has changed the tables.
        StorageDriverError: the library for this kind of database is missing.
        StorageUnavailableError: it cannot be reached or written.
    """
    parsed, shown = _parse(url)
    if must_exist and parsed.get_backend_name() == "sqlite":
        file = parsed.database
        if not file or not Path(file).exists():
            remedy = "name the one that 'fedcell server run' wrote"
            raise StorageMissingError(shown, "there is no such file", remedy)
    try:
        engine = create_engine(parsed)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageDriverError(
            shown, str(error), "install the library for this kind of database"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_for_writing)
        _make_private(parsed.database)
    try:
        _migrate(engine, shown)
    except BaseException:
        engine.dispose()
        raise
    return Database(shown, engine)


def _make_private(file: str | None) -> None:
    """Make the file that SQLite would make, readable for nobody else; its journals follow."""
    if not file or file == ":memory:" or file.startswith("file:"):
        return
    # Where it cannot be made, SQLite says why.
    with suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _parse(url: str) -> tuple[URL, str]:
    try:
        parsed = make_url(url)
    except ArgumentError:
        remedy = "write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME"
        raise StorageError(url, "is no database URL", remedy) from None
    return parsed, parsed.render_as_string(hide_password=True)


def _migrate(engine: Engine, shown: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    try:
        with engine.begin() as connection:
            _refuse_foreign_tables(connection, shown)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        if engine.dialect.name == "sqlite":
            _write_ahead(engine)
    except CommandError as error:
        remedy = "use the version of fedcell that wrote it, or a newer one"
        raise StorageError(shown, str(error), remedy) from None
    except OperationalError as error:
        remedy = "check that the folder exists and can be written, and the server runs"
        raise StorageUnavailableError(shown, _reason(error), remedy) from None
    except DBAPIError as error:
        remedy = "name another file; fedcell does not touch what it did not make"
        raise StorageError(shown, _reason(error), remedy) from None


def _refuse_foreign_tables(connection: Connection, shown: str) -> None:
    tables = inspect(connection).get_table_names()
    if tables and REVISION_TABLE not in tables:
        remedy = "name another database; fedcell does not touch what it did not make"
        raise StorageError(shown, f"holds tables of something else ({tables[0]})", remedy)


def _write_ahead(engine: Engine) -> None:
    # Kept in the file; it cannot be set within a transaction.
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # SQLAlchemy begins transactions, not the driver: see _begin_for_writing.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {round(LOCK_TIMEOUT_S * 1000)}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_for_writing(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once where another wrote between.
    reads_only = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _reason(error: DBAPIError) -> str:
    cause: Any = error.orig if error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__
