"""Opening a store that may be damaged: set aside, and begun anew with what is vouched for.

What a fresh store begins with: profile, language, quiet hours and limits (from the copy beside the
store, which proves itself, else from the damaged file), the pack's references, the owner's words
that a battery failed, and each consent, where they prove themselves intact. Readings, notices and
waiting messages stay in the file that was set aside. Identity, models and the privacy ledger have
their own files and are not touched.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import StoreDamagedError, StoreError, StoreForeignError, StoreMissingError
from ..telemetry_store import TelemetryStore
from .access import connect, disk_full, named_errors, open_ours, read_only
from .device_facts import known_language, profile_of
from .mailbox import Purpose
from .profile_copy import COPIED, read_profile_copy
from .quarantine import folder_lock, make_place, set_aside
from .row_cipher import PlainRows, SealedRows, read_key
from .sqlite_file import put_in_place, write_aside, write_fact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from .row_cipher import KeySource, Rows

SALVAGED = (
    *COPIED,
    "pack_references",
    "owner_failures",
    "recoveries",
    "identity",
    "configuration",
    "band_noise",
    "gauge_history",
)
"""The named values that a fresh store takes over where they are intact: what binds the keys to it,
what stops it from afar, the noise that must not be drawn twice, and what time has told."""

_SHOWN_RECOVERIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What was done about a damaged store.

    Attributes:
        at: when.
        damage: what was found.
        set_aside: where the damaged file is now, None where there was none left.
        consents_kept: purposes whose consent was readable intact; the others are not granted.
    """

    at: datetime
    damage: str
    set_aside: Path | None
    consents_kept: tuple[str, ...]


@dataclass(slots=True)
class _Salvage:
    facts: dict[str, Any] = field(default_factory=dict)
    consents: list[tuple[str, int, int]] = field(default_factory=list)


def open_or_recover(
    path: Path, now: datetime, key: KeySource | None = None
) -> tuple[TelemetryStore, Recovery | None]:
    """Open a store and look through it; set it aside and begin anew where it is damaged.

    A key that is missing or wrong, a newer version, a busy disk and another program's file are
    errors, and never a reason to begin anew.

    Args:
        path: of the store.
        now: aware time.
        key: as for `TelemetryStore`.

    Returns:
        The open store, and what was done, None where it was sound.

    Raises:
        StoreError: the store cannot be used, and nothing was changed.
    """
    if not path.parent.is_dir():
        return TelemetryStore(path, key=key), None
    # Held from the first look on: a file that is being moved away looks like a broken disk.
    with folder_lock(path):
        try:
            return _sound(path, key), None
        except (StoreDamagedError, StoreForeignError, StoreMissingError) as damage:
            if not isinstance(damage, StoreDamagedError) and read_profile_copy(path) is None:
                raise
            return _begin_anew(path, damage, now=now, key=key)


def recoveries(store: TelemetryStore) -> tuple[int, list[dict[str, Any]]]:
    """Return how often this device's store was begun anew, and the last few times.

    Args:
        store: open.

    Returns:
        The count, and for each of the last ones: at, damage, set_aside, consents_kept.
    """
    said = store.fact("recoveries") or {"count": 0, "last": []}
    return int(said["count"]), list(said["last"])


def _sound(path: Path, key: KeySource | None) -> TelemetryStore:
    store = TelemetryStore(path, key=key)
    if store.is_read_only:
        store.close()
        raise read_only(path)
    if store.is_alone:
        store.close()
        raise disk_full(path)
    try:
        store.check()
        # A power cut may have come between the store, or its sealing, and the copy.
        if not store.has_profile_copy():
            store.keep_profile_copy()
    except BaseException:
        store.close()
        raise
    return store


def _begin_anew(
    path: Path, damage: StoreError, *, now: datetime, key: KeySource | None
) -> tuple[TelemetryStore, Recovery]:
    secret = read_key(path, key) if _is_sealed(path) else None
    rows: Rows = PlainRows(path) if secret is None else SealedRows(path, secret)
    with _held(path) as connection:
        found = _salvage(path, connection, rows)
        make_place(path)
        recovery = _replace(path, found, damage, now=now, secret=secret)
    put_in_place(path)
    store = TelemetryStore(path, key=key if secret is not None else None)
    store.keep_profile_copy()
    return store, recovery


