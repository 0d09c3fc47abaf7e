"""What one device keeps: readings, profile, the owner's choices, notices and what it has sent.

One SQLite file, one transaction a write. Readings form a ring by age and by size; what must outlive
the ring, such as the references of the pack in use, is kept as a named value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.telemetry import MEASUREMENT_NAMES

from .store.device_facts import DEFAULT_RETENTION_DAYS, first_facts
from .store.mailbox import Mailbox
from .store.reading_ring import FIRST_DAY, ReadingRing, Recording
from .store.reading_rules import CLOCK_TOLERANCE_S, readings_of
from .store.row_cipher import read_key
from .store.sqlite_file import create_store_file, write_fact

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from models.quiet_hours import QuietHours
    from models.telemetry import DeviceProfile

    from .store.row_cipher import KeySource, Rows

__all__ = [
    "CLOCK_TOLERANCE_S",
    "DEFAULT_RETENTION_DAYS",
    "Recording",
    "TelemetryStore",
    "readings_of",
]


class TelemetryStore(ReadingRing, Mailbox):
    """The store of one device. Use it as a context manager, from one thread.

    Args:
        path: an existing store, made by `TelemetryStore.create`.
        key: returns the 32 bytes that it is sealed under; None for a store in the clear.
    """

    @staticmethod
    def create(
        path: Path,
        *,
        profile: DeviceProfile,
        language: str = "en",
        quiet_hours: QuietHours | None = None,
        retention_days: int = DEFAULT_RETENTION_DAYS,
        max_store_bytes: int | None = None,
        key: KeySource | None = None,
    ) -> TelemetryStore:
        """Make a new store and open it; a crash on the way leaves nothing at `path`.

        Args:
            path: where the store shall be; its folder is made if needed.
            profile: the device it belongs to, for life.
            language: in which the owner reads, one of `LANGUAGES`.
            quiet_hours: the owner's, None for none.
            retention_days: readings older than this leave the ring.
            max_store_bytes: size that the file stays below; None limits by age alone.
            key: returns 32 bytes to seal the rows under; None leaves them in the clear.

        Raises:
            StoreError: something is at `path` already; it stays as it is.
            ValueError: a choice cannot be.
        """
        facts = first_facts(
            profile,
            language=language,
            quiet_hours=quiet_hours,
            retention_days=retention_days,
            max_store_bytes=max_store_bytes,
        )

        def fill(connection: sqlite3.Connection, rows: Rows) -> None:
            for name, value in facts.items():
                write_fact(connection, rows, name, value)

        create_store_file(path, fill, key=None if key is None else read_key(path, key))
        store = TelemetryStore(path, key=key)
        store.keep_profile_copy()
        return store

    def export(self) -> dict[str, object]:
        """Return everything that the store holds, as JSON can carry it; no table is left out."""
        return {
            "facts": self.facts(),
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
            "day_rows": {str(day): values.hex() for day, values in self.day_rows(FIRST_DAY)},
            "traffic": [passed._asdict() for passed in self.traffic(FIRST_DAY)],
            "notices": [
                notice._asdict() | {"received_at": notice.received_at.isoformat()}
                for notice in self.notices()
            ],
            "outbox": [
                {"purpose": waiting.purpose, "topic": waiting.topic, "payload": waiting.text()}
                for waiting in self.outbox()
            ],
        }
