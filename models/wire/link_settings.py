"""What a link is told, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS_PER_DAY = 86_400


class MqttVersion(StrEnum):
    """Which protocol to speak; `auto` tries 5 and falls back to 3.1.1."""

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says, retained, once this side is gone without a word."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTls:
    """How to speak TLS to a broker.

    Attributes:
        authorities: PEM file of the authorities that may speak for the broker; no others are.
        certificate: PEM file of this side's certificate, None to show none.
        key: PEM file of its private key.
        looks_at_time: whether this machine's clock can be relied on; where it cannot, the time
            within which the broker's certificate holds is not looked at, and everything else is.
    """

    authorities: Path
    certificate: Path | None = None
    key: Path | None = None
    looks_at_time: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How to reach a broker.

    Attributes:
        host: name or address.
        port: TCP port.
        client_id: names the session; two links with one id push each other out.
        will: last will, None for none.
        session_expiry_s: how long the broker keeps the session and its queue, seconds (MQTT 5).
        keep_alive_s: longest silence before a ping, seconds; small devices like 15 minutes.
        connect_timeout_s: how long one attempt may take, seconds.
        first_wait_s: upper bound of the first random wait before a new attempt, seconds.
        longest_wait_s: upper bound to which it doubles, seconds; 15 minutes spread a fleet.
        version: protocol to speak.
        tls: says how to speak TLS, asked at every connection; None for one in the clear.
    """

    host: str
    port: int
    client_id: str
    will: Will | None = None
    session_expiry_s: int = 14 * SECONDS_PER_DAY
    keep_alive_s: int = 900
    connect_timeout_s: float = 10.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 900.0
    version: MqttVersion = MqttVersion.AUTO
    tls: Callable[[], LinkTls] | None = None


@dataclass(slots=True)
class LinkCounters:
    """What happened on a link since it was made.

    Attributes:
        received: messages handed to a handler.
        handler_errors: handlers that raised; the message was acknowledged and is gone.
        left_unacknowledged: messages that a handler could not keep; the broker brings them again.
        unrouted: messages that no handler wanted.
        published: messages handed to the broker's queue.
        confirmed: messages the broker acknowledged; that is not durability.
        refused: messages or subscriptions the broker refused.
        losses: connections lost.
        taken_over: of them, those that another client with the same identifier ended (MQTT 5).
        protocol_errors: packets from the broker that could not be read.
        oversized: packets from the broker larger than any message; none of them was read.
        bytes_out: payload and topic bytes handed over.
        bytes_in: payload and topic bytes received.
    """

    received: int = 0
    handler_errors: int = 0
    left_unacknowledged: int = 0
    unrouted: int = 0
    published: int = 0
    confirmed: int = 0
    refused: int = 0
    losses: int = 0
    taken_over: int = 0
    protocol_errors: int = 0
    oversized: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
