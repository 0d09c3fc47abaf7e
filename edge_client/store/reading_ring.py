"""The readings of one device: a ring by age and by size, checked at its door."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from models.telemetry import (
    MEASUREMENTS,
    SECONDS_PER_DAY,
    Reading,
    Telemetry,
    day_of,
)

from ..errors import ReadingRefusedError, StoreBusyError
from .access import REFUSALS, raise_named
from .clock import age_limit
from .device_facts import DeviceFacts
from .reading_rules import (
    CLOCK_TOLERANCE_S,
    PACKED_BYTES,
    checked_reading,
    packed_values,
    with_checksum,
    without_checksum,
)
from .row_cipher import believed, damaged_row
from .size_limit import limit_journal, stay_below

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
_MOST_LOOKED_AT = 4_096
_NEVER = (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))
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

    _alone_from: datetime
    _alone_until: datetime
    """Between the two no rule of time is broken and nothing expires: a reading stands alone."""
    _journal_limited_for: tuple[int | None] | None
    _covered: tuple[int, int] | None
    """When it was looked at last, seconds, and how far back readings had to stay from then on."""

    def record(self, reading: Reading, *, now: datetime) -> None:
        """Store one reading durably, and let a few expired ones go.

        Args:
            reading: what the gauge said.
            now: the device's time; decides what is in the future and what has expired.

        Raises:
            ReadingRefusedError: the reading breaks a rule; it was counted.
            StoreBusyError: the disk is full or refuses; nothing was written.
        """
        if self._alone_from <= reading.at <= now <= self._alone_until:
            alone = packed_values(reading)
            connection = self._connection
            if isinstance(alone, bytes) and not connection.in_transaction:
                # A transaction of SQLite's own: nothing else belongs to this write.
                at_s = int(reading.at.timestamp())
                try:
                    connection.execute(_INSERT, (at_s, with_checksum(alone, at_s)))
                    if not self._is_replaced():
                        return
                    # It was written to a file that another one has taken the place of.
                    self._open_anew()
                except REFUSALS as error:
                    if not self._make_room(error):
                        raise_named(self.path, error)
        packed = checked_reading(reading, now=now, made_at=self.profile.manufactured_at)
        if isinstance(packed, ReadingRefusedError):
            self.count_refusal(packed.reason)
            raise packed
        self._keep([(_seconds(reading.at), packed)], {}, now=now)

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
        made_at = self.profile.manufactured_at
        kept: list[tuple[int, bytes]] = []
        refused: dict[str, int] = {}
        first_refused: dict[str, tuple[int, ReadingRefusedError]] = {}
        for position, reading in enumerate(readings):
            packed: bytes | ReadingRefusedError
            if isinstance(reading, ReadingRefusedError):
                packed = reading
            else:
                packed = checked_reading(reading, now=now, made_at=made_at)
                if isinstance(packed, bytes):
                    kept.append((_seconds(reading.at), packed))
                    continue
            refused[packed.reason] = refused.get(packed.reason, 0) + 1
            first_refused.setdefault(packed.reason, (position, packed))
        self._keep(kept, refused, now=now)
        return Recording(len(kept), refused, first_refused)

    def _keep(
        self, kept: list[tuple[int, bytes]], refused: Mapping[str, int], *, now: datetime
    ) -> None:
        try:
            self._keep_once(kept, refused, now=now)
        except StoreBusyError as error:
            if not self._make_room(error.__cause__):
                raise
            self._keep_once(kept, refused, now=now)

    def _keep_once(
        self, kept: list[tuple[int, bytes]], refused: Mapping[str, int], *, now: datetime
    ) -> None:
        with self.transaction() as connection:
            self._insert(connection, kept)
            _count_refusals(connection, refused)
            self._expire(connection, now=now, num_recorded=len(kept))

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
        since_s = None if since is None else _seconds(since)
        return self._table_of(self.packed_readings(since_s=since_s))[1]

    def telemetry_from(self, sequence: int) -> tuple[NDArray[np.int64], Telemetry]:
        """Return the readings recorded from a number on, in the order of recording.

        Args:
            sequence: the first number; numbers grow by one a reading and are never used twice.

        Returns:
            Their numbers, int64, shape (n_readings,), and the readings.

        Raises:
            StoreDamagedError: a reading is not the one that was recorded.
        """
        return self._table_of(self.packed_readings(first_sequence=sequence))

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

        They can be computed again: another process that holds the store is waited for briefly.

        Args:
            rows: day and content.
            after_sequence: number of the last reading that they were computed from: where another
                process has recorded a later one, rows from its day on are not kept. None: all are.

        Raises:
            StoreBusyError: the disk refuses, or another process holds the store.
        """
        with self.waiting_briefly(), self.transaction() as connection:
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
        self.telemetry()
        self.day_rows(FIRST_DAY)

    def _open(self) -> None:
        self._alone_from, self._alone_until = _NEVER
        self._journal_limited_for = None
        self._covered = None
        super()._open()

    def packed_readings(
        self, *, first_sequence: int = 0, since_s: int | None = None
    ) -> list[tuple[int, int, bytes]]:
        """Return number, time (seconds since the Unix epoch) and packed values of readings.

        Args:
            first_sequence: leaves out readings with a smaller number.
            since_s: leaves out readings that claim an earlier time.

        Raises:
            StoreDamagedError: a reading is not the one that was recorded.
        """
        query, least = "sequence >= ?", first_sequence
        if since_s is not None:
            # Found by its index: SQLite would rather look at all readings in their order.
            query, least = "sequence IN (SELECT sequence FROM reading WHERE at_s >= ?)", since_s
        rows = self.rows(
            "SELECT sequence, at_s, measurements FROM reading"  # noqa: S608 - words of ours
            f" WHERE {query} ORDER BY sequence",
            least,
        )
        if self._rows.is_sealed:
            opened = self._rows.open
            found = [(row[0], row[1], opened(row[2], "reading", row[0], row[1])) for row in rows]
        else:
            with believed(self.path, "reading"):
                found = [(row[0], row[1], without_checksum(row[2], row[1])) for row in rows]
        if any(len(packed) != PACKED_BYTES for _, _, packed in found):
            raise damaged_row(self.path, "reading")
        return found

    def _table_of(self, found: list[tuple[int, int, bytes]]) -> tuple[NDArray[np.int64], Telemetry]:
        import numpy as np

        with believed(self.path, "reading"):
            values = np.frombuffer(b"".join(row[2] for row in found), "<f4")
            telemetry = Telemetry(
                device_ids=(self.profile.device_id,),
                offsets=np.array([0, len(found)], np.int64),
                at_s=np.array([row[1] for row in found], np.int64),
                values=values.reshape(len(found), len(MEASUREMENTS)),
            )
            return np.array([row[0] for row in found], np.int64), telemetry

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
            connection.executemany(
                _INSERT, [(at_s, with_checksum(packed, at_s)) for at_s, packed in readings]
            )

    def _expire(self, connection: sqlite3.Connection, *, now: datetime, num_recorded: int) -> None:
        oldest_s = connection.execute("SELECT min(at_s) FROM reading").fetchone()[0]
        retention = timedelta(days=self.retention_days)
        limit_s = _seconds(now - retention)
        if oldest_s is None or oldest_s >= limit_s:
            if oldest_s is not None and not self._rows.is_sealed and self.max_store_bytes is None:
                oldest = datetime.fromtimestamp(oldest_s, UTC)
                self._alone_from = max(oldest, self.profile.manufactured_at)
                self._alone_until = oldest + retention
            return
        self._alone_from, self._alone_until = _NEVER
        before_s = self._age_limit_s(connection, _seconds(now))
        if before_s is None:
            return
        few = _EXPIRED_PER_READING * num_recorded
        connection.execute(
            "DELETE FROM reading WHERE sequence IN"
            " (SELECT sequence FROM reading WHERE at_s < ? ORDER BY at_s LIMIT ?)"
            " AND sequence < (SELECT max(sequence) FROM reading)",
            (before_s, few),
        )
        # Recorded under a clock that was set back since: they are older than all that may stay.
        future_s = _seconds(now) + CLOCK_TOLERANCE_S
        connection.execute(
            "DELETE FROM reading WHERE sequence IN"
            " (SELECT sequence FROM reading WHERE at_s > ? ORDER BY at_s LIMIT ?)"
            " AND sequence < (SELECT min(sequence) FROM reading WHERE at_s BETWEEN ? AND ?)",
            (future_s, few, before_s, future_s),
        )
        connection.execute(
            "DELETE FROM day WHERE day IN (SELECT day FROM day WHERE day < ? ORDER BY day LIMIT ?)",
            (day_of(before_s), few),
        )

    def _age_limit_s(self, connection: sqlite3.Connection, now_s: int) -> int | None:
        if self._covered is not None:
            looked_at_s, back_s = self._covered
            if 0 <= now_s - looked_at_s < SECONDS_PER_DAY:
                return now_s - back_s
        every = 1 + self.num_readings() // _MOST_LOOKED_AT
        recorded = connection.execute(
            "SELECT at_s, sequence FROM reading WHERE at_s <= ? AND sequence % ? = 0"
            " ORDER BY at_s DESC, sequence DESC",
            (now_s, every),
        )
        retention_s = self.retention_days * SECONDS_PER_DAY
        limit_s = age_limit(recorded, now_s=now_s, retention_s=retention_s)
        self._covered = None if limit_s is None else (now_s, now_s - limit_s)
        return limit_s

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        limit = self.max_store_bytes
        if self._journal_limited_for != (limit,):
            limit_journal(connection, max_bytes=limit)
            self._journal_limited_for = (limit,)
        if limit is None:
            return
        if not stay_below(connection, limit):
            raise StoreBusyError(
                self.path, f"has reached its limit of {limit} bytes", "raise max_store_bytes"
            )


def _count_refusals(connection: sqlite3.Connection, refused: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO refusal VALUES (?, ?) ON CONFLICT (reason)"
        " DO UPDATE SET num_readings = num_readings + excluded.num_readings",
        list(refused.items()),
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
