"""Messages that could not be used: why, from where, how large; never their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select

from .tables import dead_letters

if TYPE_CHECKING:
    from datetime import datetime

MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters, within one transaction."""

    connection: Connection

    def add(self, *, reason: str, detail: str, topic: str, payload: bytes, now: datetime) -> None:
        """Keep what is known of a message that could not be used."""
        self.connection.execute(
            insert(dead_letters).values(
                at=now,
                reason=reason,
                detail=_storable(detail),
                topic=_storable(topic),
                payload_bytes=len(payload),
                payload_sha256=hashlib.sha256(payload).hexdigest(),
            )
        )

    def count_by_reason(self) -> dict[str, int]:
        """Return how many there are by reason."""
        rows = self.connection.execute(
            select(dead_letters.c.reason, func.count()).group_by(dead_letters.c.reason)
        )
        return {row[0]: row[1] for row in rows}


def _storable(text: str) -> str:
    """Cut a text, and replace what PostgreSQL cannot hold: NUL and lone surrogates."""
    cleaned = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return cleaned.decode()[:MAX_TEXT]
