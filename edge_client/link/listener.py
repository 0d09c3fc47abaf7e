"""What every receiver needs to believe a message and to keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..store.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from models.wire.envelope import VerifyKey
    from models.wire.sealing import OpeningKey

    from ..store.row_cipher import KeySource
    from .counters import AgentCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One device, as it hears messages in the link's thread.

    Attributes:
        path: of the store.
        device_id: of this device.
        trusted: the server's keys, by key id.
        clock: the device's time.
        counters: shared with the agent.
        opening_key: the device's own; None where it has no identity.
        store_key: the store is sealed under, None for one in the clear.
    """

    path: Path
    device_id: str
    trusted: Mapping[str, VerifyKey]
    clock: Callable[[], datetime]
    counters: AgentCounters
    opening_key: OpeningKey | None = None
    store_key: KeySource | None = None

    def mailbox(self) -> Mailbox:
        """Open the store anew, because SQLite binds it to a thread."""
        return Mailbox(self.path, key=self.store_key)
