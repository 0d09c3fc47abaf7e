"""A grid in memory that speaks Flower's Message API: nodes are functions of a message."""

from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict
from flwr.app.error import Error
from flwr.supercore.task_identity import TaskIdentity


@dataclass
class GridInMemory:
    """Answers each pushed message by the function of its node.

    Attributes:
        nodes: by node id, what makes the replies to a message: a list of contents; a string is an
            error reply, and an empty list means that the node stays silent.
        pushed: every message that was sent.
    """

    nodes: dict[int, Any]
    pushed: list[Message] = field(default_factory=list)
    _replies: list[Message] = field(default_factory=list)

    def __post_init__(self):
        # Flower sets these where a ServerApp runs; messages cannot be made without.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            message_id = f"message-{len(self.pushed)}"
            message.metadata.__dict__["_message_id"] = message_id
            self.pushed.append(message)
            ids.append(message_id)
            node_id = message.metadata.dst_node_id
            for content in self.nodes[node_id](message):
                self._replies.append(reply_to(message, content))
        return ids

    def pull_messages(self, message_ids):
        asked = set(message_ids)
        here = [r for r in self._replies if r.metadata.reply_to_message_id in asked]
        self._replies = [r for r in self._replies if r not in here]
        return here


def reply_to(message: Message, content: RecordDict | str) -> Message:
    """Make the reply that a node would send; a string becomes an error."""
    if isinstance(content, str):
        return Message(Error(code=2, reason=content), reply_to=message)
    return Message(content, reply_to=message)
