"""What an agent is told to do, and with which parts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from models.wire.messages import NoticeState

    from ..store.row_cipher import KeySource

DEFAULT_BYTES_PER_DAY = 65_536


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
        bytes_per_day: MQTT bytes that the device may send in a day, connecting included; above it
            only acknowledgements and notices pass. What comes does not count against it.
    """

    until: Until = Until.STOPPED
    timeout_s: float | None = None
    answer: NoticeState | None = None
    predict_every: timedelta = timedelta(days=1)
    poll_s: float = 5.0
    bytes_per_day: int = DEFAULT_BYTES_PER_DAY


class ReadingTaker(Protocol):
    """Takes readings of a gauge when they are due: `sensing.sampler.Sampler` is one."""

    def poll(self, *, now: datetime, elapsed_s: float) -> object:
        """Take a reading, where one is due."""
        ...

    def wait_s(self, elapsed_s: float) -> float:
        """Return the seconds until `poll` has something to do."""
        ...

    def close(self) -> None:
        """Keep what was seen; the agent ends."""
        ...


class Supervisor(Protocol):
    """Hears that the main loop still turns, such as `watchdog.Watchdog`."""

    @property
    def every_s(self) -> float | None:
        """Seconds between pings, None where none is wanted."""
        ...

    def ping(self, elapsed_s: float) -> None:
        """Hear it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    """What an agent works with besides its client; each may be left out.

    Attributes:
        hardware_id: of this hardware, from `identity.read_hardware_id`; a copy is found out by it.
        store_key: the store is sealed under, None for one in the clear.
        sampler: takes readings; None: another process records them.
        supervisor: hears that the loop turns.
    """

    hardware_id: bytes | None = None
    store_key: KeySource | None = None
    sampler: ReadingTaker | None = None
    supervisor: Supervisor | None = None
