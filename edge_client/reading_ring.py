"""The readings of one device: a ring by age and by size, checked at its door."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from models.telemetry import (
    MEASUREMENTS,
    SECONDS_PER_DAY,
    Reading,
    Telemetry,
)

from .device_facts import DeviceFacts
from .errors import ReadingRefusedError, StoreBusyError
from .reading_rules import PACKED_BYTES, checked_reading
from .row_cipher import believed, damaged_row
from .store_access import REFUSALS, raise_named
from .store_size import limit_journal, stay_below

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from models.featurize import PackReferences

KEPT_DAY_ROWS = 2
"""Days whose rows stay beside the latest: where that one goes, an earlier one may still serve."""
FIRST_DAY = -(2**62)
"""Before any day that a row can be of."""

_EXPIRED_PER_READING = 8
_INSERT = "INSERT INTO reading (at_s, measurements) VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of many readings.

    Attributes:
        num_kept: readings that were stored.
        refused: readings that were refused, by reason.
        first_refused: for each reason the position of its first reading, from 0, and the refusal.
    """

    num_kept: int
    refused: Mapping[str, int] = field(default_factory=dict)
    first_refused: Mapping[str, tuple[int, ReadingRefusedError]] = field(default_factory=dict)


class ReadingRing(DeviceFacts):
    """The part of a store that keeps readings, and the daily rows that are computed from them.

    Under a key the measurements are sealed and their times stand in the clear, bound to them.

    Args:
        path: an existing store.
        key: as for `StoreFile`.
    """

    _alone_until_s: float
    """Until when nothing can expire, and nothing else belongs to the write of a reading."""
    _manufactured_at_s: float | None
    _is_journal_limited: bool

    def record(self, reading: Reading, *, now: datetime) -> None:
        """Store one reading durably, and let a few expired ones go.

        Args:
            reading: what the gauge said.
            now: the device's time; decides what is in the future and what has expired.

        Raises:
            ReadingRefusedError: the reading breaks a rule; it was counted.
            StoreBusyError: the disk is full or refuses; nothing was written.
        """
        now_s, at_s = now.timestamp(), reading.at.timestamp()
        packed = checked_reading(reading, at_s=at_s, now_s=now_s, made_at_s=self._made_at_s())
        if isinstance(packed, bytes) and self._record_alone(int(at_s), packed, now_s=now_s):
            return
        with self.transaction() as connection:
            if isinstance(packed, bytes):
                self._insert(connection, [(int(at_s), packed)])
                self._expire(connection, now_s=now_s, num_recorded=1)
            else:
                _count_refusals(connection, {packed.reason: 1})
        if isinstance(packed, ReadingRefusedError):
            raise packed

    def record_many(
        self, readings: Iterable[Reading | ReadingRefusedError], *, now: datetime
    ) -> Recording:
        """Store readings in one transaction: all that pass, or nothing where the disk fails.

        Args:
            readings: what the gauge said; a refusal in their place, as a reader of files makes it,
                is counted.
            now: as in `record`.

        Returns:
            How many were kept, and how many were refused for which reason.
        """
        now_s, made_at_s = now.timestamp(), self._made_at_s()
        kept: list[tuple[int, bytes]] = []
        refused: dict[str, int] = {}
        first_refused: dict[str, tuple[int, ReadingRefusedError]] = {}
        for position, reading in enumerate(readings):
            packed: bytes | ReadingRefusedError
            if isinstance(reading, ReadingRefusedError):
                packed = reading
            else:
                at_s = reading.at.timestamp()
                packed = checked_reading(reading, at_s=at_s, now_s=now_s, made_at_s=made_at_s)
                if isinstance(packed, bytes):
                    kept.append((int(at_s), packed))
                    continue
            refused[packed.reason] = refused.get(packed.reason, 0) + 1
            first_refused.setdefault(packed.reason, (position, packed))
        with self.transaction() as connection:
            self._insert(connection, kept)
            _count_refusals(connection, refused)
            self._expire(connection, now_s=now_s, num_recorded=len(kept))
        return Recording(len(kept), refused, first_refused)

    def count_refusal(self, reason: str) -> None:
        """Count an input that never became a `Reading`, such as a time without a zone."""
        with self.transaction() as connection:
            _count_refusals(connection, {reason: 1})

    def telemetry(self, *, since: datetime | None = None) -> Telemetry:
        """Return the stored readings in the order in which they were recorded.

        Args:
            since: leaves out readings that claim an earlier time; None returns all.

        Raises:
            StoreDamagedError: a reading is not the one that was recorded.
        """
        return self._readings_where("at_s", FIRST_DAY if since is None else _seconds(since))[1]

    def telemetry_from(self, sequence: int) -> tuple[NDArray[np.int64], Telemetry]:
        """Return the readings recorded from a number on, in the order of recording.

        Args:
            sequence: the first number; numbers grow by one a reading and are never used twice.

        Returns:
            Their numbers, int64, shape (n_readings,), and the readings.

        Raises:
            StoreDamagedError: a reading is not the one that was recorded.
        """
        return self._readings_where("sequence", sequence)

    def last_sequence(self) -> int:
        """Return the number of the reading that was recorded last, 0 where there is none."""
        return int(self.rows("SELECT coalesce(max(sequence), 0) FROM reading")[0][0])

    def num_readings(self) -> int:
        """Return how many readings are stored."""
        return int(self.rows("SELECT count(*) FROM reading")[0][0])

    def refusals(self) -> dict[str, int]:
        """Return how many readings were refused since the store was made, by reason."""
        return dict(self.rows("SELECT reason, num_readings FROM refusal ORDER BY reason"))

    def first_reading_at(self) -> datetime | None:
        """Return the earliest time that a stored reading claims, None where there is none."""
        at_s = self.rows("SELECT min(at_s) FROM reading")[0][0]
        with believed(self.path, "reading"):
            return None if at_s is None else datetime.fromtimestamp(at_s, UTC)

    def references_beyond_the_ring(self) -> PackReferences | None:
        """Return the kept references once the ring has lost the pack's first readings.

        None while it still shows them: then they are computed anew, as everywhere else.
        """
        references, first = self.references(), self.first_reading_at()
        if references is None or first is None or _seconds(first) <= references.since_s:
            return None
        return references

    def day_rows(self, first_day: int) -> list[tuple[int, bytes]]:
        """Return the daily rows that were kept, the earliest first.

        Args:
            first_day: number of the first day; a day is named by the midnight UTC that ends it,
                in days since the Unix epoch, and holds that midnight.
        """
        query = 'SELECT day, "values" FROM day WHERE day >= ? ORDER BY day'
        return [
            (day, self._rows.open(values, "day", day))
            for day, values in self.rows(query, first_day)
        ]

    def keep_day_rows(
        self, rows: Sequence[tuple[int, bytes]], *, after_sequence: int | None = None
    ) -> None:
        """Keep daily rows; they are forgotten when a reading of their days is recorded later.

        Args:
            rows: day and content.
            after_sequence: number of the last reading that they were computed from: where another
                process has recorded a later one, rows from its day on are not kept. None: all are.
        """
        with self.transaction() as connection:
            stale_from = None
            if after_sequence is not None:
                query = "SELECT min(at_s) FROM reading WHERE sequence > ?"
                stale_from = connection.execute(query, (after_sequence,)).fetchone()[0]
            if rows:
                connection.execute("DELETE FROM day WHERE day < ?", (rows[0][0] - KEPT_DAY_ROWS,))
            connection.executemany(
                "INSERT OR REPLACE INTO day VALUES (?, ?)",
                [
                    (day, self._rows.seal(values, "day", day))
                    for day, values in rows
                    if stale_from is None or day < day_of(stale_from)
                ],
            )

    def forget_day_rows(self, from_day: int) -> None:
        """Forget the daily rows from a day on."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM day WHERE day >= ?", (from_day,))

    def check(self) -> None:
        """Look through the whole file: its structure, and every value that proves itself.

        Raises:
            StoreDamagedError: with the first damage found.
        """
        super().check()
        if self.is_sealed:
            self.telemetry()
            self.day_rows(FIRST_DAY)

    def _open(self) -> None:
        self._alone_until_s = -math.inf
        self._manufactured_at_s = None
        self._is_journal_limited = False
        super()._open()

    def packed_readings(
        self, column: str = "sequence", least: int = 0
    ) -> list[tuple[int, int, bytes]]:
        """Return number, time (seconds since the epoch) and packed values of readings.

        Args:
            column: `sequence` or `at_s`.
            least: leaves out readings in which the column is smaller.

        Raises:
            StoreDamagedError: a reading is not the one that was recorded.
        """
        rows = self.rows(
            "SELECT sequence, at_s, measurements FROM reading"  # noqa: S608 - a name of ours
            # Found by its index: SQLite would rather look at all readings in their order.
            f" WHERE sequence IN (SELECT sequence FROM reading WHERE {column} >= ?)"
            " ORDER BY sequence",
            least,
        )
        opened = self._rows.open
        found = [(row[0], row[1], opened(row[2], "reading", row[0], row[1])) for row in rows]
        if any(len(packed) != PACKED_BYTES for _, _, packed in found):
            raise damaged_row(self.path, "reading")
        return found

    def _readings_where(self, column: str, least: int) -> tuple[NDArray[np.int64], Telemetry]:
        import numpy as np

        found = self.packed_readings(column, least)
        with believed(self.path, "reading"):
            values = np.frombuffer(b"".join(row[2] for row in found), "<f4")
            telemetry = Telemetry(
                device_ids=(self.profile.device_id,),
                offsets=np.array([0, len(found)], np.int64),
                at_s=np.array([row[1] for row in found], np.int64),
                values=values.reshape(len(found), len(MEASUREMENTS)),
            )
            return np.array([row[0] for row in found], np.int64), telemetry

    def _record_alone(self, at_s: int, packed: bytes, *, now_s: float) -> bool:
        """Write one reading in a transaction of SQLite's own, where no other write belongs to it.

        Returns:
            False where something else belongs to it, or where the file was replaced meanwhile:
            then it is to be written, in the second case once more.
        """
        alone_until_s, connection = self._alone_until_s, self._connection
        if now_s > alone_until_s or connection.in_transaction:
            return False
        try:
            connection.execute(_INSERT, (at_s, packed))
            if self._is_replaced():
                self._open_anew()
                return False
        except REFUSALS as error:
            raise_named(self.path, error)
        expires_s = at_s + self.retention_days * SECONDS_PER_DAY
        if expires_s < alone_until_s:
            self._alone_until_s = expires_s
        return True

    def _made_at_s(self) -> float:
        if self._manufactured_at_s is None:
            self._manufactured_at_s = self.profile.manufactured_at.timestamp()
        return self._manufactured_at_s

    def _insert(self, connection: sqlite3.Connection, readings: list[tuple[int, bytes]]) -> None:
        if not readings:
            return
        if self.is_sealed:
            last = connection.execute("SELECT max(sequence) FROM reading").fetchone()[0]
            connection.executemany(
                "INSERT INTO reading VALUES (?, ?, ?)",
                [
                    (number, at_s, self._rows.seal(packed, "reading", number, at_s))
                    for number, (at_s, packed) in enumerate(readings, (last or 0) + 1)
                ],
            )
        else:
            connection.executemany(_INSERT, readings)

    def _expire(self, connection: sqlite3.Connection, *, now_s: float, num_recorded: int) -> None:
        # A few a time: a clock that jumps years ahead must not empty the store.
        oldest_s = connection.execute("SELECT min(at_s) FROM reading").fetchone()[0]
        retention_s = self.retention_days * SECONDS_PER_DAY
        limit_s = int(now_s) - retention_s
        if oldest_s is None or oldest_s >= limit_s:
            is_plain_ring = not self._rows.is_sealed and self.max_store_bytes is None
            if is_plain_ring and oldest_s is not None:
                self._alone_until_s = oldest_s + retention_s
            return
        self._alone_until_s = -math.inf
        few = _EXPIRED_PER_READING * num_recorded
        connection.execute(
            "DELETE FROM reading WHERE sequence IN"
            " (SELECT sequence FROM reading WHERE at_s < ? ORDER BY at_s LIMIT ?)"
            " AND sequence < (SELECT max(sequence) FROM reading)",
            (limit_s, few),
        )
        connection.execute(
            "DELETE FROM day WHERE day IN (SELECT day FROM day WHERE day < ? ORDER BY day LIMIT ?)",
            (day_of(limit_s), few),
        )

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        limit = self.max_store_bytes
        if limit is None:
            return
        if not self._is_journal_limited:
            limit_journal(connection)
            self._is_journal_limited = True
        if not stay_below(connection, limit):
            raise StoreBusyError(
                self.path, f"has reached its limit of {limit} bytes", "raise max_store_bytes"
            )


def day_of(at_s: int) -> int:
    """Return the number of the day that a moment belongs to: of the midnight UTC that ends it."""
    return -(-at_s // SECONDS_PER_DAY)


def _count_refusals(connection: sqlite3.Connection, refused: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO refusal VALUES (?, ?) ON CONFLICT (reason)"
        " DO UPDATE SET num_readings = num_readings + excluded.num_readings",
        list(refused.items()),
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
