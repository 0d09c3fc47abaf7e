"""A grid of Flower in this process: real messages, the real ClientApp, many virtual nodes, no Ray.

For runs whose subject is the server's loop or a hostile fleet rather than the engine under it. Each
node is a block of devices, or one device, that the ClientApp finds by the node's configuration. A
`Line` decides what becomes of a message on the way to a node and back.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flwr.clientapp import ClientApp

NodeConfig = dict[str, bool | float | int | str]

_APP_RAISED = 2
"""Flower's code of an error reply whose cause lies in the app."""
_POLL_S = 0.005
_RUN_ID = 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """One reply on its way to the server.

    Attributes:
        reply: what the node says.
        is_late: whether it comes after the round's deadline; it can be pulled once messages of
            another group, as of the next round, were pushed.
    """

    reply: Message
    is_late: bool = False


class Line(Protocol):
    """What becomes of a message between the server and a node."""

    def carry(self, message: Message, answer: Callable[[Message], Message]) -> Sequence[Delivery]:
        """Return what comes of a message: nothing, one reply or more.

        Args:
            message: of the server; may be handed on changed.
            answer: runs the node's ClientApp; a line that loses the message does not call it.
        """


class SoundLine:
    """Loses, delays and changes nothing."""

    def carry(self, message: Message, answer: Callable[[Message], Message]) -> Sequence[Delivery]:
        """Return the node's one reply."""
        return [Delivery(answer(message))]


class InProcessGrid(Grid):
    """Answers every message by a ClientApp in this process.

    Nodes answer one after the other, when their replies are pulled, so that no more than one reply
    is held at a time; with threads, or ahead, as soon as a message is pushed. Ahead, a deadline
    counts from when all have answered: then only silent nodes take a round to its deadline.

    Args:
        app: of every node.
        nodes: configuration of each node by its identifier.
        line: between server and nodes.
        num_threads: that answer side by side; 0 answers in the caller's thread.
        is_ahead: whether nodes answer when a message is pushed; without threads only.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Mapping[int, NodeConfig],
        *,
        line: Line | None = None,
        num_threads: int = 0,
        is_ahead: bool = False,
    ) -> None:
        # Flower sets these where a ServerApp runs; no message can be made without.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, 1, 1
        self._app = app
        self._contexts = {
            node_id: Context(
                run_id=_RUN_ID,
                node_id=node_id,
                node_config=dict(config),
                state=RecordDict(),
                run_config={},
            )
            for node_id, config in nodes.items()
        }
        self._line = line or SoundLine()
        self._is_ahead = is_ahead
        self._pool = ThreadPoolExecutor(num_threads) if num_threads else None
        self._numbers = count(1)
        self._waiting: dict[str, Message] = {}
        self._running: dict[str, Future[Sequence[Delivery]]] = {}
        self._held: dict[str, list[Message]] = {}
        self._late: list[Message] = []

    @classmethod
    def of_blocks(
        cls,
        app: ClientApp,
        num_blocks: int,
        *,
        line: Line | None = None,
        num_threads: int = 0,
        is_ahead: bool = False,
    ) -> Self:
        """Make nodes 1 … n whose configuration says `partition-id` 0 … n − 1, as in simulation."""
        nodes: dict[int, NodeConfig] = {
            block + 1: {"partition-id": block, "num-partitions": num_blocks}
            for block in range(num_blocks)
        }
        return cls(app, nodes, line=line, num_threads=num_threads, is_ahead=is_ahead)

    def __enter__(self) -> Self:
        """Return the grid."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its threads."""
        self.close()

    def close(self) -> None:
        """End the threads once they have answered what they began."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def set_run(self, run: object) -> None:
        """Take no run: the grid has one, and nothing here depends on it."""

    @property
    def run(self) -> object:
        """Run information, of which there is none."""
        raise RuntimeError("a grid in this process knows of no run of Flower's")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the identifiers of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; the identifiers under which their replies can be pulled come back."""
        pushed = []
        for message in messages:
            self._let_in_before(message.metadata.group_id)
            message_id = f"message-{next(self._numbers):012}"
            message.metadata.__dict__["_message_id"] = message_id
            pushed.append(message_id)
            if self._pool is not None:
                self._running[message_id] = self._pool.submit(self._carried, message)
            elif self._is_ahead:
                self._keep(self._carried(message))
            else:
                self._waiting[message_id] = message
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return what replies there are; without threads, the next node answers now."""
        asked = set(message_ids)
        self._take_finished(asked)
        here = self._pulled(asked)
        while not here and (message_id := next((i for i in self._waiting if i in asked), None)):
            self._keep(self._carried(self._waiting.pop(message_id)))
            here = self._pulled(asked)
        return here

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and collect replies until all have come or the time is over.

        Args:
            messages: to nodes.
            timeout: seconds; None waits for all.
        """
        asked = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while asked and (end is None or time.monotonic() < end):
            here = self.pull_messages(asked)
            replies += here
            asked -= {reply.metadata.reply_to_message_id for reply in here}
            if not here:
                time.sleep(_POLL_S)
        return replies

    def _take_finished(self, asked: set[str]) -> None:
        """Keep the replies of threads that are done; wait a moment for the first."""
        running = {
            future: message_id
            for message_id, future in self._running.items()
            if message_id in asked
        }
        if not running:
            return
        done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            del self._running[running[future]]
            self._keep(future.result())

    def _keep(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.is_late:
                self._late.append(delivery.reply)
            else:
                self._hold(delivery.reply)

    def _let_in_before(self, group_id: str) -> None:
        """Let late replies in, except those of the group that is being sent now."""
        late = [reply for reply in self._late if reply.metadata.group_id != group_id]
        if late:
            self._late = [reply for reply in self._late if reply.metadata.group_id == group_id]
            for reply in late:
                self._hold(reply)

    def _hold(self, reply: Message) -> None:
        self._held.setdefault(reply.metadata.reply_to_message_id, []).append(reply)

    def _pulled(self, asked: set[str]) -> list[Message]:
        return [reply for key in sorted(asked & self._held.keys()) for reply in self._held.pop(key)]

    def _carried(self, message: Message) -> Sequence[Delivery]:
        deliveries = self._line.carry(message, self._answer)
        for delivery in deliveries:
            delivery.reply.metadata.__dict__["_message_id"] = f"reply-{next(self._numbers)}"
        return deliveries

    def _answer(self, message: Message) -> Message:
        """Run the node's ClientApp, and turn what it raises into an error reply as Flower does."""
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 - whatever an app raises, Flower reports
            return Message(Error(_APP_RAISED, str(error)), reply_to=message)
