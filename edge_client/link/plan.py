"""What an agent is told to do, and with which parts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.wire.link import Link
    from models.wire.link_settings import LinkTls
    from models.wire.listening_link import ListeningLink
    from models.wire.messages import NoticeState

    from ..store.mailbox import Mailbox
    from ..store.row_cipher import KeySource
    from .listener import Listener
    from .traffic import TrafficMeter

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


class Renewal(Protocol):
    """Keeps a certificate alive: `provisioning.renewal.CertificateKeeper` is one."""

    def poll(self, *, now: datetime, elapsed_s: float, is_connected: bool) -> None:
        """Begin what is due; never waits for it."""
        ...


class Releases(Protocol):
    """Looks for releases: `release_watch.ReleaseWatch` is one."""

    def listen(self, link: Link, listener: Listener, *, wake: Callable[[], None]) -> None:
        """Hear announcements on a link that is not connected yet."""
        ...

    def poll(self, mailbox: Mailbox, *, elapsed_s: float) -> bool:
        """Look where it is time, without waiting; return whether there is another model to run."""
        ...


class Rounds(Protocol):
    """Takes part in rounds behind a gateway: `site_rounds.taking_part.SiteRounds` is one."""

    def listen(
        self,
        link: ListeningLink,
        listener: Listener,
        *,
        wake: Callable[[], None],
        meter: TrafficMeter,
    ) -> None:
        """Hear gateways on a link that is not connected yet."""
        ...

    def turn(self, *, elapsed_s: float) -> None:
        """Do what is due, without waiting for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    """What an agent works with besides its client; each may be left out.

    Attributes:
        hardware_id: of this hardware, from `identity.read_hardware_id`; a copy is found out by it.
        store_key: the store is sealed under, None for one in the clear.
        sampler: takes readings; None: another process records them.
        supervisor: hears that the loop turns.
        tls: says how the link speaks TLS, None for a connection in the clear.
        renewal: keeps the device's certificate alive, None where it has none.
        releases: looks for releases; None: somebody else installs models.
        rounds: takes part in rounds behind a gateway, None where that is not turned on.
    """

    hardware_id: bytes | None = None
    store_key: KeySource | None = None
    sampler: ReadingTaker | None = None
    supervisor: Supervisor | None = None
    tls: Callable[[], LinkTls] | None = None
    renewal: Renewal | None = None
    releases: Releases | None = None
    rounds: Rounds | None = None

    def listen(
        self,
        link: ListeningLink,
        listener: Listener,
        *,
        wake: Callable[[], None],
        meter: TrafficMeter,
    ) -> None:
        """Have those who want to hear something hear it, on a link that is not connected yet."""
        if self.releases is not None:
            self.releases.listen(link, listener, wake=wake)
        if self.rounds is not None:
            self.rounds.listen(link, listener, wake=wake, meter=meter)

    def turn(self, *, now: datetime, elapsed_s: float, is_connected: bool) -> None:
        """Tell those who want to know that the loop turns, and how the link is."""
        if self.supervisor is not None:
            self.supervisor.ping(elapsed_s)
        if self.renewal is not None:
            self.renewal.poll(now=now, elapsed_s=elapsed_s, is_connected=is_connected)
        if self.rounds is not None:
            self.rounds.turn(elapsed_s=elapsed_s)
