"""What one authenticated SuperNode can send through Flower's own SuperLink, and what it reaches."""

import threading
import time

import numpy as np
import pytest

from models.wire.rounds import LocalRecipe, RoundTask
from privacy.adaptive_clipping import grid_of
from server.engine.collection import Collector
from tests.support.superlink_in_process import (
    SuperLinkInProcess,
    contribution,
    in_parts,
    never_uploaded,
    with_body,
)

NUM_WEIGHTS = 5
UNIT = grid_of(0.3, has_norm_bit=False)
ONE = UNIT.quantise(np.array([0.1, 0.0, -0.2, 0.0, 0.05]))
TWO = UNIT.quantise(np.array([0.0, 0.1, 0.1, -0.1, 0.0]))


def collected(superlink, *, deadline_s):
    tasks = {
        node_id: RoundTask(
            stream="s",
            index=0,
            clipping_norm=0.3,
            cohort_size=len(superlink.nodes),
            device_ids=(f"d{number}",),
            recipe=LocalRecipe(),
        )
        for number, node_id in enumerate(superlink.nodes)
    }
    refused = []
    collector = Collector(
        deadline_s=deadline_s,
        stop=threading.Event(),
        poll_s=0.05,
        on_refusal=lambda node_id, reason: refused.append((node_id, str(reason))),
    )
    began = time.monotonic()
    found = collector.collect(
        superlink.grid,
        tuple(f"d{number}" for number in range(len(superlink.nodes))),
        tasks,
        weights=np.zeros(NUM_WEIGHTS, np.float32),
        on_look=lambda _: None,
        unit=UNIT,
    )
    return found, refused, time.monotonic() - began


@pytest.mark.parametrize("body", [b"", b"\xff\xff", b"\x0a\x03abc", bytes(4_000_000)])
def test_a_reply_that_is_no_message_is_refused_alone(monkeypatch, body):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=3)
    first, hostile, last = superlink.nodes
    for node_id, make in (
        (first, lambda asked: contribution(asked, ONE)),
        (hostile, lambda asked: with_body(asked, ONE, body)),
        (last, lambda asked: contribution(asked, TWO)),
    ):
        superlink.answer_aside(node_id, make)
    found, refused, _ = collected(superlink, deadline_s=20.0)
    assert refused == [(hostile, "malformed")]
    assert found.sum.num_replied == 2
    assert found.sum.total.tolist() == (ONE + TWO).tolist()


def test_an_upload_that_stops_half_way_holds_no_round_beyond_its_deadline(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=2)
    honest, hostile = superlink.nodes
    superlink.answer_aside(hostile, lambda asked: never_uploaded(asked, TWO))
    superlink.answer_aside(honest, lambda asked: contribution(asked, ONE), after_s=0.5)
    found, _, seconds = collected(superlink, deadline_s=2.0)
    assert found.sum.num_replied == 1
    assert found.sum.total.tolist() == ONE.tolist()
    assert seconds < 4.0


def test_a_node_that_sleeps_as_its_task_is_sent_is_waited_for(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=2)
    awake, asleep = superlink.nodes
    superlink.sleep(asleep)
    superlink.answer_aside(awake, lambda asked: contribution(asked, ONE))
    superlink.answer_aside(asleep, lambda asked: contribution(asked, TWO), after_s=1.5)
    found, refused, _ = collected(superlink, deadline_s=20.0)
    assert refused == []
    assert found.sum.total.tolist() == (ONE + TWO).tolist()


def test_a_node_that_stays_away_has_failed_once_the_time_is_over(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=2)
    awake, asleep = superlink.nodes
    superlink.sleep(asleep)
    superlink.answer_aside(awake, lambda asked: contribution(asked, ONE))
    found, refused, seconds = collected(superlink, deadline_s=1.0)
    assert refused == [(asleep, "failed")]
    assert found.sum.num_replied == 1
    assert seconds >= 1.0


def test_what_a_node_sent_before_it_fell_asleep_counts_once_it_is_back(monkeypatch):
    """A look in between would have Flower throw the reply away."""
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=1)
    (node_id,) = superlink.nodes

    def answers_sleeps_and_wakes():
        superlink.answer(node_id, lambda asked: contribution(asked, ONE))
        superlink.sleep(node_id)
        time.sleep(1.0)
        superlink.wake(node_id)

    gone = threading.Thread(target=answers_sleeps_and_wakes, daemon=True)
    gone.start()
    found, refused, _ = collected(superlink, deadline_s=5.0)
    gone.join()
    assert refused == []
    assert found.sum.num_replied == 1


def test_nobody_answers_under_anothers_name_or_to_anothers_task(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=2)
    honest, hostile = superlink.nodes

    def as_the_other(asked):
        reply, objects, tree = contribution(asked, TWO)
        announced = reply.metadata.__dict__
        announced["_src_node_id"] = honest
        return reply, objects, tree

    superlink.answer_aside(honest, lambda asked: contribution(asked, ONE))
    superlink.answer_aside(hostile, as_the_other)
    found, _, _ = collected(superlink, deadline_s=2.0)
    assert found.sum.total.tolist() == ONE.tolist()


def test_a_reply_of_any_length_is_not_taken_in(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=1)
    (node_id,) = superlink.nodes
    parts = [bytes([number]) * 1_000_000 for number in range(20)]
    superlink.answer_aside(node_id, lambda asked: in_parts(asked, ONE, parts))
    found, refused, _ = collected(superlink, deadline_s=5.0)
    assert refused == [(node_id, "malformed")]
    assert found.sum.num_replied == 0
    assert superlink.fetched_bytes < 2_000_000


def test_a_node_whose_clock_is_hours_ahead_can_answer(monkeypatch):
    superlink = SuperLinkInProcess(monkeypatch, num_nodes=1)
    (node_id,) = superlink.nodes
    superlink.answer_aside(node_id, lambda asked: contribution(asked, ONE, clock_ahead_s=36_000.0))
    found, _, _ = collected(superlink, deadline_s=5.0)
    assert found.sum.total.tolist() == ONE.tolist()
