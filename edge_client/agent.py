"""The device process that talks to the server: predict, tell in bands, hear, show, acknowledge.

The composition root of `fedcell-device run`. What leaves goes through the store's outbox, and what
comes is in the store's inbox before the broker may forget it: a crash at any point loses nothing,
and a message that comes twice is shown once. Prediction and summaries go by a clock that never
jumps; the device's time, which may be wrong, only dates them.
"""

from __future__ import annotations

import logging
import queue
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from models.wire.codec import decode, encode
from models.wire.messages import Notice, NoticeState, Presence
from models.wire.topics import Down, Up, down, up

from .errors import ServerSilentError, SlotError, StoppedError, StoreBusyError
from .link.admission import end_of, is_of_former_pack
from .link.agent_lock import agent_lock
from .link.books import DeviceBooks
from .link.configuration import PREDICTION, allowed, in_force, stopped
from .link.counters import AgentCounters
from .link.elapsed import elapsed_s, left_s
from .link.notice_receiver import NoticeReceiver, answer_notice
from .link.plan import AgentParts, AgentPlan, Until
from .link.presence import birth_payload, status_payload
from .link.sending import PATIENCE_S, OutboxSender
from .link.traffic import CONNECTION, DOWN, UP, TrafficMeter, connection_bytes, kind_of
from .provisioning.identity import own_identity, read_hardware_id
from .store.mailbox import Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from models.prediction import Report
    from models.wire.listening_link import ListeningLink
    from models.wire.sealing import OpeningKey

    from .client import EdgeClient
    from .notices import ShownNotice
    from .store.mailbox import StoredNotice
    from .updates.slots import Refusal

    Clock = Callable[[], datetime]

__all__ = ["AgentParts", "AgentPlan", "DeviceAgent", "Until", "elapsed_s", "run_agent"]

logger = logging.getLogger(__name__)

MAX_WAITING_SUMMARIES = 7
"""Summaries of the last days are enough; a device that was offline for a month sends no more."""
SHOWN_AT_ONCE = 20


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
    parts: AgentParts | None = None,
) -> AgentCounters:
    """Put an agent together and run it.

    Args:
        client: the open device.
        broker: host and port.
        server_keys: Ed25519 public keys (32 raw bytes) that the server signs with, by key id.
        plan: when to end, and what to say for the owner.
        clock: the device's time.
        on_start: given the agent before it runs, so that it can be stopped.
        on_report: called with each report.
        show: called with a notice's identifier and the notice as its owner shall read it.
        parts: what else it works with; None asks this machine for its hardware's identifier.

    Raises:
        CloneError: store or identity come from another device; nothing was sent.
        StoreBusyError: another agent runs for this store; nothing was sent.
        models.wire.errors.LinkError: the broker cannot be reached, and the plan has an end.
        ServerSilentError: the time is up, and messages still wait.
    """
    from random import Random

    from models.wire.link import LinkSettings, Will
    from models.wire.listening_link import ListeningLink

    store, device_id = client.store, client.profile.device_id
    parts = parts or AgentParts(hardware_id=read_hardware_id())
    identity = own_identity(store, device_id=device_id, hardware_id=parts.hardware_id)
    host, port = broker
    will = Will(
        topic=up(device_id, Up.STATUS),
        payload=status_payload(store, Presence.OFFLINE, device_id, clock()),
    )
    settings = LinkSettings(host=host, port=port, client_id=device_id, will=will, tls=parts.tls)
    link = ListeningLink(settings, jitter=Random())
    agent = DeviceAgent(
        client,
        link,
        plan=plan,
        clock=clock,
        counters=AgentCounters(),
        on_report=on_report,
        show=show,
        parts=parts,
    )
    agent.listen(server_keys, None if identity is None else identity.opening_key)
    with agent_lock(store.path):
        on_start(agent)
        return agent.run()


