"""One MQTT link for both sides: the door of paho, with its pitfalls closed.

What paho does by itself and this does not: let an exception in a handler end its thread,
acknowledge a message that the handler could not keep, reconnect all devices of a fleet in the same
seconds, forget subscriptions when the broker lost the session, and send what no receiver can hold.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt

from .bounded_client import IN_FLIGHT_WINDOW, WAITING_MESSAGES, listen_to, make_client
from .codec import MAX_PAYLOAD_BYTES
from .delivery import Attempt, Delivery, Unconfirmed
from .errors import LinkError, MessageTooLargeError, remedy_of, silence_of, words_of
from .inbound import Arrived, Inbound, Route, pattern_of
from .link_settings import LinkCounters, LinkSettings, MqttVersion, Will
from .patience import MOST_FAULTS, Patience, SessionFaults

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from .bounded_client import BoundedClient
    from .inbound import BatchHandler, Handler

    Observer = Callable[[bool, str, int], None]

__all__ = [
    "IN_FLIGHT_WINDOW",
    "WAITING_MESSAGES",
    "Delivery",
    "Link",
    "LinkCounters",
    "LinkSettings",
    "MqttVersion",
    "Will",
]

logger = logging.getLogger(__name__)

_TAKEN = (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN)
_POLL_S = 1.0
_SHORTEST_ATTEMPT_S = 0.1
_SESSION_TAKEN_OVER = 0x8E


class Link:
    """A connection to a broker that comes back by itself.

    Subscribe first, then `connect` (or enter the context). Handlers run in the link's own thread,
    one at a time, and may see any message twice; a message is acknowledged after its handler
    returned. A handler that raises is counted and logged, and its message is gone; one that raises
    `DeliverAgainError` keeps it with the broker.
    """

    def __init__(self, settings: LinkSettings, *, jitter: Random) -> None:
        """Prepare a link; nothing is sent before `connect`.

        Args:
            settings: how to reach the broker.
            jitter: source of the random waits between attempts.
        """
        self.settings = settings
        self.counters = LinkCounters()
        self._patience = Patience(jitter)
        self._faults = SessionFaults()
        self._filters: list[str] = []
        self._inbound = Inbound(self.counters)
        self._observe: Observer | None = None
        self._on_connected: list[Callable[[bool], None]] = []
        self._attempt = Attempt()
        self._online = threading.Event()
        self._closing = threading.Event()
        self._unconfirmed = Unconfirmed()
        self._subscribed_once = False
        self._loss_logged = False
        self._thread: threading.Thread | None = None
        self._client: BoundedClient | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the broker took the link and its subscriptions and was not lost since."""
        return self._online.is_set()

    @property
    def version(self) -> MqttVersion | None:
        """The protocol spoken, None before the first connection."""
        if self._client is None:
            return None
        return MqttVersion.V5 if self._client.protocol == mqtt.MQTTv5 else MqttVersion.V311

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Have `handler(topic, payload)` called for messages that match a filter.

        Before `connect` only: a session that the broker kept delivers at once.
        """
        self._add_route(topic_filter, Route(pattern_of(topic_filter), one=handler))

    def subscribe_in_groups(self, topic_filter: str, handler: BatchHandler) -> None:
        """Have `handler([(topic, payload), ...])` called for messages that have come together.

        A group is what the broker has sent without waiting, at most 20 messages, so that one
        transaction can keep them all; none of them waits for another. A handler that raises is
        called again with each message alone, and only the one that fails is gone.
        """
        self._add_route(topic_filter, Route(pattern_of(topic_filter), many=handler))

    def on_traffic(self, observe: Observer) -> None:
        """Have `observe(is_up, topic, payload bytes)` called for each message, in any thread."""
        self._observe = observe

    def renew(self) -> None:
        """Give up a connection on which nothing moves; the link connects again by itself."""
        client = self._client
        opened: Any = None if client is None else client.socket()
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def on_connected(self, hook: Callable[[bool], None]) -> None:
        """Have `hook(session_present)` called in the link's thread after every connection."""
        self._on_connected.append(hook)

    def hold_back_while(self, is_spent: Callable[[], bool]) -> None:
        """Have the longest waits before new connections while this is so; in the link's thread."""
        self._patience.is_spent = is_spent

    def connect(self, *, patiently: bool = False, within_s: float | None = None) -> None:
        """Connect, and keep the connection from then on.

        Args:
            patiently: where nobody answers, go on trying instead of raising.
            within_s: how long the first attempts may take together, seconds; None: each as long as
                the settings say.

        Raises:
            LinkError: nobody answers at the address, or the broker refuses; nothing keeps running.
        """
        try:
            self._connect_once(within_s)
        except LinkError as error:
            if not patiently:
                raise
            logger.warning("connecting again and again: %s", error)
            self._loss_logged = True
        self._thread = threading.Thread(target=self._run, name="fedcell-link", daemon=True)
        self._thread.start()

    def _connect_once(self, within_s: float | None = None) -> None:
        end_s = math.inf if within_s is None else time.monotonic() + within_s
        version = self.settings.version
        protocol = mqtt.MQTTv311 if version == MqttVersion.V311 else mqtt.MQTTv5
        accepted = self._first_connection(protocol, end_s)
        if not accepted and version == MqttVersion.AUTO and self._attempt.unsupported_version:
            logger.info("broker speaks no MQTT 5, falling back to 3.1.1")
            protocol = mqtt.MQTTv311
            accepted = self._first_connection(protocol, end_s)
        for _ in range(MOST_FAULTS + 1):
            if accepted or not self._attempt.is_worth_another:
                break
            accepted = self._first_connection(protocol, end_s)
        if not accepted:
            silent, remedy = silence_of(self.settings)
            self._client = None
            raise self._error(self._attempt.refusal or silent, remedy)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expires_in_s: int | None = None,
    ) -> Delivery:
        """Hand a message to the broker at QoS 1; while offline it waits in memory.

        Args:
            topic: where to.
            payload: at most 4096 bytes.
            retain: whether the broker keeps it for whoever subscribes later.
            expires_in_s: after how many seconds the broker may drop it (MQTT 5); the payload says
                the same, for brokers that do not.

        Raises:
            MessageTooLargeError: nothing was sent.
            LinkError: not connected yet, or too many messages wait; nothing was sent.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MessageTooLargeError(size=len(payload), limit=MAX_PAYLOAD_BYTES)
        if self._client is None or self._closing.is_set():
            raise self._error("the link is not connected", "call connect() first")
        info = self._client.send(topic, payload, retain=retain, expires_in_s=expires_in_s)
        if info.rc not in _TAKEN:
            what = f"{WAITING_MESSAGES} messages wait for it already"
            raise self._error(what, "keep the message and publish it later")
        self.counters.published += 1
        self.counters.bytes_out += len(topic) + len(payload)
        if self._observe is not None:
            self._observe(True, topic, len(payload))
        return self._unconfirmed.expect(info.mid)

    def close(self, *, drain_s: float = 2.0) -> None:
        """Send what waits, for at most `drain_s` seconds, and leave; the session stays."""
        thread = self._thread
        if thread is None:
            return
        deadline = time.monotonic() + drain_s
        while self.is_connected and len(self._unconfirmed) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closing.set()
        if self._client is not None:
            self._client.disconnect()
        thread.join(timeout=_POLL_S + self.settings.connect_timeout_s)
        self._online.clear()

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self.close()

    def _first_connection(self, protocol: MQTTProtocolVersion, end_s: float) -> bool:
        self._attempt = Attempt(is_clean=self._faults.are_too_many)
        self._client = client = self._make_client(protocol)
        begun_s = time.monotonic()
        deadline = min(end_s, begun_s + self.settings.connect_timeout_s)
        timeout_s = max(_SHORTEST_ATTEMPT_S, deadline - begun_s)
        try:
            client.begin(self.settings, is_clean=self._attempt.is_clean, timeout_s=timeout_s)
        except OSError as error:
            self._client = None
            raise self._error(words_of(error), remedy_of(error)) from None
        while not self._attempt.answered.is_set() and time.monotonic() < deadline:
            if self._loop(client, 0.1) != mqtt.MQTT_ERR_SUCCESS:
                # Brokers that know no MQTT 5 may hang up instead of saying so.
                is_silent = not self._attempt.answered.is_set()
                self._attempt.unsupported_version |= is_silent and not self._attempt.refusal
                break
        if self._online.is_set():
            client.start_clean(False)
            return True
        client.disconnect()
        return False

    def _make_client(self, protocol: MQTTProtocolVersion) -> BoundedClient:
        client = make_client(self.settings, protocol)
        client.on_oversize = self._oversized
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_publish = self._confirmed
        client.on_message = self._received
        return client

    def _connected(
        self,
        client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._attempt.refusal = f"it refused the connection: {reason}"
            self._attempt.unsupported_version = str(reason) == "Unsupported protocol version"
            self._attempt.answered.set()
            return
        if self._attempt.is_clean:
            self._faults.forget()
            if client.protocol != mqtt.MQTTv5:
                # A clean session of MQTT 3.1.1 ends with its connection: the next one lasts.
                self._attempt.is_worth_another = True
                self._attempt.answered.set()
                return
        self._attempt.session_present = flags.session_present
        if not self._filters or (self._subscribed_once and flags.session_present):
            self._ready()
        else:
            listen_to(client, self._filters)

    def _subscribed(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = sum(reason.is_failure for reason in reasons)
        if refused:
            self.counters.refused += refused
            logger.error("the broker refused %d of %d subscriptions", refused, len(reasons))
        self._subscribed_once = True
        self._ready()

    def _ready(self) -> None:
        """Count as connected only now: before its subscriptions stand a link is deaf."""
        if self._loss_logged:
            logger.info("MQTT connection is back")
        self._loss_logged = False
        self._patience.came_online(time.monotonic())
        self._online.set()
        self._attempt.answered.set()
        for hook in self._on_connected:
            try:
                hook(self._attempt.session_present)
            except Exception:
                self.counters.handler_errors += 1
                logger.exception("what should run after connecting failed")

    def _disconnected(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        was_online = self._online.is_set()
        self._online.clear()
        is_taken_over = reason.value == _SESSION_TAKEN_OVER
        self._note_loss(is_taken_over=is_taken_over)
        if is_taken_over:
            self.counters.taken_over += 1
            who = self.settings.client_id
            logger.warning("another client took over the session of %s; do two run as one?", who)
        if was_online and not self._closing.is_set():
            self.counters.losses += 1
            if not self._loss_logged:
                logger.warning("MQTT connection lost (%s), connecting again", reason)
            self._loss_logged = True

    def _note_loss(self, *, is_taken_over: bool = False) -> None:
        is_good = not (is_taken_over or self._inbound.was_held)
        self._patience.was_lost(time.monotonic(), counts_as_good=is_good)

    def _oversized(self, num_bytes: int) -> None:
        self.counters.oversized += 1
        self._faults.note(time.monotonic())
        self._attempt.refusal = f"it sent a packet of {num_bytes} bytes, more than any message has"
        self._attempt.is_worth_another = True
        logger.warning("the broker sent a packet of %d bytes; it was not read", num_bytes)

    # --- the network thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while self._client is None and not self._closing.wait(
            self._patience.next_wait_s(self.settings)
        ):
            with suppress(LinkError):
                self._connect_once()
        client = self._client
        if client is None:
            return
        while not self._closing.is_set():
            code = self._loop(client, _POLL_S)
            if self._inbound.is_held:
                # Only a new connection makes the broker bring a message again.
                client.disconnect()
                self._loop(client, 0.0)
                code = mqtt.MQTT_ERR_CONN_LOST
            if code != mqtt.MQTT_ERR_SUCCESS and not self._closing.is_set():
                self._connect_again(client)
        self._loop(client, 0.0)

    def _loop(self, client: BoundedClient, timeout_s: float) -> MQTTErrorCode:
        try:
            code = client.loop(timeout=timeout_s)
        except Exception:
            # What a broker sends must not end the thread; a new connection starts afresh.
            self.counters.protocol_errors += 1
            logger.exception("the broker sent what paho cannot read")
            code = mqtt.MQTT_ERR_PROTOCOL
        if self._inbound.has_group and (code != mqtt.MQTT_ERR_SUCCESS or not client.more_waits()):
            self._inbound.hand_over(client.ack)
        return code

    def _connect_again(self, client: BoundedClient) -> None:
        self._online.clear()
        self._note_loss()
        while not self._closing.wait(self._patience.next_wait_s(self.settings)):
            self._inbound.is_held = False
            self._attempt = Attempt(is_clean=self._faults.are_too_many)
            client.start_clean(self._attempt.is_clean)
            try:
                client.reconnect()
            except OSError:
                continue
            deadline = time.monotonic() + self.settings.connect_timeout_s
            while not self._attempt.answered.is_set() and time.monotonic() < deadline:
                if self._loop(client, 0.1) != mqtt.MQTT_ERR_SUCCESS:
                    break
            if self._online.is_set():
                return

    def _received(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if self._inbound.is_held:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self.counters.bytes_in += len(topic) + len(message.payload)
        if self._observe is not None:
            self._observe(False, topic, len(message.payload))
        arrived = Arrived(topic, bytes(message.payload), message.mid, message.qos)
        self._inbound.receive(arrived, client.ack)

    def _add_route(self, topic_filter: str, route: Route) -> None:
        if self._client is not None:
            raise ValueError(f"subscribe before connecting, got {topic_filter!r} afterwards")
        self._filters.append(topic_filter)
        self._inbound.routes.append(route)

    def _confirmed(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        packet_id: int,
        reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        if reason.is_failure:
            self.counters.refused += 1
            logger.error("the broker refused a message: %s", reason)
        else:
            self.counters.confirmed += 1
        self._unconfirmed.answer(packet_id, refused=reason.is_failure)

    def _error(self, what: str, remedy: str) -> LinkError:
        return LinkError(host=self.settings.host, port=self.settings.port, what=what, remedy=remedy)
