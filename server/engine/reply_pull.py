"""Reads replies from Flower's grid, one by one: what is wrong with one touches no other.

Flower's own grid over HTTP reads all replies of a request together: one whose bytes are no message
raises and takes the others with it, for the SuperLink has let go of them, one whose upload stopped
half-way is waited for, up to two hours, and one of any length is read whole. Any node can send
these. Here a reply that is not whole yet is left until the next look, and one that cannot be read
or is too long is empty, and refused like any other that does not have a reply's form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from flwr.app import Message, RecordDict
from flwr.app.message import make_message
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid.http_grid import HttpGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flwr.proto.message_pb2 import Message as MessageProto
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.serverapp import Grid

MOST_OBJECTS: Final = 64
"""Parts of one reply, as Flower cuts them, that are fetched: ours have 7."""
PATIENCE_S: Final = 20.0
"""Longest wait for one reply's parts, all of which are there."""
LINK_PAUSE_S: Final = 0.5
"""Shortest pause between two looks at a SuperLink, which is asked over HTTP and by all runs."""


class ReplySource(Protocol):
    """Where replies come from.

    Attributes:
        least_pause_s: shortest pause between two looks.
    """

    @property
    def least_pause_s(self) -> float:
        """Shortest pause between two looks, in seconds."""

    def pull(self, message_ids: Sequence[str]) -> Iterator[Message]:
        """Yield the replies to some messages that are there, each once, without waiting."""


def reply_source(grid: Grid, *, most_bytes: int) -> ReplySource:
    """Return the way to read a grid's replies.

    Args:
        grid: Flower's way to the nodes.
        most_bytes: length of a reply; what is longer is not read on.
    """
    return _HttpReplies(grid, most_bytes) if isinstance(grid, HttpGrid) else _GridReplies(grid)


@dataclass(frozen=True, slots=True)
class _GridReplies:
    """Replies of a grid in this process, whose nodes are of its own making."""

    grid: Grid
    least_pause_s: float = 0.0

    def pull(self, message_ids: Sequence[str]) -> Iterator[Message]:
        yield from self.grid.pull_messages(message_ids)


@dataclass(slots=True)
class _HttpReplies:
    """Replies that a SuperLink holds."""

    grid: HttpGrid
    most_bytes: int
    least_pause_s: float = LINK_PAUSE_S
    announced: dict[str, tuple[MessageProto, ObjectTree]] = field(default_factory=dict)

    def pull(self, message_ids: Sequence[str]) -> Iterator[Message]:
        link = self.grid._runtime_client  # noqa: SLF001 - its own reading cannot be bounded
        asked = [key for key in message_ids if key not in self.announced]
        answer = link.PullMessages(PullAppMessagesRequest(message_ids=asked))
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            self.announced[proto.metadata.reply_to_message_id] = proto, tree
        for key in message_ids:
            if key in self.announced and (reply := self._read(*self.announced[key])) is not None:
                del self.announced[key]
                yield reply

    def _read(self, proto: MessageProto, tree: ObjectTree) -> Message | None:
        """Return a reply, empty where it cannot be read; None while it is not whole."""
        link, run_id = self.grid._runtime_client, self.grid.run.run_id  # noqa: SLF001 - as above
        fetch: Callable[[str], bytes] = make_pull_object_fn_protobuf(
            link.PullObject, self.grid.node, run_id
        )
        is_whole, left = True, self.most_bytes

        def fetch_once(object_id: str) -> bytes:
            nonlocal is_whole, left
            try:
                part = fetch(object_id)
            except ObjectUnavailableError:
                is_whole = False
                raise ObjectPullError(object_id, "its upload is not over") from None
            left -= len(part)
            if left < 0:
                raise ObjectPullError(object_id, "the reply is too long")
            return part

        object_ids = [part.object_id for part in iterate_object_tree(tree)]
        try:
            if len(object_ids) > MOST_OBJECTS:
                return _unreadable(proto)
            contents = pull_objects(
                object_ids, fetch_once, max_concurrent_pulls=1, max_time=PATIENCE_S
            )
        except ObjectPullError:
            return _unreadable(proto) if is_whole else None
        link.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.grid.node, run_id=run_id, message_object_id=proto.metadata.message_id
            )
        )
        try:
            reply = inflate_object_from_contents(proto.metadata.message_id, contents)
        except Exception:  # noqa: BLE001 - whatever bytes of a stranger make a parser raise
            return _unreadable(proto)
        return _as_announced(proto, reply) if isinstance(reply, Message) else _unreadable(proto)


def _as_announced(proto: MessageProto, reply: Message) -> Message:
    """Return a reply under the SuperLink's word of who sent it and to what, not under its own."""
    metadata = metadata_from_proto(proto.metadata)
    if reply.has_error():
        return make_message(metadata=metadata, error=reply.error)
    return make_message(metadata=metadata, content=reply.content)


def _unreadable(proto: MessageProto) -> Message:
    """Return what stands for a reply that cannot be read: one from its node, with nothing in it."""
    return make_message(metadata=metadata_from_proto(proto.metadata), content=RecordDict())
