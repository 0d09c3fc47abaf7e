"""Messages and connections on their way to a broker, and what it answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


class Delivery:
    """One message on its way to the broker; its confirmation is no proof that anybody has it."""

    __slots__ = ("_is_answered", "_refused", "_waiter")

    def __init__(self) -> None:
        self._is_answered = False
        self._refused = False
        # Made only where somebody waits: most messages are never waited for.
        self._waiter: threading.Event | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the broker acknowledged or refused it."""
        return self._is_answered

    @property
    def confirmed(self) -> bool:
        """Whether the broker acknowledged it."""
        return self._is_answered and not self._refused

    def wait(self, timeout_s: float) -> bool:
        """Wait until the broker acknowledged it; never call this from a handler."""
        if not self._is_answered:
            waiter = self._waiter or threading.Event()
            self._waiter = waiter
            # The answer may have come before it could see the waiter.
            if not self._is_answered:
                waiter.wait(timeout_s)
        return self.confirmed

    def _answer(self, *, refused: bool) -> None:
        self._refused = refused
        self._is_answered = True
        if self._waiter is not None:
            self._waiter.set()


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
    """One attempt to connect; answered once the broker took the subscriptions, or refused.

    Attributes:
        answered: set then.
        is_clean: whether the broker is asked to forget the session.
        refusal: what was wrong with the broker's answer.
        session_present: whether the broker goes on with a session.
        unsupported_version: whether another protocol may be spoken there.
        is_worth_another: whether the same again may end otherwise.
    """

    answered: threading.Event = field(default_factory=threading.Event)
    is_clean: bool = False
    refusal: str | None = None
    session_present: bool = False
    unsupported_version: bool = False
    is_worth_another: bool = False
