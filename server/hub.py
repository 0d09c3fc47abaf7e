"""The hub: hears summaries and acknowledgements, decides, stores, publishes.

Whatever a message leads to is stored in one transaction before the broker is told that the message
arrived. Any message may come twice: summaries are known by their sequence number, acknowledgements
by the version of the state they report. A message that cannot be used goes to the dead letters and
stops nobody; so does a summary whose number is ahead of the time, for all later ones would pass for
repetitions of it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire import topics
from models.wire.codec import SEQUENCE_TOLERANCE, decode
from models.wire.errors import DeliverAgainError, WireError
from models.wire.messages import Ack, Birth, Message, Notice, Status, Summary

from .device_configuration import ConfigurationSender
from .errors import StorageUnavailableError
from .outbox import Outbox
from .replacements import ENDS_WITH_TIME, ReasonCode, Send, Suppress, decide
from .storage.audit import AuditedDecision, AuditLine, AuditTrail
from .storage.dead_letters import DeadLetters
from .storage.devices import Devices
from .storage.notices import Notices
from .storage.outbox import OutboxMessage, OutboxMessages

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from random import Random

    from sqlalchemy import Connection

    from models.wire.link import Link

    from .clock import Clock
    from .device_keys import DeviceKeySource
    from .outbox import DeliveryPolicy
    from .replacements import NoticePolicy
    from .signer import Signer
    from .storage.database import Database
    from .storage.devices import KnownDevice

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""How often the hub looks for what has become due, where nothing wakes it."""
RECHECKS_AT_ONCE = 200
NEW_NOTICE_VERSION = 1
HEARD: dict[topics.Up, type[Message]] = {
    topics.Up.SUMMARY: Summary,
    topics.Up.ACK: Ack,
    topics.Up.BIRTH: Birth,
    topics.Up.STATUS: Status,
}
"""What a hub listens to."""


@dataclass(slots=True)
class HubCounters:
    """What a hub did since it started.

    Attributes:
        summaries: new summaries that were decided on.
        acks: acknowledgements that moved a notice on.
        repeated: messages seen before, or overtaken by a later one.
        overtaken: those of them that are summaries under another name than the latest: they were
            late, or the device counts anew.
        dead_letters: messages that could not be used.
        published: publications of notices, repetitions included.
    """

    summaries: int = 0
    acks: int = 0
    repeated: int = 0
    overtaken: int = 0
    dead_letters: int = 0
    published: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPolicy:
    """What a hub goes by.

    Attributes:
        notices: when owners are left alone.
        delivery: how long and how often a notice is delivered.
        human_contact: where owners reach a person.
    """

    notices: NoticePolicy
    delivery: DeliveryPolicy
    human_contact: str


