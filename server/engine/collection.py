"""Collects one round's replies: each is judged alone as it comes, added or counted, and let go.

No reply is kept: memory is one running sum and a few bytes a node, whatever the cohort. A reply
counts as the answer of the node that was sent the message, and of no other; what comes to a message
of the step before is late, and counts as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..streams.receipts import RECEIPT_CHARACTERS, are_bounded, said_by_devices
from .aggregation import CohortSum, ReplyRefusal, reply_refusal
from .exchange import REPLY_BYTES, exchange, pull_some
from .flower_messages import (
    failure_of,
    is_from,
    read_contribution,
    task_messages,
)
from .reply_arrays import array_bytes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from flwr.app import Message
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from models.wire.rounds import NodeFailure, RoundTask
    from privacy.clipping import StepGrid

    from .group_rule import NodeGroups


@dataclass(slots=True)
class Collected:
    """What came of one round's tasks.

    Attributes:
        cohort: devices invited.
        sum: of the good replies.
        said: by devices of their own ledgers: participations and μ².
        first_failure: why the first failing node failed, if any did.
    """

    cohort: tuple[str, ...]
    sum: CohortSum
    said: dict[str, tuple[int, float]] = field(default_factory=dict)
    first_failure: NodeFailure | None = None


@dataclass(slots=True, kw_only=True)
class Collector:
    """Sends tasks and adds up what comes back until the deadline.

    Attributes:
        deadline_s: how long a round waits for replies.
        stop: set from outside to end the wait.
        poll_s: pause between two looks for replies.
        groups: of nodes, whose sums are kept apart for a group rule; None adds all up.
        on_refusal: told the node that was asked (None where none was) and why its reply is zero.
    """

    deadline_s: float
    stop: threading.Event
    poll_s: float
    on_refusal: Callable[[int | None, ReplyRefusal], None] = lambda _node_id, _reason: None
    groups: NodeGroups | None = None
    _unanswered: dict[str, int] = field(init=False, default_factory=dict)

    def collect(
        self,
        grid: Grid,
        cohort: tuple[str, ...],
        tasks: Mapping[int, RoundTask],
        *,
        weights: NDArray[np.float32],
        on_look: Callable[[Collected], None],
        unit: StepGrid,
    ) -> Collected | None:
        """Ask for one step's updates and add the good ones up.

        Args:
            grid: Flower's way to the nodes.
            cohort: devices invited.
            tasks: of each node that is asked.
            weights: to train from, float32, shape (n_weights,).
            on_look: told what came so far, at each look for replies; may end the wait by raising.
            unit: integer grid of the stream's sums.

        Returns:
            What came by the deadline; None if the run was stopped meanwhile.
        """
        num_sums = 1 if self.groups is None else self.groups.num_groups
        collected = Collected(cohort, CohortSum.empty(num_sums * unit.size(len(weights))))
        before = self._unanswered
        sent: dict[str, int] = {}
        answered: set[int] = set()
        for reply in exchange(
            grid,
            task_messages(tasks, weights=weights),
            deadline_s=self.deadline_s,
            stop=self.stop,
            poll_s=self.poll_s,
            sent=sent,
            on_look=lambda: on_look(collected),
            most_bytes=_longest_reply(tasks.values(), size=num_sums * unit.size(len(weights))),
        ):
            node_id = sent.get(reply.metadata.reply_to_message_id)
            # An error may be Flower's own, in the node's place; nobody else speaks for a node.
            if node_id is None or not (reply.has_error() or is_from(reply, node_id)):
                self._refuse(collected, None, ReplyRefusal.UNASKED)
                continue
            refusal = _refusal_of_way(reply, is_second=node_id in answered)
            answered.add(node_id)
            if refusal is None:
                refusal = _take(
                    reply,
                    tasks[node_id],
                    collected=collected,
                    num_weights=len(weights),
                    unit=unit,
                    groups=self.groups,
                    node_id=node_id,
                )
            if refusal is not None:
                self._refuse(collected, node_id, refusal)
                collected.first_failure = collected.first_failure or failure_of(reply)
        for reply in pull_some(grid, before):
            if not reply.has_error():
                late = before.get(reply.metadata.reply_to_message_id)
                self._refuse(collected, late, ReplyRefusal.LATE)
        self._unanswered = {key: node for key, node in sent.items() if node not in answered}
        return None if self.stop.is_set() else collected

    def _refuse(self, collected: Collected, node_id: int | None, reason: ReplyRefusal) -> None:
        collected.sum.refuse(reason)
        self.on_refusal(node_id, reason)


def _longest_reply(tasks: Iterable[RoundTask], *, size: int) -> int:
    """Return how long a reply to any of some tasks can be: its array, and a receipt a device."""
    most_devices = max((len(task.device_ids) for task in tasks), default=0)
    return array_bytes(size) + REPLY_BYTES + most_devices * RECEIPT_CHARACTERS


def _refusal_of_way(reply: Message, *, is_second: bool) -> ReplyRefusal | None:
    """Judge how a node's reply came, whatever is in it."""
    if is_second:
        return ReplyRefusal.DUPLICATE
    return ReplyRefusal.FAILED if reply.has_error() else None


def _take(
    reply: Message,
    task: RoundTask,
    *,
    collected: Collected,
    num_weights: int,
    unit: StepGrid,
    groups: NodeGroups | None,
    node_id: int,
) -> ReplyRefusal | None:
    """Add one reply to the sum, or return why it is a zero."""
    read = read_contribution(reply, num_weights=num_weights)
    if read is None:
        return ReplyRefusal.MALFORMED
    total, contribution = read
    if not are_bounded(contribution.receipts, num_devices=len(task.device_ids)):
        return ReplyRefusal.MALFORMED
    refusal = reply_refusal(total, contribution, task=task, num_weights=num_weights, grid=unit)
    if refusal is None:
        own = total.astype(np.int64)
        whole = own if groups is None else groups.placed(node_id, own)
        collected.sum.add(whole, num_devices=contribution.num_devices)
        device_of = dict(zip(task.pseudonyms, task.device_ids, strict=False))
        collected.said |= said_by_devices(contribution.receipts, device_of=device_of)
    return refusal
