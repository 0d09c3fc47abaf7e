"""A grid of Flower in this process: who answers what, when, and over which line."""

import threading

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from server.engine.exchange import exchange
from simulations.in_process_grid import Delivery, InProcessGrid


def counting_app(seen):
    app = ClientApp()

    @app.query()
    def query(message, context):
        seen.append(context.node_id)
        block = context.node_config["partition-id"]
        if block == 3:
            raise RuntimeError("a node that fails")
        return Message(RecordDict({"answer": ConfigRecord({"block": block})}), reply_to=message)

    return app


def questions(node_ids, *, group_id="1"):
    return [
        Message(RecordDict(), node_id, MessageType.QUERY, group_id=group_id) for node_id in node_ids
    ]


def asked(grid, *, deadline_s=5.0):
    return list(
        exchange(
            grid,
            questions(grid.get_node_ids()),
            deadline_s=deadline_s,
            stop=threading.Event(),
            poll_s=0.001,
        )
    )


class OddLine:
    """Loses the first node's message, answers twice for the second, late for the third."""

    def carry(self, message, answer):
        node_id = message.metadata.dst_node_id
        if node_id == 1:
            return []
        reply = answer(message)
        if node_id == 2:
            return [Delivery(reply), Delivery(reply)]
        return [Delivery(reply, is_late=node_id == 3)]


@pytest.mark.parametrize("settings", [{}, {"is_ahead": True}, {"num_threads": 2}])
def test_every_node_answers_once_by_the_client_app(settings):
    with InProcessGrid.of_blocks(counting_app([]), 4, **settings) as grid:
        replies = asked(grid)
    said = {
        reply.metadata.src_node_id: reply.content.config_records["answer"]["block"]
        for reply in replies
        if reply.has_content()
    }
    assert said == {1: 0, 2: 1, 3: 2}
    failed = [reply for reply in replies if reply.has_error()]
    assert [reply.metadata.src_node_id for reply in failed] == [4]
    assert failed[0].error.reason == "a node that fails"


def test_without_threads_no_more_than_one_node_answers_a_pull():
    seen = []
    grid = InProcessGrid.of_blocks(counting_app(seen), 3)
    ids = grid.push_messages(questions(grid.get_node_ids()))
    assert seen == []
    assert len(grid.pull_messages(ids)) == 1
    assert seen == [1]


def test_a_line_loses_doubles_and_delays():
    grid = InProcessGrid.of_blocks(counting_app([]), 3, line=OddLine(), is_ahead=True)
    replies = asked(grid, deadline_s=0.05)
    assert [reply.metadata.src_node_id for reply in replies] == [2, 2]


def test_a_late_reply_can_be_pulled_after_messages_of_the_next_round_only():
    grid = InProcessGrid.of_blocks(counting_app([]), 3, line=OddLine(), is_ahead=True)
    (late,) = grid.push_messages(questions([3]))
    assert grid.pull_messages([late]) == []
    grid.push_messages(questions([1]))
    assert grid.pull_messages([late]) == []
    grid.push_messages(questions([1], group_id="2"))
    assert [reply.metadata.src_node_id for reply in grid.pull_messages([late])] == [3]


def test_flowers_own_way_of_asking_waits_no_longer_than_its_timeout():
    grid = InProcessGrid.of_blocks(counting_app([]), 3, line=OddLine())
    replies = grid.send_and_receive(questions(grid.get_node_ids()), timeout=0.05)
    assert [reply.metadata.src_node_id for reply in replies] == [2, 2]
    with pytest.raises(RuntimeError, match="knows of no run"):
        _ = grid.run
