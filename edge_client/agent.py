"""The device process that talks to the server: predict, tell in bands, hear, show, acknowledge.

The composition root of `fedcell-device run`. What leaves goes through the store's outbox, and what
comes is in the store's inbox before the broker may forget it: a crash at any point loses nothing,
and a message that comes twice is shown once.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from models.bundle import CLIENT_VERSION
from models.feature_spec import FEATURE_SPEC_VERSION
from models.telemetry import DeviceId
from models.wire.codec import decode, encode
from models.wire.messages import Birth, Notice, NoticeState, Presence, Status
from models.wire.topics import Down, Up, down, up

from .admission import end_of, is_of_former_pack
from .errors import ServerSilentError, StoreBusyError
from .mailbox import Purpose
from .notice_receiver import AgentCounters, NoticeReceiver, answer_notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.prediction import Report
    from models.wire.link import Link

    from .client import EdgeClient
    from .mailbox import Mailbox, StoredNotice
    from .notices import ShownNotice

    Clock = Callable[[], datetime]

logger = logging.getLogger(__name__)

CONFIRMATION_TIMEOUT_S = 5.0
MAX_ATTEMPTS = 5


class Until(StrEnum):
    """When the agent ends by itself."""

    STOPPED = "stopped"
    SENT = "sent"
    ACKED = "acked"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """What the agent is to do.

    Attributes:
        until: when it ends: never by itself, once its summary was sent, or once a notice was
            shown and acknowledged.
        timeout_s: seconds after which it ends in any case; None: never.
        answer: what it says for the owner after showing a notice; None: nothing.
        predict_every: how often it predicts.
        poll_s: how often it looks at the store for what other processes put there, seconds.
    """

    until: Until = Until.STOPPED
    timeout_s: float | None = None
    answer: NoticeState | None = None
    predict_every: timedelta = timedelta(days=1)
    poll_s: float = 5.0


def run_agent(
    client: EdgeClient,
    *,
    broker: tuple[str, int],
    server_keys: Mapping[str, bytes],
    plan: AgentPlan,
    clock: Clock,
    on_start: Callable[[DeviceAgent], None],
    on_report: Callable[[Report], None],
    show: Callable[[str, ShownNotice], None],
) -> AgentCounters:
    """Put an agent together and run it.

    Args:
        client: the open device.
        broker: host and port.
        server_keys: Ed25519 public keys (32 raw bytes) that may sign notices, by key id.
        plan: when to end, and what to say for the owner.
        clock: the device's time.
        on_start: given the agent before it runs, so that it can be stopped.
        on_report: called with each report.
        show: called with a notice's identifier and the notice as its owner shall read it.

    Raises:
        models.wire.errors.LinkError: the broker cannot be reached.
        ServerSilentError: the time is up, and messages still wait.
    """
    from random import Random

    from models.wire.envelope import VerifyKey, trusted_keys
    from models.wire.link import Link, LinkSettings, Will

    store, device_id = client.store, client.profile.device_id
    host, port = broker
    will = Will(
        topic=up(device_id, Up.STATUS),
        payload=status_payload(store, Presence.OFFLINE, device_id, clock()),
    )
    link = Link(LinkSettings(host=host, port=port, client_id=device_id, will=will), jitter=Random())
    counters = AgentCounters()
    agent = DeviceAgent(
        client,
        link,
        plan=plan,
        clock=clock,
        counters=counters,
        on_report=on_report,
        show=show,
    )
    receiver = NoticeReceiver(
        store.path,
        device_id=device_id,
        trusted=trusted_keys(*(VerifyKey.from_bytes(raw) for raw in server_keys.values())),
        clock=clock,
        counters=counters,
        wake=agent.wake,
    )
    link.subscribe(down(device_id, Down.NOTIFY), receiver)
    on_start(agent)
    return agent.run()


class DeviceAgent:
    """One device's main loop; everything but `NoticeReceiver` runs in the caller's thread.

    Args:
        client: the open device.
        link: not connected yet, its last will set.
        plan: when to end, and what to say for the owner.
        clock: the device's time.
        counters: shared with the receiver.
        on_report: called with each report.
        show: called with each notice as its owner shall read it.
    """

    def __init__(
        self,
        client: EdgeClient,
        link: Link,
        *,
        plan: AgentPlan,
        clock: Clock,
        counters: AgentCounters,
        on_report: Callable[[Report], None],
        show: Callable[[str, ShownNotice], None],
    ) -> None:
        self._client = client
        self._link = link
        self._plan = plan
        self._clock = clock
        self.counters = counters
        self._on_report = on_report
        self._show = show
        self._device_id = client.profile.device_id
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_new_connection = False
        self._is_stopped = False
        self._next_prediction_at: datetime | None = None
        self._attempts: dict[int, int] = {}

    def wake(self) -> None:
        """Have the loop look at the store at once; may be called from any thread."""
        self._woken.put(None)

    def stop(self) -> None:
        """Have the loop end soon; may be called from a signal handler."""
        self._is_stopped = True
        self.wake()

    def run(self) -> AgentCounters:
        """Work until the plan is fulfilled, the time is up, or `stop` is called.

        Returns:
            What was done; a notice that was waited for may not have come.

        Raises:
            models.errors.BundleError: the model is refused; nothing was sent.
            models.wire.errors.LinkError: the broker cannot be reached.
            ServerSilentError: the time is up, and messages still wait.
        """
        self._predict_where_due()
        self._link.on_connected(self._connected)
        deadline = None
        if self._plan.timeout_s is not None:
            deadline = time.monotonic() + self._plan.timeout_s
        is_fulfilled = False
        with self._link:
            while not self._is_stopped:
                self._work_once()
                is_fulfilled = self._is_fulfilled()
                if is_fulfilled or (deadline is not None and time.monotonic() >= deadline):
                    break
                self._wait(deadline)
            self._say_status(Presence.OFFLINE)
        is_cut_short = not (is_fulfilled or self._is_stopped or self._plan.until is Until.STOPPED)
        if is_cut_short and self._client.store.outbox():
            what = f"the broker did not take everything within {self._plan.timeout_s:g} s"
            raise ServerSilentError(f"{what}; the rest waits for the next run")
        return self.counters

    def _work_once(self) -> None:
        try:
            if self._is_new_connection:
                self._is_new_connection = False
                self._say_birth()
                self._say_status(Presence.ONLINE)
            self._predict_where_due()
            self._show_what_waits()
            self._send_outbox()
        except StoreBusyError as error:
            if self._plan.until is not Until.STOPPED:
                raise
            logger.warning("tried again soon: %s", error)

    def _wait(self, deadline: float | None) -> None:
        patience = self._plan.poll_s
        if deadline is not None:
            patience = max(0.0, min(patience, deadline - time.monotonic()))
        try:
            self._woken.get(timeout=patience)
        except queue.Empty:
            return

    def _is_fulfilled(self) -> bool:
        if self._plan.until is Until.STOPPED or self._client.store.outbox():
            return False
        return self._plan.until is Until.SENT or self.counters.shown > 0

    def _connected(self, _session_present: bool) -> None:  # noqa: FBT001 - the link's signature
        self._is_new_connection = True
        self.wake()

    def _predict_where_due(self) -> None:
        now = self._clock()
        if self._next_prediction_at is not None and now < self._next_prediction_at:
            return
        report = self._client.predict(now)
        self._next_prediction_at = now + self._plan.predict_every
        self.counters.predictions += 1
        self._on_report(report)
        self._close_what_is_of_a_former_pack()
        summary = self._client.summary(now)
        if summary is not None:
            topic = up(self._device_id, Up.SUMMARY)
            self._client.store.put_out(Purpose.SUMMARIES, topic, encode(summary))
            self.counters.summaries += 1

    def _close_what_is_of_a_former_pack(self) -> None:
        """Tell the server which notices no longer count, ahead of the summary it decides on."""
        store, pack_since = self._client.store, self._client.pack_since
        if not store.consents()[Purpose.NOTICES].granted:
            return
        for stored in store.notices():
            notice = decode(stored.body.encode(), Notice)
            if is_of_former_pack(notice, pack_since=pack_since):
                self._move(stored, NoticeState.REPLACED)

    def _show_what_waits(self) -> None:
        store = self._client.store
        now = self._clock()
        waiting = [n for n in store.notices() if n.state is NoticeState.RECEIVED]
        if not waiting or not store.consents()[Purpose.NOTICES].granted:
            return
        pack_since, quiet = self._client.pack_since, store.quiet_hours
        is_quiet = quiet is not None and quiet.hold(now)
        for stored in waiting:
            notice = decode(stored.body.encode(), Notice)
            end = end_of(notice, now=now, pack_since=pack_since)
            if end is not None:
                self._move(stored, end)
            elif not is_quiet:
                self._show_one(stored, notice, now=now)

    def _show_one(self, stored: StoredNotice, notice: Notice, *, now: datetime) -> None:
        # Shown first, noted second: a crash between the two shows it twice, not never.
        self._show(stored.message_id, self._client.handle_notice(notice, now))
        self._move(stored, NoticeState.SHOWN)
        if self._plan.answer is not None:
            self._move(stored, self._plan.answer)
        self.counters.shown += 1

    def _move(self, stored: StoredNotice, state: NoticeState) -> None:
        answer_notice(
            self._client.store,
            stored.message_id,
            state,
            device_id=self._device_id,
            now=self._clock(),
        )

    def _send_outbox(self) -> None:
        store = self._client.store
        for message in store.outbox():
            if not self._link.is_connected:
                return
            if self._attempts.get(message.number, 0) >= MAX_ATTEMPTS:
                # Refused again and again: it waits for the next start, others pass it.
                continue
            delivery = self._link.publish(message.topic, message.payload)
            if delivery.wait(CONFIRMATION_TIMEOUT_S):
                store.sent(message.number)
                self.counters.confirmed += 1
            else:
                self._attempts[message.number] = self._attempts.get(message.number, 0) + 1

    def _say_birth(self) -> None:
        now = self._clock()
        birth = Birth(
            id=os.urandom(16).hex(),
            device=self._device_id,
            sequence=self._client.store.next_sequence("birth", now=now),
            issued=now.replace(microsecond=0),
            client_version=".".join(map(str, CLIENT_VERSION)),
            model_version=self._client.predictor.bundle.version,
            feature_spec_version=FEATURE_SPEC_VERSION,
        )
        self._link.publish(up(self._device_id, Up.BIRTH), encode(birth))

    def _say_status(self, presence: Presence) -> None:
        if self._link.is_connected:
            payload = status_payload(self._client.store, presence, self._device_id, self._clock())
            self._link.publish(up(self._device_id, Up.STATUS), payload, retain=True)


def status_payload(mailbox: Mailbox, presence: Presence, device_id: str, now: datetime) -> bytes:
    """Return the message that says whether this device is connected."""
    return encode(
        Status(
            id=os.urandom(16).hex(),
            device=DeviceId(device_id),
            sequence=mailbox.next_sequence("status", now=now),
            issued=now.replace(microsecond=0),
            presence=presence,
        )
    )
