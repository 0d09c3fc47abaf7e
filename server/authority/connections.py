"""Connections of the enrolment service, none of which is held by saying nothing.

uvicorn counts connections and never closes one that has not asked yet, so whoever holds enough of
them shuts the service. Here who comes is let in: where an address, or the service, has as many as
it may, the one that has been silent for longest goes. And each is closed that has not asked within
seconds, its TLS handshake among them, or that goes on after its answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import ssl

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

MOST_CONNECTIONS = 256
MOST_OF_ONE_ADDRESS = 64
"""Devices of a site often come from one address, all at once."""
HANDSHAKE_WITHIN_S = 10.0
REQUEST_WITHIN_S = 20.0
"""From its first byte on, a slow mobile network needs two or three seconds for all of it."""


class Door:
    """Who is connected, in the order in which they came; used by one event loop.

    Args:
        context: of the service's TLS.
        most: connections at once.
        most_of_one: of them, from one address.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        most: int = MOST_CONNECTIONS,
        most_of_one: int = MOST_OF_ONE_ADDRESS,
    ) -> None:
        self.context = context
        self._most = most
        self._most_of_one = most_of_one
        self._visitors: dict[DoorProtocol, str] = {}

    def let_in(self, visitor: DoorProtocol, address: str) -> bool:
        """Let somebody in, and whoever has been silent for longest out where there is no room.

        Returns:
            Whether there is room: not where all are being answered.
        """
        of_one = [other for other, known in self._visitors.items() if known == address]
        if len(of_one) >= self._most_of_one:
            has_room = self._turn_out(of_one)
        else:
            has_room = len(self._visitors) < self._most or self._turn_out(list(self._visitors))
        if has_room:
            self._visitors[visitor] = address
        return has_room

    def let_out(self, visitor: DoorProtocol) -> None:
        """Forget somebody who has gone, or was not let in."""
        self._visitors.pop(visitor, None)

    def close(self) -> None:
        """Turn out all that are not being answered."""
        while self._turn_out(list(self._visitors)):
            pass

    def _turn_out(self, visitors: list[DoorProtocol]) -> bool:
        for visitor in visitors:
            if not visitor.is_answered:
                self.let_out(visitor)
                visitor.turn_out()
                return True
        return False


class DoorProtocol(H11Protocol):
    """HTTP over TLS, which begins once there is room, and ends where nothing is asked."""

    door: ClassVar[Door]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plain: asyncio.Transport | None = None
        self._securing: asyncio.Task[None] | None = None
        self._is_secured = False
        self._early = b""
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def is_answered(self) -> bool:
        """Whether a whole request was read, and its answer is on its way."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin TLS, where there is room."""
        # Nothing may be read before TLS reads it.
        transport.pause_reading()
        self._plain = transport
        peer = transport.get_extra_info("peername")
        if not self.door.let_in(self, str(peer[0]) if peer else ""):
            transport.abort()
            return
        self._alarm = self.loop.call_later(REQUEST_WITHIN_S, self._look)
        self._securing = self.loop.create_task(self._secure(transport))

    async def _secure(self, transport: asyncio.Transport) -> None:
        try:
            secured = await self.loop.start_tls(
                transport,
                self,
                self.door.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_WITHIN_S,
            )
        # A handshake that fails ends this connection and nothing else; ssl.SSLError is an OSError.
        except (OSError, asyncio.CancelledError):
            self._leave()
            transport.abort()
            return
        if secured is None or secured.is_closing():
            self._leave()
            return
        self._is_secured = True
        super().connection_made(secured)
        early, self._early = self._early, b""
        if early:
            super().data_received(early)

    def data_received(self, data: bytes) -> None:
        """Read what was asked; TLS may hand it over before it says that it is there."""
        if self._is_secured:
            super().data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        if self._is_secured:
            super().connection_lost(exc)

    def turn_out(self) -> None:
        """Close at once."""
        self._leave()
        transport = self.transport if self._is_secured else self._plain
        if transport is not None:
            transport.abort()

    def _look(self) -> None:
        if self.is_answered:
            self._alarm = self.loop.call_later(REQUEST_WITHIN_S, self._look)
        else:
            self.turn_out()

    def _leave(self) -> None:
        self.door.let_out(self)
        if self._alarm is not None:
            self._alarm.cancel()


def protocol_at(door: Door) -> type[DoorProtocol]:
    """Return the class of connections that come through a door; uvicorn makes them itself."""
    return type("DoorProtocolOfService", (DoorProtocol,), {"door": door})
