"""Telling systemd that the main loop still turns: sd_notify(3) by hand, a datagram each time.

The ping comes from the loop itself. A thread that pings would vouch for a loop that hangs.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PINGS_PER_INTERVAL = 4


class Watchdog:
    """What a service says to its supervisor; without one, every call does nothing.

    Args:
        address: of the supervisor's socket, `@` first for an abstract one; None: no supervisor.
        interval_s: seconds within which it wants to hear a ping; None: it wants none.
    """

    def __init__(self, address: str | None = None, *, interval_s: float | None = None) -> None:
        self._address = None if address is None else address.replace("@", "\0", 1)
        self._every_s = None if interval_s is None else interval_s / PINGS_PER_INTERVAL
        self._next_s = float("-inf")

    @staticmethod
    def of_environment(environment: Mapping[str, str], *, pid: int) -> Watchdog:
        """Return the watchdog that systemd names in the environment of a service.

        Args:
            environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are read.
            pid: of this process: a ping that is wanted of another one is none of ours.
        """
        address = environment.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            address = None
        wanted_of = environment.get("WATCHDOG_PID", str(pid))
        micros = environment.get("WATCHDOG_USEC", "")
        is_wanted = micros.isascii() and micros.isdigit() and int(micros) > 0
        if not is_wanted or wanted_of != str(pid):
            return Watchdog(address)
        return Watchdog(address, interval_s=int(micros) / 1e6)

    @property
    def every_s(self) -> float | None:
        """Seconds between pings, None where none is wanted: the loop must not sleep for longer."""
        return self._every_s

    def ready(self) -> None:
        """Say that the service has started."""
        self._send("READY=1")

    def ping(self, elapsed_s: float) -> None:
        """Say that the main loop turns; call it at each turn.

        Args:
            elapsed_s: now, on a clock that never jumps; decides when a ping is due.
        """
        if self._every_s is None or elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + self._every_s
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """Say in one line what the service does, for `systemctl status`; never a figure."""
        self._send(f"STATUS={line}")

    def stopping(self) -> None:
        """Say that the service ends in order."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        # A supervisor that does not listen must not stop the device.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)
            speaker.sendto(text.encode(), self._address)
