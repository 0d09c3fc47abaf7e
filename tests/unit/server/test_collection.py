"""Every reply is judged alone: who sent it, what is in it, when it came, and why it is a zero."""

import io
import threading
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    Contribution,
    DeviceReceipt,
    LocalRecipe,
    RoundTask,
)
from privacy import UpdateGrid
from server.engine.collection import Collector
from server.engine.exchange import (
    ASKED_AT_A_TIME,
    CLOCK_TOLERANCE_S,
    LONGEST_POLL_S,
    MESSAGES_AT_A_TIME,
    exchange,
    pause_s,
)
from tests.support.flower_grid import GridInMemory

UNIT = UpdateGrid(clipping_norm=1.0)
WEIGHTS = np.zeros(3, np.float32)
ONE = UNIT.quantise(np.array([0.6, 0.0, -0.79]))


def task(node, index=4, num_devices=1):
    return RoundTask(
        stream="run",
        index=index,
        clipping_norm=1.0,
        cohort_size=9,
        device_ids=tuple(f"{node}-{number}" for number in range(num_devices)),
        recipe=LocalRecipe(),
    )


def says(total=ONE, *, stream="run", index=4, num_devices=1, array=None, receipts=()):
    facts = Contribution(stream=stream, index=index, num_devices=num_devices, receipts=receipts)
    array = Array(total) if array is None else array
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: array})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return content


def raw(data, shape=(3,), dtype="int64"):
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)


def npy(header):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def collected(nodes, *, collector=None, index=4, deadline_s=0.05, num_devices=1):
    collector = collector or Collector(deadline_s=deadline_s, stop=threading.Event(), poll_s=0.001)
    grid = nodes if isinstance(nodes, GridInMemory) else GridInMemory(nodes)
    tasks = {node: task(node, index, num_devices) for node in grid.nodes}
    found = collector.collect(
        grid, ("cohort",), tasks, weights=WEIGHTS, unit=UNIT, on_look=lambda _: None
    )
    return found.sum


def test_good_replies_are_added_and_nothing_is_refused():
    found = collected(
        {1: lambda _: [says()], 2: lambda _: [says(-2 * ONE)][:0], 3: lambda _: [says()]}
    )
    assert found.total.tolist() == (2 * ONE).tolist()
    assert (found.num_replied, found.refused) == (2, {})


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("out of memory", "failed"),
        (RecordDict(), "malformed"),
        (says(receipts=("{}",) * 2), "malformed"),
        (says(receipts=("{" + " " * 256,)), "malformed"),
        (says(stream="another"), "wrong_stream"),
        (says(index=3), "wrong_step"),
        (says(index=5), "wrong_step"),
        (says(num_devices=2), "too_many_devices"),
        (says(num_devices=-1), "too_many_devices"),
        (says(ONE[:2]), "wrong_shape"),
        (says(ONE.reshape(3, 1)), "wrong_shape"),
        (says(np.zeros(0, np.int64)), "wrong_shape"),
        (says(ONE.astype(np.float64)), "wrong_type"),
        (says(ONE.astype(">i8")), "wrong_type"),
        (says(ONE.astype(np.int32)), "wrong_type"),
        (says(np.array([1.0, np.nan, 0.0])), "not_finite"),
        (says(np.array([1.0, -np.inf, 0.0], np.float32)), "not_finite"),
        (says(np.array([1.0, complex(0, np.nan), 0.0])), "not_finite"),
        (says(3 * ONE), "beyond_bound"),
        (says(np.full(3, np.iinfo(np.int64).max)), "beyond_bound"),
        (says(np.full(3, np.iinfo(np.int64).min)), "beyond_bound"),
        (says(num_devices=0), "beyond_bound"),
    ],
)
def test_bad_reply_is_a_zero_with_its_reason(reply, reason):
    found = collected({1: lambda _: [says()], 2: lambda _: [reply]})
    assert found.total.tolist() == ONE.tolist()
    assert (found.num_replied, found.refused) == (1, {reason: 1})


@pytest.mark.parametrize(
    "array",
    [
        raw(b""),
        raw(b"not an array"),
        raw(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }")),
        raw(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-3,), }")),
        raw(npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }") + b"cos\nsystem\n"),
        raw(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }") + b"\0" * 23),
        raw(npy("{'descr': '<i8', 'fortran_order': False, 'shape': ")),
        raw(npy("(" * 90)),
        raw(b"\x93NUMPY\x09\x00" + bytes(64)),
        raw(b"\x93NUMPY\x01\x00" + bytes(10_000)),
        Array(dtype="int64", shape=(3,), stype="torch", data=ONE.tobytes()),
    ],
)
def test_bytes_that_are_no_array_are_malformed_and_end_nothing(array):
    found = collected({1: lambda _: [says()], 2: lambda _: [says(array=array)]})
    assert (found.num_replied, found.refused) == (1, {"malformed": 1})


