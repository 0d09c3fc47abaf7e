"""Messages and connections on their way to a broker, and what it answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


class Delivery:
    """One message on its way to the broker; its confirmation is no proof that anybody has it."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._refused = False

    @property
    def is_answered(self) -> bool:
        """Whether the broker acknowledged or refused it."""
        return self._answered.is_set()

    @property
    def confirmed(self) -> bool:
        """Whether the broker acknowledged it."""
        return self._answered.is_set() and not self._refused

    def wait(self, timeout_s: float) -> bool:
        """Wait until the broker acknowledged it; never call this from a handler."""
        self._answered.wait(timeout_s)
        return self.confirmed

    def _answer(self, *, refused: bool) -> None:
        self._refused = refused
        self._answered.set()


class Unconfirmed:
    """Messages without an answer by packet id; the answer may come before its message is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Delivery] = {}
        self._early: dict[int, bool] = {}

    def __len__(self) -> int:
        """Return how many messages have no answer yet."""
        return len(self._waiting)

    def expect(self, packet_id: int) -> Delivery:
        """Return the delivery of a packet that was handed over."""
        delivery = Delivery()
        with self._lock:
            if packet_id in self._early:
                delivery._answer(refused=self._early.pop(packet_id))  # noqa: SLF001 - one module
            else:
                self._waiting[packet_id] = delivery
        return delivery

    def answer(self, packet_id: int, *, refused: bool) -> None:
        """Note what the broker answered to a packet."""
        with self._lock:
            delivery = self._waiting.pop(packet_id, None)
            if delivery is None:
                self._early[packet_id] = refused
            else:
                delivery._answer(refused=refused)  # noqa: SLF001 - one module


@dataclass(slots=True)
class Attempt:
    """One attempt to connect; answered once the broker took the subscriptions, or refused."""

    answered: threading.Event = field(default_factory=threading.Event)
    refusal: str | None = None
    session_present: bool = False
    unsupported_version: bool = False
