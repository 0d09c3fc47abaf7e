"""What does it cost a device to keep a reading, and how much flash do two years of them take?

Against raw SQLite with the same settings (write-ahead log, synchronous FULL, one transaction, one
insert of the same bytes into the same table, which a ring by time has indexed by time), reading by
reading in turn, on the disk that the checkout is on: in memory a sync costs nothing, and the ratio
would be one of Python alone. The leanest table, without that index, is shown beside it.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.figures import Figures
from tests.support.system_parts import REPOSITORY

FIGURES = Figures("edge")
ROUNDS, READINGS_A_ROUND = 9, 100
WARM_UP = 1_200
"""Commits after which SQLite has moved its log into the file at least once."""
KEY = bytes(range(32))
LEAN_TABLE = (
    "CREATE TABLE reading"
    " (sequence INTEGER PRIMARY KEY, at_s INTEGER NOT NULL, measurements BLOB NOT NULL)"
)
TIME_INDEX = "CREATE INDEX reading_at ON reading (at_s)"
RAW = "raw SQLite: same settings, same table, one insert of the same bytes, in turn"
LEAN = "raw SQLite: same settings, table without its index by time, in turn"


@pytest.fixture
def disk():
    folder = REPOSITORY / "build"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield Path(made)


def raw_sqlite(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for statement in statements:
        connection.execute(statement)
    return connection


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rounds_of(disk):
    """Return the median of seconds a reading in each round, by kind of store."""
    for name in ("plain", "sealed", "limited"):
        (disk / name).mkdir()
    raw = {
        "raw": raw_sqlite(disk / "raw.db", LEAN_TABLE, TIME_INDEX),
        "lean": raw_sqlite(disk / "lean.db", LEAN_TABLE),
    }
    stores = {
        "plain": new_store(disk / "plain"),
        "sealed": new_store(disk / "sealed", key=lambda: KEY),
        "limited": new_store(disk / "limited", max_store_bytes=1_000_000),
    }
    packed = bytes(36)

    def insert(connection, at_s):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO reading (at_s, measurements) VALUES (?, ?)", (at_s, packed))
        connection.execute("COMMIT")

    life = iter(fading_life(days=(WARM_UP + ROUNDS * READINGS_A_ROUND) // 4))
    connections = [*raw.values(), *(store._connection for store in stores.values())]
    # All logs have reached their size then, and are written over: one that grows is slower.
    for connection in connections:
        connection.execute("PRAGMA synchronous = OFF")
    for reading in islice(life, WARM_UP):
        for connection in raw.values():
            insert(connection, int(reading.at.timestamp()))
        for store in stores.values():
            store.record(reading, now=NOW)
    for connection in connections:
        connection.execute("PRAGMA synchronous = FULL")
    found, random = [], Random(1)
    for _ in range(ROUNDS):
        seconds = {name: [] for name in (*raw, *stores)}
        for _ in range(READINGS_A_ROUND):
            reading = next(life)
            at_s = int(reading.at.timestamp())
            for name in random.sample(sorted(seconds), len(seconds)):
                if name in raw:
                    work = partial(insert, raw[name], at_s)
                else:
                    work = partial(stores[name].record, reading, now=NOW)
                seconds[name].append(timed(work))
        found.append({name: statistics.median(took) for name, took in seconds.items()})
    for connection in raw.values():
        connection.close()
    for store in stores.values():
        store.close()
    return found


def test_reading_is_written_nearly_as_quickly_as_sqlite_can(disk):
    found = rounds_of(disk)
    raw_us = [1e6 * took["raw"] for took in found]
    FIGURES.add(
        "raw_sqlite_write_us",
        statistics.median(raw_us),
        unit="us a reading",
        target=None,
        better="lower",
        spread=(min(raw_us), max(raw_us)),
    )
    for figure, name, against, target in (
        ("reading_write_ratio", "plain", "raw", 1.2),
        ("reading_write_ratio_lean_table", "plain", "lean", None),
        ("reading_write_ratio_sealed", "sealed", "raw", None),
        ("reading_write_ratio_limited", "limited", "raw", None),
    ):
        ratios = [took[name] / took[against] for took in found]
        ratio = statistics.median(ratios)
        FIGURES.add(
            figure,
            ratio,
            unit="times",
            target=target,
            better="lower",
            spread=(min(ratios), max(ratios)),
            against=RAW if against == "raw" else LEAN,
        )
        assert target is None or ratio <= target


@pytest.mark.parametrize("name", ["plain", "sealed"])
def test_two_years_of_readings_fit_in_a_megabyte(disk, name):
    key = (lambda: KEY) if name == "sealed" else None
    with new_store(disk, key=key) as store:
        store.record_many(fading_life(days=730), now=NOW)
    size = store.path.stat().st_size
    FIGURES.add(
        f"two_years_store_bytes_{name}", size, unit="bytes", target=1_000_000, better="lower"
    )
    assert size <= 1_000_000


def test_look_through_at_start_takes_little(disk):
    with new_store(disk) as store:
        store.record_many(fading_life(days=730), now=NOW)
    opened, looked = [], []
    for _ in range(9):
        start = time.perf_counter()
        with TelemetryStore(store.path) as again:
            opened.append(1e3 * (time.perf_counter() - start))
            looked.append(1e3 * timed(again.check))
            again.record(fading_life(days=1)[0], now=NOW + timedelta(days=1))
    for name, took in (("store_open_ms", opened), ("store_check_ms", looked)):
        FIGURES.add(
            name,
            statistics.median(took),
            unit="ms",
            target=None,
            better="lower",
            spread=(min(took), max(took)),
        )
    assert statistics.median(looked) < 20
