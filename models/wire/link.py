"""One MQTT link for both sides: the door of paho, with its pitfalls closed.

What paho does by itself and this does not: let an exception in a handler end its thread,
acknowledge a message that the handler could not keep, reconnect all devices of a fleet in the same
seconds, forget subscriptions when the broker lost the session, and send what no receiver can hold.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from .codec import MAX_PAYLOAD_BYTES
from .delivery import Attempt, Delivery, Unconfirmed
from .errors import LinkError, MessageTooLargeError, words_of
from .inbound import GROUP, Arrived, Inbound, Route, pattern_of
from .link_settings import LinkCounters, LinkSettings, MqttVersion, Will
from .topics import QOS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from paho.mqtt.reasoncodes import ReasonCode

    from .inbound import BatchHandler, Handler

    Observer = Callable[[bool, str, int], None]

__all__ = ["Delivery", "Link", "LinkCounters", "LinkSettings", "MqttVersion", "Will"]

logger = logging.getLogger(__name__)

IN_FLIGHT_WINDOW = GROUP
"""Messages on their way at once; 500 was 2.6 times slower than 20."""
WAITING_MESSAGES = 2_000
"""Messages that may wait in memory for the window; more are refused, the caller keeps them."""
_TAKEN = (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN)
_POLL_S = 1.0
_HEADER_ROOM_BYTES = 1024


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
        self._jitter = jitter
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
        self._waits = 0
        self._thread: threading.Thread | None = None
        self._client: mqtt.Client | None = None

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

    def connect(self, *, patiently: bool = False) -> None:
        """Connect, and keep the connection from then on.

        Args:
            patiently: where nobody answers, go on trying instead of raising.

        Raises:
            LinkError: nobody answers at the address, or the broker refuses; nothing keeps running.
        """
        try:
            self._connect_once()
        except LinkError as error:
            if not patiently:
                raise
            logger.warning("connecting again and again: %s", error)
            self._loss_logged = True
        self._thread = threading.Thread(target=self._run, name="fedcell-link", daemon=True)
        self._thread.start()

    def _connect_once(self) -> None:
        version = self.settings.version
        first = mqtt.MQTTv311 if version == MqttVersion.V311 else mqtt.MQTTv5
        accepted = self._first_connection(first)
        if not accepted and version == MqttVersion.AUTO and self._attempt.unsupported_version:
            logger.info("broker speaks no MQTT 5, falling back to 3.1.1")
            accepted = self._first_connection(mqtt.MQTTv311)
        if not accepted:
            what = self._attempt.refusal or "it does not answer as an MQTT broker"
            self._client = None
            raise self._error(what, "check that an MQTT broker listens there and lets this one in")

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
        properties = None
        if expires_in_s is not None and self._client.protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
            properties.MessageExpiryInterval = max(1, expires_in_s)
        info = self._client.publish(topic, payload, qos=QOS, retain=retain, properties=properties)
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

    def _first_connection(self, protocol: MQTTProtocolVersion) -> bool:
        self._attempt = Attempt()
        self._client = client = self._make_client(protocol)
        settings = self.settings
        options: dict[str, Any] = {}
        if protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = IN_FLIGHT_WINDOW
            properties.MaximumPacketSize = MAX_PAYLOAD_BYTES + _HEADER_ROOM_BYTES
            options = {"clean_start": False, "properties": properties}
        try:
            client.connect(settings.host, settings.port, settings.keep_alive_s, **options)
        except OSError as error:
            self._client = None
            remedy = "start one with 'fedcell server broker', or name the right host and port"
            raise self._error(words_of(error), remedy) from None
        deadline = time.monotonic() + settings.connect_timeout_s
        while not self._attempt.answered.is_set() and time.monotonic() < deadline:
            if self._loop(client, 0.1) != mqtt.MQTT_ERR_SUCCESS:
                # Brokers that know no MQTT 5 may hang up instead of saying so.
                self._attempt.unsupported_version |= not self._attempt.answered.is_set()
                break
        if self._online.is_set():
            return True
        client.disconnect()
        return False

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        settings = self.settings
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if protocol == mqtt.MQTTv5 else False,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(IN_FLIGHT_WINDOW)
        client.max_queued_messages_set(WAITING_MESSAGES)
        if settings.will is not None:
            client.will_set(settings.will.topic, settings.will.payload, qos=QOS, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_publish = self._confirmed
        client.on_message = self._received
        # With this set, paho leaves writing to our loop: publish() may come from any thread.
        client.on_socket_register_write = _write_in_loop
        client.on_socket_open = _send_at_once
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
        self._attempt.session_present = flags.session_present
        if not self._filters or (self._subscribed_once and flags.session_present):
            self._ready()
        elif client.protocol == mqtt.MQTTv5:
            client.subscribe([(name, SubscribeOptions(qos=QOS)) for name in self._filters])
        else:
            client.subscribe([(name, QOS) for name in self._filters])

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
        if not self._inbound.was_held:
            self._waits = 0
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
        if was_online and not self._closing.is_set():
            self.counters.losses += 1
            if not self._loss_logged:
                logger.warning("MQTT connection lost (%s), connecting again", reason)
            self._loss_logged = True

    # --- the network thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while self._client is None and not self._closing.wait(self._next_wait_s()):
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

    def _loop(self, client: mqtt.Client, timeout_s: float) -> MQTTErrorCode:
        try:
            code = client.loop(timeout=timeout_s)
        except Exception:
            # What a broker sends must not end the thread; a new connection starts afresh.
            self.counters.protocol_errors += 1
            logger.exception("the broker sent what paho cannot read")
            code = mqtt.MQTT_ERR_PROTOCOL
        if self._inbound.has_group and (code != mqtt.MQTT_ERR_SUCCESS or not _more_waits(client)):
            self._inbound.hand_over(client.ack)
        return code

    def _connect_again(self, client: mqtt.Client) -> None:
        self._online.clear()
        while not self._closing.wait(self._next_wait_s()):
            self._inbound.is_held = False
            self._attempt = Attempt()
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

    def _next_wait_s(self) -> float:
        """Full jitter: uniform between 0 and a bound that doubles (Brooker 2015)."""
        bound = min(self.settings.longest_wait_s, self.settings.first_wait_s * 2.0**self._waits)
        self._waits = min(self._waits + 1, 32)
        return self._jitter.uniform(0.0, bound)

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


def _write_in_loop(_client: mqtt.Client, _userdata: Any, _socket: Any) -> None:
    """Leave writing to the loop, which the wake-up socket has already woken."""


def _send_at_once(_client: mqtt.Client, _userdata: Any, opened: Any) -> None:
    """Do not wait for more bytes: with delayed acknowledgements that costs 40 ms a message."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _more_waits(client: mqtt.Client) -> bool:
    """Tell whether the broker has sent more than was read."""
    opened = client.socket()
    return opened is not None and bool(select.select([opened], [], [], 0)[0])