def test_random_damage_to_an_array_ends_nothing():
    random = np.random.default_rng(1)
    buffer = io.BytesIO()
    np.save(buffer, ONE)
    damaged = {}
    for node in range(200):
        data = bytearray(buffer.getvalue())
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.integers(256)
        damaged[node] = bytes(data)
    nodes = {node: (lambda _, data=data: [says(array=raw(data))]) for node, data in damaged.items()}
    found = collected(nodes, deadline_s=60.0)
    assert found.num_replied + sum(found.refused.values()) == 200
    assert found.refused["malformed"] > 100


def test_array_of_many_times_the_models_bytes_is_not_even_read(monkeypatch):
    monkeypatch.setattr(Array, "numpy", lambda _: pytest.fail("it was read"))
    found = collected({1: lambda _: [says(np.zeros(100_000, np.int64))]})
    assert found.refused == {"malformed": 1}


def test_second_reply_of_a_node_is_a_duplicate_whatever_the_first_was():
    nodes = {
        1: lambda _: [says(), says()],
        2: lambda _: ["other", says()],
        3: lambda _: [RecordDict(), says()],
    }
    found = collected(nodes)
    assert found.num_replied == 1
    assert found.refused == {"duplicate": 3, "failed": 1, "malformed": 1}


def test_nobody_speaks_for_another_node():
    def as_another(message):
        reply = Message(says(), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 3
        return reply

    grid = GridInMemory({1: lambda _: [], 2: lambda _: []})
    push = grid.push_messages

    def pushed(messages):
        ids = push(messages)
        grid._replies += [as_another(m) for m in messages if m.metadata.dst_node_id == 1]
        return ids

    grid.push_messages = pushed
    found = collected(grid)
    assert (found.num_replied, found.refused) == (0, {"unasked": 1})


def test_reply_to_a_message_that_nobody_sent_is_unasked():
    grid = GridInMemory({1: lambda _: [says()]})
    pull = grid.pull_messages

    def pulled(ids):
        replies = pull(ids)
        for reply in replies:
            other = Message(says(), reply_to=grid.pushed[0])
            other.metadata.__dict__["_reply_to_message_id"] = "a message of long ago"
            return [other, reply]
        return replies

    grid.pull_messages = pulled
    found = collected(grid)
    assert (found.num_replied, found.refused) == (1, {"unasked": 1})


def test_replay_of_an_older_step_or_of_another_stream_is_not_added():
    collector = Collector(deadline_s=0.05, stop=threading.Event(), poll_s=0.001)
    kept = []

    def honest_then_replays(message):
        if not kept:
            kept.append(says(index=3))
        return kept

    grid = GridInMemory({1: honest_then_replays})
    assert collected(grid, collector=collector, index=3).num_replied == 1
    assert collected(grid, collector=collector, index=4).refused == {"wrong_step": 1}
    kept[:] = [says(stream="yesterday", index=5)]
    assert collected(grid, collector=collector, index=5).refused == {"wrong_stream": 1}


def test_late_reply_is_counted_once_and_added_nowhere():
    collector = Collector(deadline_s=0.02, stop=threading.Event(), poll_s=0.001)
    grid = GridInMemory({1: lambda _: [], 2: lambda m: [says(index=int(m.metadata.group_id))]})
    assert collected(grid, collector=collector, index=4).num_replied == 1
    of_four = next(m for m in grid.pushed if m.metadata.dst_node_id == 1)
    grid._replies.append(Message(says(index=4), reply_to=of_four))

    found = collected(grid, collector=collector, index=5)
    assert (found.num_replied, found.refused) == (1, {"late": 1})
    assert found.total.tolist() == ONE.tolist()
    assert collected(grid, collector=collector, index=6).refused == {}


def test_error_that_flower_makes_of_a_message_that_ran_out_is_nobodys_late_reply():
    collector = Collector(deadline_s=0.02, stop=threading.Event(), poll_s=0.001)
    grid = GridInMemory({1: lambda _: []})
    collected(grid, collector=collector, index=4)
    ran_out = Message(Error(code=3, reason="expired"), reply_to=grid.pushed[0])
    grid._replies.append(ran_out)
    assert collected(grid, collector=collector, index=5).refused == {}


class CountingGrid:
    """A grid that makes each reply when it is pulled, and sees how many are held at once."""

    def __init__(self):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.most_pushed = self.most_pulled = 0
        self.waiting = {}

    def get_node_ids(self):
        return [message.metadata.dst_node_id for message in self.waiting.values()]

    def push_messages(self, messages):
        messages = list(messages)
        self.most_pushed = max(self.most_pushed, len(messages))
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.waiting)}"
            self.waiting[message.metadata.message_id] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids):
        self.most_pulled = max(self.most_pulled, len(ids))
        return [Message(says(), reply_to=self.waiting.pop(key)) for key in list(ids)]


