"""Receipts reach whoever is here at once, and whoever is away when it is back; nobody waits."""

import threading
import time
from dataclasses import dataclass, field

from flwr.app import RecordDict

from models.wire.envelope import SigningKey
from models.wire.rounds import RECEIPT_MESSAGE, ReleaseReceipt
from server.engine.flower_messages import receipt_messages
from server.engine.receipt_delivery import ReceiptDelivery
from tests.support.federated_rounds import config_of, honest, rounds_over
from tests.support.flower_grid import GridInMemory


@dataclass
class SleepyGrid(GridInMemory):
    """Keeps messages to nodes that are away, and drops those whose answer somebody looks for."""

    away: set = field(default_factory=set)
    kept: dict = field(default_factory=dict)

    def get_node_ids(self):
        return [node_id for node_id in self.nodes if node_id not in self.away]

    def push_messages(self, messages):
        later = [one for one in messages if one.metadata.dst_node_id in self.away]
        ids = super().push_messages([one for one in messages if one not in later])
        for message in later:
            message.metadata.__dict__["_message_id"] = f"kept-{len(self.kept)}"
            self.kept[message.metadata.message_id] = message
        return ids + [one.metadata.message_id for one in later]

    def pull_messages(self, message_ids):
        for message_id in message_ids:
            self.kept.pop(message_id, None)
        return super().pull_messages(message_ids)

    def wake(self, node_id):
        self.away.discard(node_id)
        for message in list(self.kept.values()):
            if message.metadata.dst_node_id == node_id:
                message_id = message.metadata.message_id
                del self.kept[message_id]
                super().push_messages([message])
                message.metadata.__dict__["_message_id"] = message_id
                for reply in self._replies[-1:]:
                    reply.metadata.__dict__["_reply_to_message_id"] = message_id


class Node:
    """Takes receipts, and may fall asleep once it has trained."""

    def __init__(self, then=lambda: None):
        self.indices, self.then = [], then

    def __call__(self, message):
        if message.metadata.message_type != RECEIPT_MESSAGE:
            self.then()
            return honest(message)
        self.indices.append(message.content.config_records["receipt"]["index"])
        return [RecordDict()]


def receipt(index):
    return ReleaseReceipt(stream="test", index=index, entry="{}")


def test_a_round_does_not_wait_for_a_node_that_went_to_sleep(tmp_path):
    grid = SleepyGrid({})
    grid.nodes = {1: Node(), 2: Node(then=lambda: grid.away.add(2))}
    config = config_of(epsilon=2.0, num_rounds=1, cohort_size=4, deadline_s=9.0)
    rounds = rounds_over([1, 2], tmp_path, config=config, signing_key=SigningKey.generate())
    heard_at = []
    rounds.on_round = lambda _record: heard_at.append(time.monotonic())

    assert rounds.run(grid)

    assert time.monotonic() - heard_at[0] < 4.5
    assert grid.nodes[1].indices == [0]
    assert [one.metadata.dst_node_id for one in grid.kept.values()] == [2]
    grid.wake(2)
    assert grid.nodes[2].indices == [0]


def test_receipts_wait_for_a_node_over_rounds_and_their_answers_are_fetched_once_it_is_back():
    grid = SleepyGrid({1: Node(), 2: Node()}, away={2})
    delivery = ReceiptDelivery(stop=threading.Event(), poll_s=0.001)
    for index in range(3):
        messages = receipt_messages([1, 2], receipt(index))
        assert delivery.hand_out(grid, messages, deadline_s=0.2) == 0
    assert len(grid.kept) == len(delivery._on_their_way) == 3

    grid.wake(2)
    assert grid.nodes[2].indices == [0, 1, 2]
    delivery.hand_out(grid, receipt_messages([1], receipt(3)), deadline_s=0.2)
    assert delivery._on_their_way == {}
    assert grid._replies == []
