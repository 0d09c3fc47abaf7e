"""Brings nodes the receipts of releases, without a wait for nodes that are away.

A node that sleeps finds its receipt once it is back: the message waits for it as long as Flower
keeps messages. A look for the answer of a node that is away would make Flower drop the message, so
its answer is fetched when it is here again, at a later round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from .exchange import exchange, pull_some, push

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from flwr.app import Message
    from flwr.serverapp import Grid

RECEIPT_DEADLINE_S: Final = 10.0
"""How long nodes that are here are waited for; nothing depends on their answer."""
RECEIPT_LIFE_S: Final = 43_200.0
"""How long a receipt waits for a node that is away."""


class _OnItsWay(NamedTuple):
    """A receipt that a node will find once it is back."""

    node_id: int
    until: float


@dataclass(slots=True, kw_only=True)
class ReceiptDelivery:
    """Hands receipts out, round after round.

    Attributes:
        stop: set from outside to end the wait.
        poll_s: shortest pause between two looks.
    """

    stop: threading.Event
    poll_s: float
    _on_their_way: dict[str, _OnItsWay] = field(init=False, default_factory=dict)

    def hand_out(self, grid: Grid, messages: Sequence[Message], *, deadline_s: float) -> int:
        """Send each node its receipt; wait for those that are here alone.

        Args:
            grid: Flower's way to the nodes.
            messages: at most one a node.
            deadline_s: how long nodes that are here are waited for, at most.

        Returns:
            How many nodes of all that answered took no receipt.
        """
        here = set(grid.get_node_ids())
        answers = self._late_answers(grid, here)
        self._send_ahead(grid, [one for one in messages if one.metadata.dst_node_id not in here])
        answers.extend(
            exchange(
                grid,
                [one for one in messages if one.metadata.dst_node_id in here],
                deadline_s=min(deadline_s, RECEIPT_DEADLINE_S),
                stop=self.stop,
                poll_s=self.poll_s,
            )
        )
        return sum(answer.has_error() for answer in answers)

    def _send_ahead(self, grid: Grid, messages: Sequence[Message]) -> None:
        until = time.monotonic() + RECEIPT_LIFE_S
        sent = push(grid, messages, stop=self.stop, ttl_s=RECEIPT_LIFE_S)
        self._on_their_way |= {key: _OnItsWay(node_id, until) for key, node_id in sent.items()}

    def _late_answers(self, grid: Grid, here: set[int]) -> list[Message]:
        """Fetch what nodes that are back have answered, so that Flower need not keep it."""
        now = time.monotonic()
        self._on_their_way = {
            key: one for key, one in self._on_their_way.items() if one.until > now
        }
        back = [key for key, one in self._on_their_way.items() if one.node_id in here]
        answers = list(pull_some(grid, back))
        for answer in answers:
            self._on_their_way.pop(answer.metadata.reply_to_message_id, None)
        return answers