def test_messages_and_replies_pass_a_few_at_a_time():
    grid = CountingGrid()
    collector = Collector(deadline_s=5.0, stop=threading.Event(), poll_s=0.001)
    tasks = {node: task(node) for node in range(1, 501)}
    found = collector.collect(
        grid, ("cohort",), tasks, weights=WEIGHTS, unit=UNIT, on_look=lambda _: None
    )
    assert found.sum.num_replied == 500
    assert found.sum.total.tolist() == (500 * ONE).tolist()
    assert grid.most_pushed <= MESSAGES_AT_A_TIME
    assert grid.most_pulled <= ASKED_AT_A_TIME


def test_message_that_the_grid_did_not_take_is_not_waited_for():
    grid = GridInMemory({1: lambda _: [says()], 2: lambda _: [says()]})
    push = grid.push_messages
    grid.push_messages = lambda messages: [*push(messages[:1]), None]
    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="train", group_id="4")
        for node in (1, 2)
    ]
    sent = {}
    replies = list(
        exchange(grid, messages, deadline_s=60.0, stop=threading.Event(), poll_s=0.001, sent=sent)
    )
    assert len(replies) == 1
    assert list(sent.values()) == [1]


@pytest.mark.slow
def test_receipts_beyond_their_bounds_are_not_even_parsed(monkeypatch):
    def parsed(_line):
        pytest.fail("it was parsed")

    monkeypatch.setattr(DeviceReceipt, "from_line", parsed)
    lines = (("{}",) * 300_000, (" " * 18_000_000,))
    found = collected(
        {1: lambda _: [says(receipts=lines[0])], 2: lambda _: [says(receipts=lines[1])]},
        deadline_s=30.0,
    )
    assert (found.num_replied, found.refused) == (0, {"malformed": 2})


def test_what_came_in_time_counts_and_nothing_is_asked_for_after_the_deadline():
    """Each reply takes long to read, as a hostile one may."""
    grid = CountingGrid()
    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="train", group_id="4")
        for node in range(1, ASKED_AT_A_TIME + 31)
    ]
    taken = 0
    for _ in exchange(grid, messages, deadline_s=0.1, stop=threading.Event(), poll_s=0.001):
        taken += 1
        time.sleep(0.001)
    assert taken == ASKED_AT_A_TIME


class SilentGrid(CountingGrid):
    """Five hundred nodes that stay silent, on a clock of its own."""

    def __init__(self):
        super().__init__()
        self.requests = 0

    def pull_messages(self, ids):
        self.requests += 1
        return []


class OwnClock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds
        return False

    def is_set(self):
        return False


def test_a_silent_fleet_of_500_is_asked_rarely_over_ten_minutes(monkeypatch):
    clock, grid = OwnClock(), SilentGrid()
    monkeypatch.setattr("server.engine.exchange.time", clock)
    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="train", group_id="4")
        for node in range(1, 501)
    ]
    assert not list(exchange(grid, messages, deadline_s=600.0, stop=clock, poll_s=0.02))
    # At 0.02 s and 32 identifiers a request these were 480,000.
    assert grid.requests < 1000
    assert 600.0 <= clock.now < 600.1


@pytest.mark.parametrize(
    ("silent_s", "pause"), [(0.0, 0.02), (0.4, 0.02), (4.0, 0.2), (40.0, 2.0), (600.0, 2.0)]
)
def test_pause_is_a_share_of_the_silence_up_to_two_seconds(silent_s, pause):
    assert pause_s(silent_s, shortest_s=0.02) == pytest.approx(pause)
    assert pause <= LONGEST_POLL_S


def test_a_message_lives_little_longer_than_anybody_waits_for_its_reply():
    grid = GridInMemory({1: lambda _: [says()]})
    message = Message(RecordDict(), dst_node_id=1, message_type="train", group_id="4")
    assert list(
        exchange(grid, [message], deadline_s=604_800.0, stop=threading.Event(), poll_s=0.001)
    )
    assert grid.pushed[0].metadata.ttl == 604_800.0 + CLOCK_TOLERANCE_S
