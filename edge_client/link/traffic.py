"""Bytes a day on the link: counted by kind, kept in the store, and held within a budget.

What is counted is what MQTT 5 at QoS 1 makes of a message: an estimate by its packet formats, the
acknowledgement included. Not in it are TCP, IP and TLS, messages that are sent again after a lost
connection, and keep-alive pings (4 bytes each).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from models.wire.topics import Down, Up

from ..store.mailbox import Traffic
from ..store.reading_ring import FIRST_DAY

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from ..store.mailbox import Mailbox

SECONDS_PER_DAY = 86_400
UP, DOWN = "up", "down"
CONNECTION = "connection"
OTHER = "other"
ALWAYS_PASS = frozenset({Up.ACK.value, Down.NOTIFY.value, CONNECTION})
"""What a budget never holds back."""

_PUBACK_BYTES = 4
_CONNECT_BYTES, _CONNACK_BYTES = 44, 30
_SUBSCRIBE_BYTES, _SUBACK_BYTES = 5, 6
_PER_FILTER_BYTES = 3
_WILL_BYTES = 8
_LEAST_DAY_S = 23 * 3_600.0
"""Shorter than a day by what a clock may be put right at midnight."""
_KINDS = frozenset({*(kind.value for kind in Up), *(kind.value for kind in Down)})


def publish_bytes(topic: str, payload_bytes: int) -> int:
    """Estimate what one message costs on the wire: PUBLISH at QoS 1, and its PUBACK.

    Topic length (2 bytes), topic, packet id (2), properties (at least 1), payload; before them the
    packet's type (1) and the length of the rest in 7 bits a byte (MQTT 5, sections 2.1 and 3.3).
    """
    topic_bytes = len(topic) if topic.isascii() else len(topic.encode())
    rest = 2 + topic_bytes + 2 + 1 + payload_bytes
    length_bytes = 1 if rest < 1 << 7 else -(-rest.bit_length() // 7)
    return 1 + length_bytes + rest + _PUBACK_BYTES


def connection_bytes(
    client_id: str, *, will_bytes: int, filters: tuple[str, ...]
) -> tuple[int, int]:
    """Estimate what connecting and subscribing costs: bytes up, bytes down."""
    named = sum(len(name.encode()) + _PER_FILTER_BYTES for name in filters)
    up = _CONNECT_BYTES + len(client_id.encode()) + will_bytes + _WILL_BYTES
    return up + _SUBSCRIBE_BYTES + named, _CONNACK_BYTES + _SUBACK_BYTES + len(filters)


@lru_cache(maxsize=64)
def kind_of(topic: str) -> str:
    """Return which kind of message travels on a topic."""
    last = topic.rpartition("/")[2]
    return last if last in _KINDS else OTHER


def day_of(now: datetime) -> int:
    """Return the day that a moment lies in, in days since the Unix epoch, UTC."""
    return int(now.timestamp()) // SECONDS_PER_DAY


@dataclass(slots=True)
class _Count:
    messages: int = 0
    num_bytes: int = 0


class TrafficMeter:
    """Counts what passes, in whatever thread, and says what may still be sent today.

    A clock that is set to and fro earns nothing: a day that it comes back to goes on with what was
    sent on it, and of new days one begins in 23 hours.

    Args:
        bytes_per_day: the budget of what the device causes: what it sends, and connecting. What
            others send to it is counted, too, but holds back nothing: anybody on the broker could
            spend a budget for it.
        clock: the device's time.
        elapsed_s: a clock that never jumps, seconds.
    """

    def __init__(
        self,
        bytes_per_day: int,
        *,
        clock: Callable[[], datetime],
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes_per_day = bytes_per_day
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._passed: dict[tuple[int, str, str], _Count] = {}
        self._caused_on: dict[int, int] = {}
        self._day = day_of(clock())
        self._caused = 0
        self._begun_s: float | None = None

    def load(self, mailbox: Mailbox) -> None:
        """Take up what was counted before this process started."""
        kept = mailbox.traffic(FIRST_DAY)
        with self._lock:
            for passed in kept:
                if is_caused_here(passed.direction, passed.kind):
                    self._spend(passed.day, passed.num_bytes)

    def observe(self, is_up: bool, topic: str, payload_bytes: int) -> None:  # noqa: FBT001 - the link's call
        """Count one message; the link calls this in any thread."""
        direction = UP if is_up else DOWN
        self.count(direction, kind_of(topic), publish_bytes(topic, payload_bytes))

    def count(self, direction: str, kind: str, num_bytes: int) -> None:
        """Count one message of so many bytes."""
        day = day_of(self._clock())
        with self._lock:
            count = self._passed.get((day, direction, kind))
            if count is None:
                count = self._passed[day, direction, kind] = _Count()
            count.messages += 1
            count.num_bytes += num_bytes
            if is_caused_here(direction, kind):
                self._begin_where_due(day)
                self._spend(self._day, num_bytes)

    def is_spent(self) -> bool:
        """Tell whether the device has caused today what it may."""
        with self._lock:
            self._begin_where_due(day_of(self._clock()))
            return self._caused >= self.bytes_per_day

    def _begin_where_due(self, day: int) -> None:
        if day == self._day:
            return
        now_s = self._elapsed_s()
        if self._begun_s is not None and now_s - self._begun_s < _LEAST_DAY_S:
            return
        self._begun_s = now_s
        self._day, self._caused = day, self._caused_on.get(day, 0)

    def _spend(self, day: int, num_bytes: int) -> None:
        self._caused_on[day] = self._caused_on.get(day, 0) + num_bytes
        if day == self._day:
            self._caused += num_bytes

    def left_today(self) -> int:
        """Return how many bytes the device may still cause today."""
        with self._lock:
            self._begin_where_due(day_of(self._clock()))
            return max(0, self.bytes_per_day - self._caused)

    def may_send(self, kind: str) -> bool:
        """Tell whether a message of a kind may leave today, or has to wait."""
        return kind in ALWAYS_PASS or not self.is_spent()

    def flush(self, mailbox: Mailbox) -> None:
        """Keep in the store what was counted since the last flush.

        Raises:
            StoreError: nothing was kept; the next flush tries again.
        """
        with self._lock:
            passed, self._passed = self._passed, {}
        rows = [
            Traffic(day, direction, kind, count.messages, count.num_bytes)
            for (day, direction, kind), count in passed.items()
        ]
        try:
            mailbox.count_traffic(rows)
        except BaseException:
            with self._lock:
                for key, count in passed.items():
                    again = self._passed.setdefault(key, _Count())
                    again.messages += count.messages
                    again.num_bytes += count.num_bytes
            raise


def is_caused_here(direction: str, kind: str) -> bool:
    """Tell whether bytes spend the device's budget: what it sends, and connecting both ways."""
    return direction == UP or kind == CONNECTION
