"""What passes between this device and the server, as it is kept: consents, outbox and inbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from .errors import ConsentMissingError
from .store_file import StoreFile, write_fact

if TYPE_CHECKING:
    from models.wire.messages import NoticeState

MAX_WAITING_MESSAGES = 1_000


class Purpose(StrEnum):
    """What an owner may agree to, each alone; nothing leaves the device before."""

    TRAINING = "training"
    SUMMARIES = "summaries"
    NOTICES = "notices"


@dataclass(frozen=True, slots=True)
class GivenConsent:
    """An owner's word on one purpose.

    Attributes:
        granted: whether the owner agrees.
        changed_at: when this was last said; None: never asked.
    """

    granted: bool
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredNotice:
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


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
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
        """Return the payload as a person can read it, without its padding."""
        return self.payload.decode("utf-8", "replace").rstrip()


class Mailbox(StoreFile):
    """The part of a store that decides what may leave, and remembers what came.

    Args:
        path: an existing store.
    """

    def consents(self) -> dict[Purpose, GivenConsent]:
        """Return the owner's word on every purpose; not granted where never asked."""
        said = {
            row[0]: GivenConsent(bool(row[1]), datetime.fromtimestamp(row[2], UTC))
            for row in self.rows("SELECT purpose, granted, changed_at_s FROM consent")
        }
        return {
            purpose: said.get(purpose.value, GivenConsent(granted=False)) for purpose in Purpose
        }

    def set_consent(self, purpose: Purpose, *, granted: bool, now: datetime) -> None:
        """Keep the owner's word on one purpose; what waits to leave under it goes if withdrawn."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO consent VALUES (?, ?, ?)",
                (purpose.value, int(granted), int(now.timestamp())),
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
        with self.transaction() as connection:
            last = int(self.fact(name) or 0)
            is_ahead = last > present + SEQUENCE_TOLERANCE.total_seconds()
            sequence = present if is_ahead else max(last + 1, present)
            write_fact(connection, name, sequence)
        return sequence

    def put_out(self, purpose: Purpose, topic: str, payload: bytes) -> None:
        """Put a message into the outbox; the oldest leaves where more than 1,000 wait.

        Raises:
            ConsentMissingError: the owner has not agreed to the purpose; nothing was written.
        """
        if not self.consents()[purpose].granted:
            raise ConsentMissingError(purpose.value)
        with self.transaction() as connection:
            done = connection.execute(
                "INSERT INTO outbox (purpose, topic, payload) VALUES (?, ?, ?)",
                (purpose.value, topic, payload),
            )
            oldest = (done.lastrowid or 0) - MAX_WAITING_MESSAGES
            connection.execute("DELETE FROM outbox WHERE number <= ?", (oldest,))

    def outbox(self) -> tuple[OutgoingMessage, ...]:
        """Return the messages that wait for the broker, the oldest first."""
        rows = self.rows("SELECT number, purpose, topic, payload FROM outbox ORDER BY number")
        return tuple(OutgoingMessage(row[0], Purpose(row[1]), row[2], row[3]) for row in rows)

    def sent(self, number: int) -> None:
        """Take a message out of the outbox: the broker has it."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE number = ?", (number,))

    @property
    def last_notice_sequence(self) -> int:
        """The highest sequence number of a notice that was kept, 0 before the first."""
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
        with self.transaction() as connection:
            done = connection.execute(
                "INSERT OR IGNORE INTO notice VALUES (?, ?, ?, 'received', ?, ?)",
                (message_id, sequence, int(now.timestamp()), version, body),
            )
        return done.rowcount > 0

    def set_notice_state(self, message_id: str, state: NoticeState) -> StoredNotice:
        """Move a notice on, count the change, and return the notice as it is now.

        Raises:
            KeyError: no notice has this identifier.
        """
        with self.transaction() as connection:
            connection.execute(
                "UPDATE notice SET state = ?, version = version + 1"
                " WHERE message_id = ? AND state != ?",
                (state.value, message_id, state.value),
            )
        return self.notice(message_id)

    def notice(self, message_id: str) -> StoredNotice:
        """Return one notice of the inbox.

        Raises:
            KeyError: no notice has this identifier.
        """
        for notice in self.notices():
            if notice.message_id == message_id:
                return notice
        raise KeyError(message_id)

    def notices(self) -> tuple[StoredNotice, ...]:
        """Return the inbox, in the order of the server's sequence."""
        from models.wire.messages import NoticeState

        rows = self.rows(
            "SELECT message_id, sequence, received_at_s, state, version, body"
            " FROM notice ORDER BY sequence, message_id"
        )
        return tuple(
            StoredNotice(
                message_id=row[0],
                sequence=row[1],
                received_at=datetime.fromtimestamp(row[2], UTC),
                state=NoticeState(row[3]),
                version=row[4],
                body=row[5],
            )
            for row in rows
        )
