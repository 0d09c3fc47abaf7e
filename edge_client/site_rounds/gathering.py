"""What a step is about, gathered from the gateway's broadcast: heard only while it is wanted.

The parts are retained by the broker, so that whoever asks gets them at once, and asks again where
some did not come: after a lost connection, or before the gateway had said them all. Held in memory
alone, and no more of it than the offer named.
"""

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING, Final

from models.wire.errors import WireError
from models.wire.parts import Joining, read_part
from models.wire.round_material import read_material
from models.wire.site_credential import weights_topic

from ..link.traffic import CONNECTION, UP

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.wire.listening_link import ListeningLink
    from models.wire.round_material import RoundMaterial

    from ..link.counters import AgentCounters
    from ..link.traffic import TrafficMeter

logger = logging.getLogger(__name__)

ASK_AGAIN_S: Final = 20.0
"""Seconds after which the broker is asked once more for parts that have not come."""
_ASKING_BYTES: Final = 12
"""Of SUBSCRIBE and UNSUBSCRIBE beside the filter, with what the broker says to them."""


class Gathering:
    """Gathers the material of one step; parts come in the link's thread.

    Args:
        link: to the broker.
        gateway: that says the parts.
        digest: SHA-256 of the whole, hex.
        size: of the whole, bytes.
        meter: of the device's traffic.
        counters: shared with the agent.
        wake: called once the whole is there.

    Attributes:
        wanted: gateway and digest.
    """

    def __init__(
        self,
        link: ListeningLink,
        *,
        gateway: str,
        digest: str,
        size: int,
        meter: TrafficMeter,
        counters: AgentCounters,
        wake: Callable[[], None],
    ) -> None:
        self.wanted = (gateway, digest)
        self._filter = weights_topic(gateway, "+")
        self._link, self._meter, self._counters, self._wake = link, meter, counters, wake
        self._joining = Joining(bytes.fromhex(digest), size)
        self._lock = Lock()
        self._material: RoundMaterial | None = None
        self._is_spoilt = False
        self._asked_s: float | None = None

    @property
    def material(self) -> RoundMaterial | None:
        """The whole, None until it is there."""
        with self._lock:
            return self._material

    @property
    def is_spoilt(self) -> bool:
        """Whether what the digest names is no material: nothing better will come."""
        with self._lock:
            return self._is_spoilt

    def ask_where_due(self, elapsed_s: float) -> None:
        """Ask the broker for the parts, now or once more.

        Args:
            elapsed_s: now, on a clock that never jumps, seconds.
        """
        if self._asked_s is not None and elapsed_s - self._asked_s < ASK_AGAIN_S:
            return
        self._asked_s = elapsed_s
        self._count_asking()
        self._link.listen(self._filter, self._take)

    def end(self) -> None:
        """Hear no more."""
        if self._asked_s is not None:
            self._asked_s = None
            self._count_asking()
            self._link.listen_no_more(self._filter)

    def _take(self, _topic: str, payload: bytes) -> None:
        if not payload:
            # A place that was cleared.
            return
        with self._lock:
            if self._material is not None or self._is_spoilt:
                return
            try:
                whole = self._joining.add(read_part(payload))
            except WireError as error:
                if error.reason != "foreign_part":
                    self._counters.refuse(error)
                # Else of another step, which the gateway has said before or says next.
                return
            if whole is None:
                return
            try:
                self._material = read_material(whole)
            except WireError as error:
                self._is_spoilt = True
                self._counters.refuse(error)
        self._wake()

    def _count_asking(self) -> None:
        self._meter.count(UP, CONNECTION, len(self._filter) + _ASKING_BYTES)