class Hub:
    """One server process on one link and one database."""

    def __init__(
        self,
        *,
        database: Database,
        link: Link,
        signer: Signer,
        clock: Clock,
        policy: HubPolicy,
        jitter: Random,
        device_keys: DeviceKeySource | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        """Subscribe on a link that is not connected yet.

        Args:
            database: where everything is kept.
            link: over which devices are heard.
            signer: signs notices.
            clock: the time.
            policy: what to go by.
            jitter: source of random waits.
            device_keys: to which notices are sealed; None: they are signed alone.
            new_id: names notices: 32 hex digits.
        """
        self.counters = HubCounters()
        self._database = database
        self._link = link
        self._signer = signer
        self._clock = clock
        self._policy = policy
        self._new_id = new_id
        self._device_keys = device_keys
        self._outbox = Outbox(
            database, link, policy=policy.delivery, jitter=jitter, device_keys=device_keys
        )
        self._wake = threading.Event()
        self._connected_before = False
        for kind in HEARD:
            link.subscribe(topics.from_all_devices(kind), self.receive)
        link.on_connected(self._connected)

    def run(self, stop: threading.Event) -> None:
        """Publish what becomes due until `stop` is set; the link must be connected."""
        storage_is_lost = False
        while not stop.is_set():
            try:
                self.tick()
                storage_is_lost = False
            except StorageUnavailableError as error:
                if not storage_is_lost:
                    logger.warning("waiting for the database: %s", error)
                storage_is_lost = True
            self._wake.wait(POLL_S)
            self._wake.clear()

    def wake(self) -> None:
        """Have `run` look for what is due, or whether to stop, now."""
        self._wake.set()

    def tick(self) -> None:
        """Decide again where waiting is over, and publish what is due.

        Raises:
            StorageUnavailableError: the database is locked, full or gone.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            devices = Devices(connection)
            for device_id in devices.due_for_recheck(now=now, limit=RECHECKS_AT_ONCE):
                self._decide_again(connection, device_id, now=now)
        self.counters.published += self._outbox.publish_due(now=now)

    def receive(self, topic: str, payload: bytes) -> None:
        """Take in one message from a device.

        Raises:
            DeliverAgainError: the database could not keep it; the broker must bring it again.
        """
        try:
            try:
                self._act(_message(topic, payload))
            except WireError as error:
                self._bury(topic, payload, error)
        except StorageUnavailableError as error:
            raise DeliverAgainError(str(error)) from error

    def _act(self, message: Message) -> None:
        match message:
            case Summary():
                self._hear_summary(message)
            case Ack():
                self._hear_ack(message)
            case Birth():
                self._hear_birth(message)
            case Status():
                self._hear_status(message)

    # --- what each message leads to ---------------------------------------------------------------

    def _hear_summary(self, summary: Summary) -> None:
        now = self._clock()
        highest = int((now + SEQUENCE_TOLERANCE).timestamp())
        if summary.sequence > highest:
            detail = f"{summary.device} counts {summary.sequence}, at most {highest} can be by now"
            raise WireError("sequence_ahead", detail)
        with self._database.transaction() as connection:
            devices = Devices(connection)
            known = devices.seen(summary.device, now=now)
            if summary.sequence <= known.last_sequence <= highest:
                self._pass_over(summary, known)
                return
            devices.keep_summary(summary, now=now)
            if not summary.notices_wanted:
                self._outbox.owner_wants_none(connection, summary.device, now=now)
            self._consider(connection, summary, last_notice=known.notice_sequence, now=now)
        self.counters.summaries += 1
        self._wake.set()

    def _pass_over(self, summary: Summary, known: KnownDevice) -> None:
        self.counters.repeated += 1
        if known.summary is not None and known.summary.id != summary.id:
            self.counters.overtaken += 1
            logger.info(
                "a summary of %s was passed over: %d is not above %d",
                summary.device,
                summary.sequence,
                known.last_sequence,
            )

    def _hear_ack(self, ack: Ack) -> None:
        now = self._clock()
        with self._database.transaction() as connection:
            notices = Notices(connection)
            progress = notices.progress(ack.correlation)
            if progress is None or progress.device_id != ack.device:
                detail = f"{ack.device} has no notice {ack.correlation}"
                raise WireError("unknown_notice", detail)
            Devices(connection).seen(ack.device, now=now)
            OutboxMessages(connection).acknowledged(ack.correlation, now=now)
            if ack.version <= progress.version:
                self.counters.repeated += 1
                return
            notices.move(ack.correlation, ack.state, version=ack.version, now=now)
            AuditTrail(connection).append(
                AuditLine(
                    at=now,
                    device_id=ack.device,
                    decision=AuditedDecision.NOTICE_STATE,
                    reason_code=ack.state.value,
                    model_version=progress.model_version,
                    notice_id=ack.correlation,
                )
            )
        self.counters.acks += 1

    def _hear_birth(self, birth: Birth) -> None:
        now = self._clock()
        with self._database.transaction() as connection:
            devices = Devices(connection)
            devices.seen(birth.device, now=now)
            devices.keep_birth(birth)
            ConfigurationSender(connection, self._signer, self._new_id).device_said(birth, now=now)
            self._outbox.device_is_back(connection, birth.device, now=now)

    def _hear_status(self, status: Status) -> None:
        with self._database.transaction() as connection:
            devices = Devices(connection)
            devices.seen(status.device, now=self._clock())
            devices.keep_presence(status.device, status.presence)

    def _bury(self, topic: str, payload: bytes, error: WireError) -> None:
        with self._database.transaction() as connection:
            DeadLetters(connection).add(
                reason=error.reason,
                detail=str(error),
                topic=topic,
                payload=payload,
                now=self._clock(),
            )
        self.counters.dead_letters += 1
        logger.info("a message could not be used: %s", error.reason)

    # --- decisions --------------------------------------------------------------------------------

    def _consider(
        self, connection: Connection, summary: Summary, *, last_notice: int, now: datetime
    ) -> None:
        outcome = decide(
            summary,
            history=Notices(connection).history(summary.device),
            now=now,
            policy=self._policy.notices,
        )
        if isinstance(outcome, Send) and not self._can_be_sealed_to(summary.device):
            recheck_at = now + self._policy.notices.recheck_after
            outcome = Suppress(ReasonCode.NO_DEVICE_KEY, recheck_at)
        if isinstance(outcome, Suppress):
            self._suppress(connection, summary, outcome, now=now)
        else:
            # Never below what a device may have seen from a server that was restored since.
            sequence = max(last_notice + 1, int(now.timestamp()))
            self._send(connection, summary, outcome, sequence=sequence, now=now)

    def _can_be_sealed_to(self, device_id: str) -> bool:
        return self._device_keys is None or self._device_keys.of(device_id) is not None

    def _decide_again(self, connection: Connection, device_id: str, *, now: datetime) -> None:
        devices = Devices(connection)
        known = devices.get(device_id)
        oldest = now - self._policy.notices.summary_valid_for
        received_at = known.summary_received_at
        if known.summary is None or received_at is None or received_at < oldest:
            devices.recheck(device_id, at=None)
        else:
            self._consider(connection, known.summary, last_notice=known.notice_sequence, now=now)

    @staticmethod
    def _suppress(
        connection: Connection, summary: Summary, outcome: Suppress, *, now: datetime
    ) -> None:
        passes_by_itself = outcome.reason_code in ENDS_WITH_TIME
        Devices(connection).recheck(
            summary.device, at=outcome.recheck_at if passes_by_itself else None
        )
        AuditTrail(connection).append(
            AuditLine(
                at=now,
                device_id=summary.device,
                decision=AuditedDecision.SUPPRESSED,
                reason_code=outcome.reason_code.value,
                model_version=summary.model_version,
                recheck_at=outcome.recheck_at,
            )
        )

    def _send(
        self,
        connection: Connection,
        summary: Summary,
        outcome: Send,
        *,
        sequence: int,
        now: datetime,
    ) -> None:
        issued = now.replace(microsecond=0)
        notice = Notice(
            id=self._new_id(),
            device=summary.device,
            sequence=sequence,
            issued=issued,
            expires=issued + self._policy.delivery.lifetime,
            correlation=summary.id,
            template=outcome.template,
            language=outcome.language,
            urgency=summary.urgency,
            days_band=summary.days_band,
            probability_band=summary.probability_band,
            health_band=summary.health_band,
            confidence=summary.confidence,
            human_contact=self._policy.human_contact,
            version=NEW_NOTICE_VERSION,
        )
        codes = [code.value for code in outcome.due_because]
        Notices(connection).add(
            notice, model_version=summary.model_version, reason_codes=codes, now=now
        )
        OutboxMessages(connection).add(
            OutboxMessage(
                message_id=notice.id,
                device_id=notice.device,
                topic=topics.down(notice.device, topics.Down.NOTIFY),
                payload=self._signer.signed(notice),
                attempts=0,
                expires_at=notice.expires,
            ),
            first_attempt_at=now,
        )
        devices = Devices(connection)
        devices.keep_notice_sequence(notice.device, sequence)
        devices.recheck(notice.device, at=None)
        AuditTrail(connection).append(
            AuditLine(
                at=now,
                device_id=notice.device,
                decision=AuditedDecision.SENT,
                reason_code="+".join(codes),
                model_version=summary.model_version,
                notice_id=notice.id,
            )
        )

    def _connected(self, _session_present: bool, /) -> None:  # noqa: FBT001 - the link's call
        if self._connected_before:
            self._outbox.broker_is_back(now=self._clock())
        self._connected_before = True
        self._wake.set()


def _message(topic: str, payload: bytes) -> Message:
    place = topics.parse(topic)
    expected = HEARD.get(place.kind) if isinstance(place.kind, topics.Up) else None
    if expected is None:
        raise WireError("undeclared", f"the hub does not listen to {place.kind.value}")
    message = decode(payload, expected)
    if message.device != place.device:
        detail = f"{message.device} spoke on the topic of {place.device}"
        raise WireError("foreign_device", detail)
    return message
