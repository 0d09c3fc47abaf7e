"""A client of paho that holds no more than a message's worth of what a broker sends.

paho reads a packet of whatever size into memory before anybody may look at it, and keeps every
message at QoS 2 until the broker asks for it: a broken or hostile broker ends a small device so.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from .codec import MAX_PAYLOAD_BYTES
from .inbound import GROUP
from .link_tls import tls_context
from .topics import QOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .link_settings import LinkSettings, LinkTls

IN_FLIGHT_WINDOW = GROUP
"""Messages on their way at once; 500 was 2.6 times slower than 20."""
WAITING_MESSAGES = 2_000
"""Messages that may wait in memory for the window; more are refused, the caller keeps them."""
LARGEST_PACKET_BYTES = MAX_PAYLOAD_BYTES + 1024
"""A packet with the largest payload, and room for its topic and properties."""
_QOS_BITS, _QOS_1_BITS = 0x06, 0x02


class BoundedClient(mqtt.Client):
    """paho's client, which hangs up on what it could not hold.

    Attributes:
        on_oversize: called with the bytes that a packet has left, before the connection is dropped.
        tls: says how to speak TLS, None for a connection in the clear.
    """

    on_oversize: Callable[[int], None]
    tls: Callable[[], LinkTls] | None = None

    def secure_anew(self) -> None:
        """Read the files of TLS again, for the next connection; nothing happens without TLS.

        Raises:
            OSError: one is missing or holds something else.
        """
        if self.tls is not None:
            # The setter takes none a second time, and certificates are renewed.
            self._ssl_context, self._ssl = tls_context(self.tls()), True

    def reconnect(self) -> MQTTErrorCode:
        """Connect again, with the certificate that is there now.

        Raises:
            OSError: nobody answers, TLS cannot be agreed on, or its files cannot be read.
        """
        self.secure_anew()
        return super().reconnect()

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> Any:
        # paho's own leaves a connection open whose handshake failed.
        context: Any = self._ssl_context
        secured = context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            secured.settimeout(self._connect_timeout)
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _sock_recv(self, bufsize: int) -> bytes:
        # Of a packet's body, paho asks for all that is missing: the length that the broker claims.
        if bufsize > LARGEST_PACKET_BYTES:
            self.on_oversize(bufsize)
            raise ConnectionError("the packet is larger than any message")
        opened = self._sock
        # Called three times a packet: a plain socket needs none of what paho adds for others.
        if type(opened) is socket.socket:
            return opened.recv(bufsize)
        return super()._sock_recv(bufsize)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        opened = self._sock
        if type(opened) is not socket.socket:
            return super()._sock_send(buf)
        # paho's own asks which error of `ssl` it is, and fails where it was loaded without: what
        # went wrong would be taken for sent.
        try:
            return opened.send(buf)
        except BlockingIOError:
            self._call_socket_register_write()
            raise

    def _handle_publish(self) -> MQTTErrorCode:
        # Nothing is subscribed to at QoS 2, where messages pile up here until they are released.
        if self._in_packet["command"] & _QOS_BITS > _QOS_1_BITS:
            return mqtt.MQTT_ERR_PROTOCOL
        return super()._handle_publish()

    def start_clean(self, is_clean: bool) -> None:  # noqa: FBT001 - the protocol's flag
        """Have the next connections ask the broker to forget the session, or to go on with it."""
        if self.protocol == mqtt.MQTTv5:
            self._clean_start = is_clean
        else:
            self._clean_session = is_clean

    def begin(self, settings: LinkSettings, *, is_clean: bool, timeout_s: float) -> None:
        """Connect for the first time; the answer comes in the loop.

        Raises:
            OSError: nobody listens there.
        """
        self._connect_timeout = timeout_s
        options: dict[str, Any] = {}
        if self.protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
            properties.SessionExpiryInterval = settings.session_expiry_s
            properties.ReceiveMaximum = IN_FLIGHT_WINDOW
            properties.MaximumPacketSize = LARGEST_PACKET_BYTES
            options = {"clean_start": is_clean, "properties": properties}
        else:
            self.start_clean(is_clean)
        self.connect(settings.host, settings.port, settings.keep_alive_s, **options)
        # The setter takes none while a connection stands; this is for those that follow.
        self._connect_timeout = settings.connect_timeout_s

    def send(
        self, topic: str, payload: bytes, *, retain: bool, expires_in_s: int | None
    ) -> mqtt.MQTTMessageInfo:
        """Hand a message to paho's queue; where the protocol can tell, with the time it lives."""
        properties = None
        if expires_in_s is not None and self.protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
            properties.MessageExpiryInterval = max(1, expires_in_s)
        return self.publish(topic, payload, qos=QOS, retain=retain, properties=properties)

    def more_waits(self) -> bool:
        """Tell whether the broker has sent more than was read."""
        opened: Any = self.socket()
        if opened is not None and type(opened) is not socket.socket and opened.pending():
            return True
        return opened is not None and bool(select.select([opened], [], [], 0)[0])


def make_client(settings: LinkSettings, protocol: MQTTProtocolVersion) -> BoundedClient:
    """Return a client that is not connected; its loop is the caller's, and so are its answers."""
    client = BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if protocol == mqtt.MQTTv5 else False,
        protocol=protocol,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.tls = settings.tls
    client.max_inflight_messages_set(IN_FLIGHT_WINDOW)
    client.max_queued_messages_set(WAITING_MESSAGES)
    if settings.will is not None:
        client.will_set(settings.will.topic, settings.will.payload, qos=QOS, retain=True)
    # With this set, paho leaves writing to our loop: publish() may come from any thread.
    client.on_socket_register_write = _write_in_loop
    client.on_socket_open = _send_at_once
    return client


def listen_to(client: mqtt.Client, filters: Sequence[str]) -> None:
    """Ask for the messages that match any of some filters, in packets that a broker takes."""
    for some in _in_packets(filters):
        if client.protocol == mqtt.MQTTv5:
            client.subscribe([(name, SubscribeOptions(qos=QOS)) for name in some])
        else:
            client.subscribe([(name, QOS) for name in some])


def _in_packets(filters: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for name in filters:
        # Its length in two bytes, and one of options.
        own = len(name.encode()) + 3
        if some and size + own > MAX_PAYLOAD_BYTES:
            yield some
            some, size = [], 0
        some.append(name)
        size += own
    if some:
        yield some


def _write_in_loop(_client: mqtt.Client, _userdata: Any, _socket: Any) -> None:
    """Leave writing to the loop, which the wake-up socket has already woken."""


def _send_at_once(_client: mqtt.Client, _userdata: Any, opened: Any) -> None:
    """Do not wait for more bytes: with delayed acknowledgements that costs 40 ms a message."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
