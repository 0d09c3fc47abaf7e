"""Flower's own link state, its handlers and its grid over HTTP, without the HTTP between them."""

import hashlib
import threading
import time

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from models.wire.rounds import CONTRIBUTION_RECORD, FLAT_ARRAY, SUM_RECORD, Contribution

ONLINE_S = 3000.0


HANDLERS = {
    "PushMessages": runtime_handlers.push_messages,
    "PullMessages": runtime_handlers.pull_messages,
    "PushObject": runtime_handlers.push_object,
    "PullObject": runtime_handlers.pull_object,
    "ConfirmMessageReceived": runtime_handlers.confirm_message_received,
    "GetNodes": runtime_handlers.get_nodes,
}


class _Handlers:
    """What a ServerApp's HTTP client calls."""

    def __init__(self, state, task):
        self._state, self._task = state, task
        self.fetched_bytes = 0

    def __getattr__(self, name):
        def ask(request):
            answer = HANDLERS[name](request, self._state, self._task)
            if name == "PullObject":
                self.fetched_bytes += len(answer.object_content)
            return answer

        return ask


class SuperLinkInProcess:
    """A SuperLink with one run, the grid of its ServerApp, and nodes that a test plays."""

    def __init__(self, monkeypatch, *, num_nodes):
        # No server process is there to have been stopped.
        monkeypatch.setattr(fleet_handlers, "check_abort", lambda *_: None)
        manager = NoOpFederationManager()
        self.state = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, manager, ObjectStoreFactory()).state()
        self.run_id = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )
        run = self.state.get_run_info(run_ids=[self.run_id])[0]
        task = self.state.get_tasks(task_ids=[run.primary_task_id])[0]
        TaskIdentity.run_id, TaskIdentity.node_id = self.run_id, 1
        TaskIdentity.task_id = run.primary_task_id
        self.grid = HttpGrid(token="any")
        self.grid.set_run(run)
        self.grid._client = _Handlers(self.state, task)
        self.nodes = [self._new_node(number) for number in range(num_nodes)]

    def _new_node(self, number):
        node_id = self.state.create_node("owner", "owner", bytes([number] * 8), ONLINE_S)
        self.wake(node_id)
        return node_id

    @property
    def fetched_bytes(self):
        """How much of replies the server has read."""
        return self.grid._client.fetched_bytes

    def wake(self, node_id):
        self.state.activate_node(node_id, ONLINE_S)

    def sleep(self, node_id):
        self.state.deactivate_node(node_id)

    def task_of(self, node_id, *, within_s=5.0):
        """The message that waits for a node; None where none came."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if waiting := self.state.get_message_ins(node_id, None):
                return waiting[0]
            time.sleep(0.02)
        return None

    def answer(self, node_id, make_reply):
        """Play a node: take its task, and push what `make_reply` makes of it."""
        asked = self.task_of(node_id)
        reply, objects, tree = make_reply(asked)
        pushed = fleet_handlers.push_messages(
            PushMessagesRequest(
                node=Node(node_id=node_id),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[tree],
            ),
            self.state,
        )
        for object_id, content in objects.items():
            fleet_handlers.push_object(
                PushObjectRequest(
                    node=Node(node_id=node_id),
                    run_id=self.run_id,
                    object_id=object_id,
                    object_content=content,
                    session_id=pushed.session_id,
                ),
                self.state,
            )

    def answer_aside(self, node_id, make_reply, *, after_s=0.0):
        """Play a node in a thread of its own."""

        def play():
            time.sleep(after_s)
            self.wake(node_id)
            self.answer(node_id, make_reply)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        return thread


def contribution(asked, total, *, clock_ahead_s=0.0):
    """An honest reply: its message, the objects that Flower cuts it into, and their tree."""
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord(
        {**Contribution(stream="s", index=0, num_devices=1).to_plain()}
    )
    TaskIdentity.node_id = asked.metadata.dst_node_id
    reply = Message(content, reply_to=asked)
    TaskIdentity.node_id = 1
    # Flower works both out from the node's own clock.
    reply.metadata.created_at += clock_ahead_s
    reply.metadata.ttl -= clock_ahead_s
    reply.metadata.__dict__["_message_id"] = reply.object_id
    objects = {key: part.deflate() for key, part in get_all_nested_objects(reply).items()}
    return reply, objects, get_object_tree(reply)


def with_body(asked, total, body):
    """A reply whose one object has the name of its bytes, but is no message."""
    reply, _, _ = contribution(asked, total)
    content = f"Message  {len(body)}".encode() + b"\0" + body
    object_id = hashlib.sha256(content).hexdigest()
    reply.metadata.__dict__["_message_id"] = object_id
    return reply, {object_id: content}, ObjectTree(object_id=object_id, children=[])


def never_uploaded(asked, total):
    """A reply that is announced, and whose objects never come."""
    reply, _, tree = contribution(asked, total)
    return reply, {}, tree


def in_parts(asked, total, parts):
    """A reply whose tree names many objects that are no part of a message."""
    reply, objects, tree = contribution(asked, total)
    named = {}
    for part in parts:
        content = f"ArrayChunk  {len(part)}".encode() + b"\0" + part
        named[hashlib.sha256(content).hexdigest()] = content
    children = [ObjectTree(object_id=key, children=[]) for key in named]
    whole = ObjectTree(object_id=tree.object_id, children=[*children, *tree.children])
    return reply, {**named, **objects}, whole
