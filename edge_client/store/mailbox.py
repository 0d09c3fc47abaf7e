"""What passes between this device and the server, as it is kept: consents, outbox and inbox."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConsentMissingError
from .row_cipher import believed
from .sqlite_file import StoreFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from models.wire.messages import NoticeState

MAX_WAITING_MESSAGES = 1_000
TRAFFIC_KEPT_DAYS = 400


class Purpose(StrEnum):
    """What an owner may agree to, each alone; nothing leaves the device before."""

    TRAINING = "training"
    SUMMARIES = "summaries"
    NOTICES = "notices"


class GivenConsent(NamedTuple):
    """An owner's word on one purpose.

    Attributes:
        granted: whether the owner agrees.
        changed_at: when this was last said; None: never asked.
    """

    granted: bool
    changed_at: datetime | None = None


class StoredNotice(NamedTuple):
    """One notice in the inbox.

    Attributes:
        message_id: the server's identifier; a second message with it is a repetition.
        sequence: the server's sequence number for this device.
        received_at: when it came.
        state: how far it has come.
        version: number of the state, as acknowledgements carry it.
        body: the notice as JSON text, as it came.
    """

    message_id: str
    sequence: int
    received_at: datetime
    state: NoticeState
    version: int
    body: str


class OutgoingMessage(NamedTuple):
    """A message that waits for the broker.

    Attributes:
        number: its place in the outbox.
        purpose: under which consent it leaves.
        topic: where to.
        payload: its bytes.
    """

    number: int
    purpose: Purpose
    topic: str
    payload: bytes

    def text(self) -> str:
        """Return the payload as a person can read it, without its padding; its size if sealed."""
        try:
            return self.payload.decode().rstrip()
        except UnicodeDecodeError:
            return f"{len(self.payload)} bytes, sealed to another"


class Traffic(NamedTuple):
    """What passed on the link in one day.

    Attributes:
        day: days since the Unix epoch, UTC.
        direction: `up` or `down`.
        kind: of message.
        messages: how many.
        num_bytes: how many bytes they took.
    """

    day: int
    direction: str
    kind: str
    messages: int
    num_bytes: int


class Mailbox(StoreFile):
    """The part of a store that decides what may leave, and remembers what came.

    Under a key the payloads, bodies and states of messages are sealed, and each consent carries a
    tag; purposes, topics, numbers and times stand in the clear.

    Args:
        path: an existing store.
        key: as for `StoreFile`.
    """

    def check(self) -> None:
        """Look through the whole file: its structure, and every value that proves itself.

        Raises:
            StoreDamagedError: with the first damage found.
        """
        super().check()
        self.consents()
        self.notices()
        self.outbox()

    def consents(self) -> dict[Purpose, GivenConsent]:
        """Return the owner's word on every purpose; not granted where never asked.

        Raises:
            StoreDamagedError: a word is not the one that was kept.
        """
        said = {}
        for purpose, granted, at_s, proof in self.rows("SELECT * FROM consent"):
            self._rows.check(proof, "consent", purpose, granted, at_s)
            with believed(self.path, "consent"):
                said[purpose] = GivenConsent(bool(granted), datetime.fromtimestamp(at_s, UTC))
        return {
            purpose: said.get(purpose.value, GivenConsent(granted=False)) for purpose in Purpose
        }

    def set_consent(self, purpose: Purpose, *, granted: bool, now: datetime) -> None:
        """Keep the owner's word on one purpose; what waits to leave under it goes if withdrawn.

        The first consent to training gives a store from before there were privacy ledgers its own.

        Raises:
            LedgerUnwritableError: the disk refuses the ledger; the word was not kept.
        """
        if granted and purpose is Purpose.TRAINING:
            from ..privacy.ledger_file import enrol

            enrol(self, now=now)
        row = (purpose.value, int(granted), int(now.timestamp()))
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO consent VALUES (?, ?, ?, ?)",
                (*row, self._rows.proof("consent", *row)),
            )
            if not granted:
                connection.execute("DELETE FROM outbox WHERE purpose = ?", (purpose.value,))

    def next_sequence(self, kind: str, *, now: datetime) -> int:
        """Count up durably: the number of the next message of one kind to the server.

        At least the seconds since the epoch, so that a device whose store was made anew is not
        taken for a replay of itself. A number that is more than a day ahead comes of a clock that
        was wrong; the server has refused it, so the present is counted on from.
        """
        from models.wire.codec import SEQUENCE_TOLERANCE

        name, present = f"{kind}_sequence", int(now.timestamp())
        with self.transaction():
            last = int(self.fact(name) or 0)
            is_ahead = last > present + SEQUENCE_TOLERANCE.total_seconds()
            sequence = present if is_ahead else max(last + 1, present)
            self.keep_fact(name, sequence)
        return sequence

    def put_out(self, purpose: Purpose, topic: str, payload: bytes) -> None:
        """Put a message into the outbox; the oldest leaves where more than 1,000 wait.

        Raises:
            ConsentMissingError: the owner has not agreed to the purpose; nothing was written.
        """
        self.put_out_many(purpose, [(topic, payload)])

    def put_out_many(self, purpose: Purpose, messages: Sequence[tuple[str, bytes]]) -> None:
        """Put messages into the outbox in one transaction, each a topic and a payload.

        Raises:
            ConsentMissingError: the owner has not agreed to the purpose; nothing was written.
        """
        if not self.consents()[purpose].granted:
            raise ConsentMissingError(purpose.value)
        with self.transaction() as connection:
            first = next_number(connection, "outbox")
            rows = [
                (
                    number,
                    purpose.value,
                    topic,
                    self._rows.seal(payload, "outbox", number, purpose.value, topic),
                )
                for number, (topic, payload) in enumerate(messages, first)
            ]
            connection.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?)", rows)
            oldest = first + len(rows) - 1 - MAX_WAITING_MESSAGES
            connection.execute("DELETE FROM outbox WHERE number <= ?", (oldest,))

    def outbox(self) -> tuple[OutgoingMessage, ...]:
        """Return the messages that wait for the broker, the oldest first."""
        rows = self.rows("SELECT number, purpose, topic, payload FROM outbox ORDER BY number")
        with believed(self.path, "outbox"):
            return tuple(
                OutgoingMessage(
                    number,
                    Purpose(purpose),
                    topic,
                    self._rows.open(payload, "outbox", number, purpose, topic),
                )
                for number, purpose, topic, payload in rows
            )

    def sent(self, *numbers: int) -> None:
        """Take messages out of the outbox in one transaction: the broker has them."""
        with self.transaction() as connection:
            connection.executemany(
                "DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers]
            )

    @property
    def last_notice_sequence(self) -> int:
        """The highest sequence number of a notice that was kept, 0 before the first."""
        with believed(self.path, "notice"):
            return int(self.rows("SELECT coalesce(max(sequence), 0) FROM notice")[0][0])

    def keep_notice(
        self, message_id: str, *, sequence: int, version: int, body: str, now: datetime
    ) -> bool:
        """Put a notice into the inbox once, as received.

        Args:
            message_id: the server's identifier.
            sequence: the server's sequence number for this device.
            version: number of the state `received`: one more than the notice came with.
            body: the notice as JSON text.
            now: the device's time.

        Returns:
            False where a notice with this identifier is there already; nothing was written.
        """
        from models.wire.messages import NoticeState

        received_at_s = int(now.timestamp())
        sealed = self._rows.seal_text(body, "notice", message_id, sequence, received_at_s)
        state = self._rows.seal_text(NoticeState.RECEIVED.value, "state", message_id, version)
        with self.transaction() as connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO notice VALUES (?, ?, ?, ?, ?, ?)",
                (message_id, sequence, received_at_s, state, version, sealed),
            )
        return done.rowcount > 0

    def set_notice_state(self, message_id: str, state: NoticeState) -> StoredNotice:
        """Move a notice on, count the change, and return the notice as it is now.

        Raises:
            KeyError: no notice has this identifier.
        """
        with self.transaction() as connection:
            notice = self.notice(message_id)
            if notice.state == state:
                return notice
            version = notice.version + 1
            connection.execute(
                "UPDATE notice SET state = ?, version = ? WHERE message_id = ?",
                (
                    self._rows.seal_text(state.value, "state", message_id, version),
                    version,
                    message_id,
                ),
            )
        return notice._replace(state=state, version=version)

    def notice(self, message_id: str) -> StoredNotice:
        """Return one notice of the inbox.

        Raises:
            KeyError: no notice has this identifier.
        """
        for row in self.rows("SELECT * FROM notice WHERE message_id = ?", message_id):
            return self._notice_of(*row)
        raise KeyError(message_id)

    def notices(self) -> tuple[StoredNotice, ...]:
        """Return the inbox, in the order of the server's sequence."""
        rows = self.rows("SELECT * FROM notice ORDER BY sequence, message_id")
        return tuple(self._notice_of(*row) for row in rows)

    def count_traffic(self, passed: Iterable[Traffic]) -> None:
        """Add to what passed on the link, all in one transaction; old days leave.

        Args:
            passed: since this was last called; several entries of a kind and day are added up.
        """
        rows = [(t.day, t.direction, t.kind, t.messages, t.num_bytes) for t in passed]
        if not rows:
            return
        with self.transaction() as connection:
            connection.executemany(
                "INSERT INTO traffic VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
                rows,
            )
            oldest = max(row[0] for row in rows) - TRAFFIC_KEPT_DAYS
            # A few a time: a clock that jumps years ahead must not empty the table.
            connection.execute(
                "DELETE FROM traffic WHERE day IN"
                " (SELECT DISTINCT day FROM traffic WHERE day < ? ORDER BY day LIMIT 2)",
                (oldest,),
            )

    def traffic(self, since_day: int) -> tuple[Traffic, ...]:
        """Return what passed on the link, by day, direction and kind.

        Args:
            since_day: the first day, in days since the Unix epoch, UTC.
        """
        query = "SELECT * FROM traffic WHERE day >= ? ORDER BY day, direction, kind"
        return tuple(Traffic(*row) for row in self.rows(query, since_day))

    def _notice_of(
        self,
        message_id: str,
        sequence: int,
        received_at_s: int,
        state: object,
        version: int,
        body: object,
    ) -> StoredNotice:
        from models.wire.messages import NoticeState

        with believed(self.path, "notice"):
            return StoredNotice(
                message_id=message_id,
                sequence=sequence,
                received_at=datetime.fromtimestamp(received_at_s, UTC),
                state=NoticeState(self._rows.open_text(state, "state", message_id, version)),
                version=version,
                body=self._rows.open_text(body, "notice", message_id, sequence, received_at_s),
            )


def next_number(connection: sqlite3.Connection, table: str) -> int:
    """Return the number that the next row of a table gets, within the caller's transaction."""
    found = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
    ).fetchone()
    return 1 if found is None else int(found[0]) + 1
