"""The tables of a store, as a ladder of versions: a new store climbs it too, from the first rung.

A step is never changed once stores of its version exist; a later version is one step more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .row_cipher import PlainRows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from pathlib import Path

_VERSION_1 = """
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
INSERT INTO schema_version VALUES (1);
"""
# Without AUTOINCREMENT a reading writes one page less. The reading recorded last never leaves
# before a later one is there, so its number is not used again.
_VERSION_2 = """
CREATE TABLE numbered_reading (
    sequence INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL,
    measurements BLOB NOT NULL -- little-endian float32, in the order of MEASUREMENTS, NaN = missing
);
INSERT INTO numbered_reading SELECT * FROM reading ORDER BY sequence;
DROP TABLE reading;
ALTER TABLE numbered_reading RENAME TO reading;
CREATE INDEX reading_at ON reading (at_s);
ALTER TABLE fact ADD COLUMN proof BLOB;
ALTER TABLE consent ADD COLUMN proof BLOB;
CREATE TABLE day (day INTEGER PRIMARY KEY, "values" BLOB NOT NULL);
CREATE TRIGGER late_reading AFTER INSERT ON reading BEGIN
    DELETE FROM day WHERE day >= (new.at_s + 86399) / 86400; END;
CREATE TABLE traffic (
    day INTEGER NOT NULL,
    direction TEXT NOT NULL,
    kind TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (day, direction, kind)
) WITHOUT ROWID;
CREATE TABLE sealing (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
UPDATE schema_version SET version = 2;
"""


def _to_version_1(connection: sqlite3.Connection, _path: Path) -> None:
    _execute(connection, _VERSION_1)


def _to_version_2(connection: sqlite3.Connection, path: Path) -> None:
    _execute(connection, _VERSION_2)
    rows = PlainRows(path)
    for name, value in connection.execute("SELECT name, value FROM fact").fetchall():
        connection.execute(
            "UPDATE fact SET proof = ? WHERE name = ?", (rows.proof("fact", name, value), name)
        )
    consents = connection.execute("SELECT purpose, granted, changed_at_s FROM consent").fetchall()
    for said in consents:
        connection.execute(
            "UPDATE consent SET proof = ? WHERE purpose = ?",
            (rows.proof("consent", *said), said[0]),
        )


_STEPS: Mapping[int, Callable[[sqlite3.Connection, Path], None]] = {
    1: _to_version_1,
    2: _to_version_2,
}


def climb(connection: sqlite3.Connection, path: Path, *, from_version: int) -> None:
    """Bring the tables to the newest version, within the caller's transaction.

    Args:
        connection: in a transaction; a crash before its end leaves the old version.
        path: of the store, for errors.
        from_version: of the tables as they are; 0 where there are none.
    """
    for version, step in _STEPS.items():
        if version > from_version:
            step(connection, path)


def _execute(connection: sqlite3.Connection, script: str) -> None:
    # `executescript` would commit the caller's transaction.
    for statement in script.split(";\n"):
        connection.execute(statement)
