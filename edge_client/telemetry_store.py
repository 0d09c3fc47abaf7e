"""What one device keeps: readings, profile, the owner's choices, notices and what it has sent.

One SQLite file, one transaction a write. Readings form a ring by age; what must outlive the ring,
such as the references of the pack in use, is kept as a named value.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from models.telemetry import (
    CAUSES,
    MEASUREMENT_NAMES,
    MEASUREMENTS,
    SECONDS_PER_DAY,
    DeviceId,
    DeviceProfile,
    Reading,
    Telemetry,
)

from .errors import ReadingRefusedError
from .mailbox import Mailbox
from .store_file import create_store_file, remove_store_file, write_fact

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from models.featurize import PackReferences
    from models.labels import OwnerAnswers
    from models.quiet_hours import QuietHours

DEFAULT_RETENTION_DAYS = 730
CLOCK_TOLERANCE_S = SECONDS_PER_DAY

_EXPIRED_PER_READING = 8
_FAILURES = "owner_failures"
_PACKED = struct.Struct(f"<{len(MEASUREMENTS)}f")


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


class TelemetryStore(Mailbox):
    """The store of one device. Use it as a context manager, from one thread.

    Args:
        path: an existing store, made by `TelemetryStore.create`.
    """

    @staticmethod
    def create(
        path: Path,
        *,
        profile: DeviceProfile,
        language: str = "en",
        quiet_hours: QuietHours | None = None,
        retention_days: int = DEFAULT_RETENTION_DAYS,
    ) -> TelemetryStore:
        """Make a new store and open it; a crash on the way leaves nothing at `path`.

        Args:
            path: where the store shall be; its folder is made if needed.
            profile: the device it belongs to, for life.
            language: in which the owner reads, one of `LANGUAGES`.
            quiet_hours: the owner's, None for none.
            retention_days: readings older than this leave the ring.

        Raises:
            StoreError: something is at `path` already; it stays as it is.
            ValueError: `language` or `retention_days` cannot be.
        """
        if retention_days < 1:
            raise ValueError(f"retention_days must be at least 1, got {retention_days}")
        made_at = profile.manufactured_at.astimezone(UTC).isoformat()
        facts = {
            "profile": asdict(profile) | {"manufactured_at": made_at},
            "language": _known_language(language),
            "quiet_hours": _quiet_hours_fact(quiet_hours),
            "retention_days": retention_days,
        }

        def fill(connection: sqlite3.Connection) -> None:
            for name, value in facts.items():
                write_fact(connection, name, value)

        create_store_file(path, fill)
        return TelemetryStore(path)

    # Readings

    def record(self, reading: Reading, *, now: datetime) -> None:
        """Store one reading durably, and let a few expired ones go.

        Args:
            reading: what the gauge said.
            now: the device's time; decides what is in the future and what has expired.

        Raises:
            ReadingRefusedError: the reading breaks a rule; it was counted.
        """
        broken = _broken_rule(reading, now=now, manufactured_at=self.profile.manufactured_at)
        with self.transaction() as connection:
            if broken is None:
                _insert(connection, [reading])
                self._expire(connection, now=now, num_recorded=1)
            else:
                _count_refusals(connection, {broken.reason: 1})
        if broken is not None:
            raise broken

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
        kept: list[Reading] = []
        refused: dict[str, int] = {}
        first_refused: dict[str, tuple[int, ReadingRefusedError]] = {}
        for position, reading in enumerate(readings):
            if isinstance(reading, ReadingRefusedError):
                broken: ReadingRefusedError | None = reading
            else:
                broken = _broken_rule(reading, now=now, manufactured_at=made_at)
                if broken is None:
                    kept.append(reading)
            if broken is not None:
                refused[broken.reason] = refused.get(broken.reason, 0) + 1
                first_refused.setdefault(broken.reason, (position, broken))
        with self.transaction() as connection:
            _insert(connection, kept)
            _count_refusals(connection, refused)
            self._expire(connection, now=now, num_recorded=len(kept))
        return Recording(len(kept), refused, first_refused)

    def count_refusal(self, reason: str) -> None:
        """Count an input that never became a `Reading`, such as a time without a zone."""
        with self.transaction() as connection:
            _count_refusals(connection, {reason: 1})

    def telemetry(self, *, since: datetime | None = None) -> Telemetry:
        """Return the stored readings in the order in which they were recorded.

        Args:
            since: leaves out readings that claim an earlier time; None returns all.
        """
        import numpy as np

        query = "SELECT at_s, measurements FROM reading WHERE at_s >= ? ORDER BY sequence"
        rows = self.rows(query, -(2**62) if since is None else _seconds(since))
        values = np.frombuffer(b"".join(row[1] for row in rows), "<f4")
        return Telemetry(
            device_ids=(self.profile.device_id,),
            offsets=np.array([0, len(rows)], np.int64),
            at_s=np.array([row[0] for row in rows], np.int64),
            values=values.reshape(len(rows), len(MEASUREMENTS)),
        )

    def num_readings(self) -> int:
        """Return how many readings are stored."""
        return int(self.rows("SELECT count(*) FROM reading")[0][0])

    def refusals(self) -> dict[str, int]:
        """Return how many readings were refused since the store was made, by reason."""
        return dict(self.rows("SELECT reason, num_readings FROM refusal ORDER BY reason"))

    # The device

    @property
    def profile(self) -> DeviceProfile:
        """The device that this store belongs to."""
        value = self.fact("profile")
        value["device_id"] = DeviceId(value["device_id"])
        value["manufactured_at"] = datetime.fromisoformat(value["manufactured_at"])
        return DeviceProfile(**value)

    @property
    def retention_days(self) -> int:
        """Readings older than this leave the ring, days."""
        return int(self.fact("retention_days"))

    def references(self) -> PackReferences | None:
        """Return the references of the pack in use, None before the first were kept."""
        from models.featurize import PackReferences

        value = self.fact("pack_references")
        if value is None:
            return None
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in value.items()}
        return PackReferences(**known)

    def keep_references(self, references: PackReferences) -> None:
        """Keep the pack's references for life: the ring will lose the readings behind them."""
        value = {
            name: None if math.isnan(value) else value for name, value in asdict(references).items()
        }
        if value != self.fact("pack_references"):
            self.keep_fact("pack_references", value)

    def references_beyond_the_ring(self) -> PackReferences | None:
        """Return the kept references once the ring has lost the pack's first readings.

        None while it still shows them: then they are computed anew, as everywhere else.
        """
        references, first = self.references(), self.first_reading_at()
        if references is None or first is None or _seconds(first) <= references.since_s:
            return None
        return references

    def first_reading_at(self) -> datetime | None:
        """Return the earliest time that a stored reading claims, None where there is none."""
        at_s = self.rows("SELECT min(at_s) FROM reading")[0][0]
        return None if at_s is None else datetime.fromtimestamp(at_s, UTC)

    # The owner

    @property
    def language(self) -> str:
        """The language in which the owner reads."""
        return str(self.fact("language"))

    def set_language(self, language: str) -> None:
        """Keep the owner's language, one of `LANGUAGES`."""
        self.keep_fact("language", _known_language(language))

    @property
    def quiet_hours(self) -> QuietHours | None:
        """The owner's quiet hours, None where there are none."""
        from models.quiet_hours import QuietHours

        value = self.fact("quiet_hours")
        return None if value is None else QuietHours.parse(value["span"], value["zone"])

    def set_quiet_hours(self, quiet_hours: QuietHours | None) -> None:
        """Keep the owner's quiet hours, or remove them."""
        self.keep_fact("quiet_hours", _quiet_hours_fact(quiet_hours))

    def keep_failure(self, *, failed_at: datetime, cause: str | None = None, now: datetime) -> None:
        """Keep the owner's word that the battery failed; it becomes a label, and never leaves.

        Args:
            failed_at: when, by the owner's word.
            cause: one of `CAUSES`, None = the owner cannot tell.
            now: the device's time.

        Raises:
            ValueError: no cause has this name, or the moment lies ahead or before manufacture.
        """
        if cause is not None and cause not in CAUSES:
            raise ValueError(f"cause must be one of {', '.join(CAUSES)}, got {cause!r}")
        if not self.profile.manufactured_at <= failed_at <= now:
            raise ValueError(
                f"the battery failed between manufacture and now, {now.isoformat()},"
                f" got {failed_at.isoformat()}"
            )
        with self.transaction():
            said = self.fact(_FAILURES) or []
            self.keep_fact(_FAILURES, [*said, [_seconds(failed_at), cause]])

    def take_failures_back(self) -> None:
        """Forget every word of the owner that the battery failed."""
        self.keep_fact(_FAILURES, [])

    def owner_answers(self) -> OwnerAnswers:
        """Return the owner's words that the battery failed, as labels take them.

        What the owner does with a notice is none: an alarm must not confirm itself.
        """
        import numpy as np

        from models.labels import OwnerAnswers

        said = self.fact(_FAILURES) or []
        causes = [-1 if cause is None else CAUSES.index(cause) for _, cause in said]
        return OwnerAnswers(
            device=np.zeros(len(said), np.intp),
            failed_at_s=np.array([at_s for at_s, _ in said], np.int64),
            cause=np.array(causes, np.int8),
        )

    # Everything

    def export(self) -> dict[str, object]:
        """Return everything that the store holds, as JSON can carry it; no table is left out."""
        return {
            "facts": {name: json.loads(value) for name, value in self.rows("SELECT * FROM fact")},
            "consents": {
                purpose.value: {
                    "granted": said.granted,
                    "changed_at": said.changed_at and said.changed_at.isoformat(),
                }
                for purpose, said in self.consents().items()
            },
            "readings": [
                {"at": reading.at.isoformat()}
                | {
                    name: value
                    for name in MEASUREMENT_NAMES
                    if (value := getattr(reading, name)) is not None
                }
                for reading in readings_of(self.telemetry())
            ],
            "refusals": self.refusals(),
            "notices": [
                asdict(notice) | {"received_at": notice.received_at.isoformat()}
                for notice in self.notices()
            ],
            "outbox": [
                {"purpose": waiting.purpose, "topic": waiting.topic, "payload": waiting.text()}
                for waiting in self.outbox()
            ],
        }

    @staticmethod
    def erase(path: Path) -> tuple[Path, ...]:
        """Remove a store with all that belongs to it: its journal and the installed models.

        Returns:
            What was removed.

        Raises:
            StoreError: there is no store of ours at `path`; nothing was removed.
        """
        from .model_store import ModelStore

        TelemetryStore(path).close()
        return remove_store_file(path, belongings=(ModelStore.beside(path).folder,))

    def _expire(self, connection: sqlite3.Connection, *, now: datetime, num_recorded: int) -> None:
        # A few a time: a clock that jumps years ahead must not empty the store.
        connection.execute(
            "DELETE FROM reading WHERE sequence IN"
            " (SELECT sequence FROM reading WHERE at_s < ? ORDER BY at_s LIMIT ?)",
            (
                _seconds(now - timedelta(days=self.retention_days)),
                _EXPIRED_PER_READING * num_recorded,
            ),
        )