def _replace(
    path: Path, found: _Salvage, damage: StoreError, *, now: datetime, secret: bytes | None
) -> Recovery:
    """Make the fresh store aside, then move the damaged one away."""
    what = str(damage).removeprefix(f"{path}: ").partition("; ")[0]
    kept = tuple(purpose for purpose, _, _ in found.consents)
    before = found.facts.pop("recoveries", None) or {"count": 0, "last": []}

    def fill(connection: sqlite3.Connection, rows: Rows) -> None:
        said = {"at": now.isoformat(), "damage": what, "consents_kept": list(kept)}
        last = [*before["last"], said][-_SHOWN_RECOVERIES:]
        counted = {"count": before["count"] + 1, "last": last}
        for name, value in {**found.facts, "recoveries": counted}.items():
            write_fact(connection, rows, name, value)
        for row in found.consents:
            proof = rows.proof("consent", *row)
            connection.execute("INSERT INTO consent VALUES (?, ?, ?, ?)", (*row, proof))

    write_aside(path, fill, key=secret)
    place = set_aside(path, now=now)
    return Recovery(at=now, damage=what, set_aside=place, consents_kept=kept)


def _is_sealed(path: Path) -> bool:
    try:
        opened = open_ours(path)
        opened.connection.close()
    except (StoreDamagedError, StoreForeignError, StoreMissingError):
        copy = read_profile_copy(path)
        return copy is not None and copy.is_sealed
    return opened.is_sealed


@contextmanager
def _held(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Hold the write lock of a damaged store, as far as it still has one."""
    connection = None
    if path.exists():
        with suppress(StoreDamagedError), named_errors(path):
            connection = connect(path)
            connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _salvage(path: Path, connection: sqlite3.Connection | None, rows: Rows) -> _Salvage:
    found = _Salvage()
    if connection is not None:
        for name in SALVAGED:
            with suppress(sqlite3.Error, StoreDamagedError, ValueError):
                found.facts |= _intact_fact(connection, rows, name)
        with suppress(sqlite3.Error, ValueError):
            found.consents = _intact_consents(connection, rows)
    copy = read_profile_copy(path)
    found.facts |= (copy and copy.facts(rows)) or {}
    found.facts.setdefault("quiet_hours", None)
    found.facts.setdefault("max_store_bytes", None)
    try:
        profile_of(found.facts["profile"])
        known_language(found.facts.setdefault("language", "en"))
        found.facts["retention_days"] = int(found.facts.get("retention_days") or 730)
    except (KeyError, TypeError, ValueError):
        raise StoreDamagedError(
            path,
            "is damaged, and the device's profile can be read from nowhere",
            "move the file away, and run: fedcell-device init",
        ) from None
    return found


def _intact_fact(connection: sqlite3.Connection, rows: Rows, name: str) -> dict[str, Any]:
    """Read one named value that proves itself; one of version 1 proves nothing and is only read."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(fact)")}
    selected = "value, proof" if "proof" in columns else "value, NULL"
    query = f"SELECT {selected} FROM fact WHERE name = ?"  # noqa: S608 - names of ours
    for value, proof in connection.execute(query, (name,)):
        text = rows.open_text(value, "fact", name)
        if "proof" in columns and not rows.is_sealed:
            rows.check(proof, "fact", name, text)
        if "proof" in columns or name in COPIED:
            return {name: json.loads(text)}
    return {}


def _intact_consents(connection: sqlite3.Connection, rows: Rows) -> list[tuple[str, int, int]]:
    intact = []
    for purpose in Purpose:
        query = "SELECT * FROM consent WHERE purpose = ?"
        for *row, proof in connection.execute(query, (purpose.value,)).fetchall():
            with suppress(StoreDamagedError):
                rows.check(proof, "consent", *row)
                intact.append(tuple(row))
    return intact
