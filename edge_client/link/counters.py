"""What an agent counts of its own doings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.wire.errors import WireError

    from ..errors import NoticeRefusedError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class AgentCounters:
    """What the agent did.

    Attributes:
        predictions: predictions made.
        summaries: summaries put out.
        shown: notices shown.
        repeated: notices that came again.
        refused: messages that were not believed or not admitted, by reason.
        confirmed: messages that the broker took.
        configurations: configurations that were kept, or came again.
    """

    predictions: int = 0
    summaries: int = 0
    shown: int = 0
    repeated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    confirmed: int = 0
    configurations: int = 0

    def refuse(self, error: WireError | NoticeRefusedError) -> None:
        """Count a message that was not believed or not admitted; the first of each kind is told.

        Whoever can send noise shall not fill the log with it.
        """
        before = self.refused.get(error.reason, 0)
        self.refused[error.reason] = before + 1
        level = logging.DEBUG if before else logging.WARNING
        logger.log(level, "a message was refused: %s", error)