def readings_of(telemetry: Telemetry) -> Iterator[Reading]:
    """Return a table's readings one by one, in its order, NaN as None.

    Args:
        telemetry: readings of one device; a table of several mixes them.
    """
    for at_s, row in zip(telemetry.at_s.tolist(), telemetry.values.tolist(), strict=True):
        values = {
            name: None if math.isnan(value) else value
            for name, value in zip(MEASUREMENT_NAMES, row, strict=True)
        }
        yield Reading(at=datetime.fromtimestamp(at_s, UTC), **values)


def _broken_rule(
    reading: Reading, *, now: datetime, manufactured_at: datetime
) -> ReadingRefusedError | None:
    """Return the first rule that a reading breaks, None where it may be stored."""
    measured = False
    for measurement, value in zip(MEASUREMENTS, reading.values(), strict=True):
        if math.isnan(value):
            continue
        measured = True
        if not measurement.low <= value <= measurement.high:
            return ReadingRefusedError(
                f"out_of_range:{measurement.name}",
                f"{measurement.name} must be {measurement.low:g} to {measurement.high:g}"
                f" {measurement.unit}, got {value:g}; correct it, or leave it out",
            )
    if not measured:
        return ReadingRefusedError(
            "nothing_measured", "no measurement has a value; give one or more"
        )
    tolerance = timedelta(seconds=CLOCK_TOLERANCE_S)
    if reading.at > now + tolerance:
        return ReadingRefusedError(
            "in_the_future",
            f"at {reading.at.isoformat()} is more than a day after now, {now.isoformat()};"
            " check the clock, or give the device's time as --now",
        )
    if reading.at < manufactured_at - tolerance:
        return ReadingRefusedError(
            "before_manufacture",
            f"at {reading.at.isoformat()} is before the device was made,"
            f" {manufactured_at.isoformat()}; check the clock, and manufactured_at of the profile",
        )
    return None


def _insert(connection: sqlite3.Connection, readings: list[Reading]) -> None:
    connection.executemany(
        "INSERT INTO reading (at_s, measurements) VALUES (?, ?)",
        [(_seconds(reading.at), _PACKED.pack(*reading.values())) for reading in readings],
    )


def _count_refusals(connection: sqlite3.Connection, refused: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO refusal VALUES (?, ?) ON CONFLICT (reason)"
        " DO UPDATE SET num_readings = num_readings + excluded.num_readings",
        list(refused.items()),
    )


def _quiet_hours_fact(quiet_hours: QuietHours | None) -> dict[str, str] | None:
    if quiet_hours is None:
        return None
    return {"span": quiet_hours.span(), "zone": quiet_hours.zone}


def _known_language(language: str) -> str:
    from .wording import LANGUAGES

    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {LANGUAGES}, got {language!r}")
    return language


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
