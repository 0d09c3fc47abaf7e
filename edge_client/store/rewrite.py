"""A store written anew under another key: to seal one in the clear, to change a key, to unseal.

Every row is opened and written into a new file aside, which is looked through and renamed into
place: at any moment there is one whole store. The old file is gone then, with its pages; what
flash keeps of blocks that a file has given back is beyond any program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StoreBusyError, StoreDamagedError
from ..telemetry_store import TelemetryStore
from .access import named_errors
from .quarantine import files_of, folder_lock, quarantined
from .reading_ring import FIRST_DAY
from .reading_rules import with_checksum
from .row_cipher import read_key
from .sqlite_file import ASIDE, put_in_place, write_aside, write_fact

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from .row_cipher import KeySource, Rows

_AS_THEY_ARE = ("refusal", "traffic")


def rewrite_store(path: Path, *, key: KeySource | None, new_key: KeySource | None) -> None:
    """Write a store anew under another key; no other process may have it open.

    Damaged stores that were set aside earlier are removed where they are in the clear and the new
    store is not. A second call finishes what a power cut left.

    Args:
        path: of the store.
        key: under which it is now; None for one in the clear.
        new_key: returns the 32 bytes to seal it under; None writes it in the clear.

    Raises:
        StoreKeyError: `key` is not the store's.
        StoreBusyError: another process has the store open, or the disk refuses; it is unchanged.
        StoreDamagedError: it is damaged; it is unchanged.
    """
    secret = None if new_key is None else read_key(path, new_key)
    with folder_lock(path), TelemetryStore(path, key=key) as old:
        old.check()
        _hold_alone(old)
        write_aside(path, lambda connection, rows: _copy(old, connection, rows), key=secret)
        with TelemetryStore(path.with_name(path.name + ASIDE), key=new_key) as new:
            new.check()
            if new.num_readings() != old.num_readings():
                raise StoreDamagedError(path, "could not be copied whole", "try again")
        put_in_place(path)
    finish_rewrite(path, new_key=new_key)


def finish_rewrite(path: Path, *, new_key: KeySource | None) -> None:
    """Bring what is beside a store under its key, too.

    Raises:
        StoreKeyError: `new_key` is not the store's.
    """
    with TelemetryStore(path, key=new_key) as new:
        new.keep_profile_copy()
    if new_key is not None:
        with named_errors(path):
            for damaged in quarantined(path):
                for file in files_of(damaged):
                    file.unlink()


def _hold_alone(store: TelemetryStore) -> None:
    # Without a journal of its own, the file alone is the whole store, and can be replaced. Looked
    # at twice: between the two another process may have opened it, and begun a journal again.
    alone = [("delete",)]
    with named_errors(store.path):
        is_alone = store.rows("PRAGMA journal_mode = DELETE") == alone
        if is_alone:
            store.rows("BEGIN EXCLUSIVE")
            is_alone = store.rows("PRAGMA journal_mode") == alone
    if not is_alone:
        raise StoreBusyError(store.path, "is open in another process", "stop it, and try again")


def _copy(old: TelemetryStore, connection: sqlite3.Connection, rows: Rows) -> None:
    for name, value in old.facts().items():
        write_fact(connection, rows, name, value)
    _copy_readings(old, connection, rows)
    _copy_messages(old, connection, rows)
    for table in _AS_THEY_ARE:
        for row in old.rows(f"SELECT * FROM {table}"):  # noqa: S608 - names of ours
            places = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} VALUES ({places})", row)  # noqa: S608
    # A number is never used twice, also where the last message is gone.
    for numbered in old.rows("SELECT * FROM sqlite_sequence"):
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", numbered[:1])
        connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", numbered)


def _copy_readings(old: TelemetryStore, connection: sqlite3.Connection, rows: Rows) -> None:
    connection.executemany(
        "INSERT INTO reading VALUES (?, ?, ?)",
        (
            (
                number,
                at_s,
                rows.seal(packed, "reading", number, at_s)
                if rows.is_sealed
                else with_checksum(packed, at_s),
            )
            for number, at_s, packed in old.packed_readings()
        ),
    )
    connection.executemany(
        "INSERT INTO day VALUES (?, ?)",
        ((day, rows.seal(values, "day", day)) for day, values in old.day_rows(FIRST_DAY)),
    )


def _copy_messages(old: TelemetryStore, connection: sqlite3.Connection, rows: Rows) -> None:
    for purpose, granted, at_s in old.rows("SELECT purpose, granted, changed_at_s FROM consent"):
        row = (purpose, granted, at_s)
        proof = rows.proof("consent", *row)
        connection.execute("INSERT INTO consent VALUES (?, ?, ?, ?)", (*row, proof))
    for message in old.outbox():
        place = (message.number, message.purpose.value, message.topic)
        sealed = rows.seal(message.payload, "outbox", *place)
        connection.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (*place, sealed))
    for notice in old.notices():
        known = (notice.message_id, notice.sequence, int(notice.received_at.timestamp()))
        state = rows.seal_text(notice.state.value, "state", notice.message_id, notice.version)
        body = rows.seal_text(notice.body, "notice", *known)
        connection.execute(
            "INSERT INTO notice VALUES (?, ?, ?, ?, ?, ?)", (*known, state, notice.version, body)
        )