class DeviceAgent:
    """One device's main loop; everything but the receivers runs in the caller's thread.

    Args:
        client: the open device.
        link: not connected yet, its last will set.
        plan: when to end, and what to say for the owner.
        clock: the device's time.
        counters: shared with the receivers.
        on_report: called with each report.
        show: called with each notice as its owner shall read it.
        parts: what else it works with.
    """

    def __init__(
        self,
        client: EdgeClient,
        link: ListeningLink,
        *,
        plan: AgentPlan,
        clock: Clock,
        counters: AgentCounters,
        on_report: Callable[[Report], None],
        show: Callable[[str, ShownNotice], None],
        parts: AgentParts | None = None,
    ) -> None:
        self._client = client
        self._link = link
        self._plan = plan
        self._clock = clock
        self.counters = counters
        self._on_report = on_report
        self._show = show
        self._parts = parts or AgentParts()
        self._device_id = client.profile.device_id
        self._models = client.models
        self._meter = TrafficMeter(plan.bytes_per_day, clock=clock, elapsed_s=elapsed_s)
        self._books = DeviceBooks(client.store, self._meter, elapsed_s=elapsed_s())
        self._sender = OutboxSender(client.store, link, meter=self._meter, counters=counters)
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._must_say_birth = False
        self._is_stopped = False
        self._predicted_s: float | None = None
        self._untold: Report | None = None

    def listen(self, server_keys: Mapping[str, bytes], opening_key: OpeningKey | None) -> None:
        """Have notices and configurations heard; before `run`.

        Args:
            server_keys: Ed25519 public keys (32 raw bytes) that the server signs with, by key id.
            opening_key: the device's own, None where it has no identity.
        """
        from models.wire.envelope import VerifyKey, trusted_keys

        from .link.config_receiver import ConfigurationReceiver
        from .link.listener import Listener

        listener = Listener(
            path=self._client.store.path,
            device_id=self._device_id,
            trusted=trusted_keys(*(VerifyKey.from_bytes(raw) for raw in server_keys.values())),
            clock=self._clock,
            counters=self.counters,
            opening_key=opening_key,
            store_key=self._parts.store_key,
        )
        notices = NoticeReceiver(listener, wake=self.wake)
        configurations = ConfigurationReceiver(listener, changed=self.introduce_again)
        self._link.subscribe_in_groups(down(self._device_id, Down.NOTIFY), notices.take)
        self._link.subscribe(down(self._device_id, Down.CONFIG), configurations)
        self._parts.listen(self._link, listener, wake=self.wake, meter=self._meter)

    def wake(self) -> None:
        """Have the loop look at the store at once; may be called from any thread."""
        self._woken.put(None)

    def introduce_again(self) -> None:
        """Have the loop say what is in force now; may be called from any thread."""
        self._must_say_birth = True
        self.wake()

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
            models.wire.errors.LinkError: the broker cannot be reached, and the plan has an end.
            ServerSilentError: the time is up, and messages still wait.
        """
        deadline = None
        if self._plan.timeout_s is not None:
            deadline = time.monotonic() + self._plan.timeout_s
        self._meter.load(self._client.store)
        with self._outlasting_a_busy_store():
            self._take_reading()
            self._predict_where_due()
        self._link.on_traffic(self._meter.observe)
        self._link.on_connected(self._connected)
        self._link.hold_back_while(self._meter.is_spent)
        is_fulfilled = False
        is_patient = self._plan.until is Until.STOPPED
        self._link.connect(
            patiently=is_patient, within_s=None if deadline is None else left_s(deadline)
        )
        try:
            while not self._is_stopped:
                self._work_once(deadline)
                is_fulfilled = self._is_fulfilled()
                if is_fulfilled or (deadline is not None and time.monotonic() >= deadline):
                    break
                self._wait(deadline)
            with self._outlasting_a_busy_store():
                self._say_status(Presence.OFFLINE)
        finally:
            self._link.close()
            self._close_books()
        is_cut_short = not (is_fulfilled or self._is_stopped or self._plan.until is Until.STOPPED)
        if is_cut_short and self._client.store.outbox():
            raise ServerSilentError(f"{self._why_cut_short()}; the rest waits for the next run")
        return self.counters

    def _why_cut_short(self) -> str:
        waiting = self._client.store.outbox()
        if any(not self._meter.may_send(kind_of(message.topic)) for message in waiting):
            return f"the day's budget of {self._plan.bytes_per_day} bytes is spent"
        return f"the broker did not take everything within {self._plan.timeout_s:g} s"

    def _work_once(self, deadline: float | None) -> None:
        connected = self._link.is_connected
        self._parts.turn(now=self._clock(), elapsed_s=elapsed_s(), is_connected=connected)
        with self._outlasting_a_busy_store():
            self._take_reading()
            self._say_birth_where_due()
            self._follow_releases()
            self._predict_where_due()
            self._show_what_waits()
            patience_s = PATIENCE_S if deadline is None else min(PATIENCE_S, left_s(deadline))
            self._sender.pump(patience_s=patience_s)
            self._books.write_where_due(self.counters.refused, elapsed_s=elapsed_s())

    @contextmanager
    def _outlasting_a_busy_store(self) -> Iterator[None]:
        try:
            yield
        except StoreBusyError as error:
            if self._plan.until is not Until.STOPPED:
                raise
            logger.warning("tried again soon: %s", error)

    def _wait(self, deadline: float | None) -> None:
        patience = self._plan.poll_s
        if deadline is not None:
            patience = min(patience, left_s(deadline))
        if self._parts.sampler is not None:
            patience = max(0.0, min(patience, self._parts.sampler.wait_s(elapsed_s())))
        if self._parts.supervisor is not None and self._parts.supervisor.every_s is not None:
            patience = min(patience, self._parts.supervisor.every_s)
        try:
            self._woken.get(timeout=patience)
            while True:
                self._woken.get_nowait()
        except queue.Empty:
            return

    def _is_fulfilled(self) -> bool:
        if self._plan.until is Until.STOPPED or self._client.store.outbox():
            return False
        return self._plan.until is Until.SENT or self.counters.shown > 0

    def _connected(self, _session_present: bool) -> None:  # noqa: FBT001 - the link's signature
        will = self._link.settings.will
        will_bytes = 0 if will is None else len(will.topic) + len(will.payload)
        filters = (down(self._device_id, Down.NOTIFY), down(self._device_id, Down.CONFIG))
        sent, heard = connection_bytes(self._device_id, will_bytes=will_bytes, filters=filters)
        self._meter.count(UP, CONNECTION, sent)
        self._meter.count(DOWN, CONNECTION, heard)
        self._books.note_connected(self._clock())
        self.introduce_again()

    # --- model and prediction ---------------------------------------------------------------------

    def _take_reading(self) -> None:
        if self._parts.sampler is not None:
            self._parts.sampler.poll(now=self._clock(), elapsed_s=elapsed_s())

    def _follow_releases(self) -> None:
        releases = self._parts.releases
        if releases is not None and releases.poll(self._client.store, elapsed_s=elapsed_s()):
            self._client.reload_model()
            self._predicted_s = None
            self.introduce_again()

    def _predict_where_due(self) -> None:
        store, now = self._client.store, self._clock()
        if PREDICTION in stopped(store):
            return
        if self._is_prediction_due():
            self._untold = self._client.predict(now)
            self._predicted_s = elapsed_s()
            self.counters.predictions += 1
            self._on_report(self._untold)
        if self._untold is not None:
            self._books.note_report(self._untold, now=now)
            self._close_what_is_of_a_former_pack()
            self._put_out_summary(now)
            self._untold = None

    def _is_prediction_due(self) -> bool:
        if self._predicted_s is None:
            return True
        hours = in_force(self._client.store).get("predict_every_h")
        every = self._plan.predict_every if hours is None else timedelta(hours=hours)
        return elapsed_s() - self._predicted_s >= every.total_seconds()

    def _put_out_summary(self, now: datetime) -> None:
        store = self._client.store
        if not allowed(store, Purpose.SUMMARIES):
            return
        summary = self._client.summary(now)
        if summary is None:
            return
        topic = up(self._device_id, Up.SUMMARY)
        with store.transaction():
            store.put_out(Purpose.SUMMARIES, topic, encode(summary))
            waiting = [message.number for message in store.outbox() if message.topic == topic]
            for number in waiting[:-MAX_WAITING_SUMMARIES]:
                store.sent(number)
        self.counters.summaries += 1

    # --- notices ----------------------------------------------------------------------------------

    def _close_what_is_of_a_former_pack(self) -> None:
        """Tell the server which notices no longer count, ahead of the summary it decides on."""
        store, pack_since = self._client.store, self._client.pack_since
        if not allowed(store, Purpose.NOTICES):
            return
        for stored in store.notices():
            notice = decode(stored.body.encode(), Notice)
            if is_of_former_pack(notice, pack_since=pack_since):
                self._move(stored, NoticeState.REPLACED)

    def _show_what_waits(self) -> None:
        store = self._client.store
        now = self._clock()
        waiting = [n for n in store.notices() if n.state is NoticeState.RECEIVED]
        if not waiting or not allowed(store, Purpose.NOTICES):
            return
        pack_since, quiet = self._client.pack_since, store.quiet_hours
        is_quiet = quiet is not None and quiet.hold(now)
        if len(waiting) > SHOWN_AT_ONCE and not is_quiet:
            self.wake()
        for stored in waiting[:SHOWN_AT_ONCE]:
            notice = decode(stored.body.encode(), Notice)
            end = end_of(notice, now=now, pack_since=pack_since)
            if end is not None:
                self._move(stored, end)
            elif not is_quiet:
                try:
                    self._show_one(stored, notice, now=now)
                except StoppedError:
                    # Without a prediction there are no figures to fill in; it waits.
                    return

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

    # --- what the link itself says ----------------------------------------------------------------

    def _say_birth_where_due(self) -> None:
        may_speak = self._link.is_connected and self._meter.may_send(Up.BIRTH.value)
        if not self._must_say_birth or not may_speak:
            return
        # First, or what the link's thread asks for meanwhile would be lost.
        self._must_say_birth = False
        try:
            payload = birth_payload(
                self._client.store,
                device_id=self._device_id,
                model_version=self._client.predictor.bundle.version,
                refusal=self._last_refusal(),
                now=self._clock(),
            )
            self._link.publish(up(self._device_id, Up.BIRTH), payload)
            self._say_status(Presence.ONLINE)
        except BaseException:
            self._must_say_birth = True
            raise

    def _last_refusal(self) -> Refusal | None:
        try:
            return self._models.last_refusal()
        except SlotError as error:
            logger.warning("what was refused cannot be told: %s", error)
            return None

    def _say_status(self, presence: Presence) -> None:
        if self._link.is_connected and self._meter.may_send(Up.STATUS.value):
            payload = status_payload(self._client.store, presence, self._device_id, self._clock())
            self._link.publish(up(self._device_id, Up.STATUS), payload, retain=True)

    def _close_books(self) -> None:
        if self._parts.sampler is not None:
            self._parts.sampler.close()
        try:
            self._books.write(self.counters.refused)
        except StoreBusyError as error:
            logger.warning("the last counts are not kept: %s", error)
