"""The process that carries releases: looks at evidence, keeps metadata fresh, announces."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from models.wire.errors import LinkError

from ..errors import StorageUnavailableError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ..clock import Clock
    from ..storage.releases import KeptRelease
    from .announcing import Announcer
    from .desk import ReleaseDesk
    from .rings import Evidence

logger = logging.getLogger(__name__)

EVERY_S: Final = 30.0


def carry(
    desk: ReleaseDesk,
    announcer: Announcer | None,
    *,
    clock: Clock,
    stop: threading.Event,
    every_s: float = EVERY_S,
    tell: Callable[[KeptRelease, Evidence], None] = lambda _kept, _evidence: None,
) -> None:
    """Carry releases until `stop` is set; what fails for now is tried again at the next turn.

    Args:
        desk: of the releases.
        announcer: says on the broker what is offered; None: devices look by themselves.
        clock: the time.
        stop: ends it.
        every_s: seconds between two turns.
        tell: told of the release on its way after each look at it.
    """
    while not stop.is_set():
        try:
            turn(desk, announcer, clock=clock, tell=tell)
        except (StorageUnavailableError, LinkError) as error:
            logger.warning("tried again soon: %s", error)
        stop.wait(every_s)


def turn(
    desk: ReleaseDesk,
    announcer: Announcer | None,
    *,
    clock: Clock,
    tell: Callable[[KeptRelease, Evidence], None] = lambda _kept, _evidence: None,
) -> None:
    """Do what is due, once."""
    found = desk.advance(now=clock())
    if found is not None:
        tell(*found)
    if announcer is not None:
        announcer.tell_rings(now=clock())
        announcer.announce_news(now=clock())
