"""Which devices the nodes name, what is believed of it, and what is said when they name none."""

import threading

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from models.wire.rounds import (
    DEVICES_RECORD,
)
from server.engine.device_claims import MOST_DEVICES_A_NODE, ClaimRefusal, ClaimRule
from server.engine.flower_messages import Roster, ask_for_devices, asked_again
from server.engine.rounds import RoundsError
from tests.support.flower_grid import GridInMemory

HONEST = {100 + n: [f"BT-{n}-{i}" for i in range(3)] for n in range(10)}
EVERYONE = [device for devices in HONEST.values() for device in devices]
TWICE = ClaimRefusal.CLAIMED_TWICE


def names(*device_ids):
    return lambda _: [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": list(device_ids)})})]


def test_a_device_that_two_nodes_claim_belongs_to_neither():
    roster = Roster.of({7: ["b", "a"], 3: ["c", "a"]})
    assert (roster.device_ids, roster.node_ids) == (("b", "c"), (7, 3))
    assert roster.refused == ((3, TWICE), (7, TWICE))


def test_a_node_that_names_everybodys_devices_gets_none_of_them():
    roster = Roster.of({**HONEST, 7: EVERYONE}, rule=ClaimRule())
    assert 7 not in roster.node_ids
    assert (7, TWICE) in roster.refused


def test_an_enrolment_record_binds_devices_to_their_nodes():
    bound = {device: node for node, devices in HONEST.items() for device in devices}
    roster = Roster.of({**HONEST, 7: EVERYONE}, rule=ClaimRule.of(bound))
    assert dict(zip(roster.device_ids, roster.node_ids, strict=True)) == bound
    assert roster.refused == ((7, ClaimRefusal.NOT_ITS_OWN),)


def test_invented_devices_are_nobody_where_there_is_a_record():
    rule = ClaimRule.of(dict.fromkeys(EVERYONE))
    assert set(Roster.of({**HONEST, 7: ["sybil-1"]}, rule=rule).device_ids) == set(EVERYONE)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ([f"sybil-{n}" for n in range(MOST_DEVICES_A_NODE + 1)], ClaimRefusal.TOO_MANY),
        (["ok", "x" * 10_000_000], ClaimRefusal.BAD_IDENTIFIER),
        (["ok", "a\nb"], ClaimRefusal.BAD_IDENTIFIER),
        ([""], ClaimRefusal.BAD_IDENTIFIER),
        (["ok", 7], ClaimRefusal.BAD_IDENTIFIER),
    ],
)
def test_who_names_too_many_or_what_is_no_identifier_has_named_nothing(named, why):
    roster = Roster.of({1: ["a"], 7: named}, rule=ClaimRule())
    assert (roster.device_ids, roster.refused) == (("a",), ((7, why),))


def test_nodes_are_asked_for_their_devices():
    def node(message):
        assert message.metadata.message_type == "query"
        return names(f"d{message.metadata.dst_node_id}")(message)

    roster = ask_for_devices(
        GridInMemory({1: node, 2: node, 3: lambda _: ["asleep"], 4: lambda _: [RecordDict()]}),
        num_nodes=4,
        deadline_s=1.0,
        stop=threading.Event(),
    )
    assert roster.device_ids == ("d1", "d2")


def test_nobody_names_devices_in_another_nodes_place():
    def as_node_2(message):
        reply = Message(names("stolen")(message)[0], reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 2
        return reply

    grid = GridInMemory({1: lambda _: [], 2: names("own")})
    push = grid.push_messages

    def pushed(messages):
        ids = push(messages)
        grid._replies += [as_node_2(m) for m in messages if m.metadata.dst_node_id == 1]
        return ids

    grid.push_messages = pushed
    roster = ask_for_devices(grid, num_nodes=2, deadline_s=0.5, stop=threading.Event())
    assert roster.device_ids == ("own",)


def again(grid, before, rule=None):
    return asked_again(
        grid,
        before,
        rule=rule or ClaimRule(),
        deadline_s=0.2,
        stop=threading.Event(),
        poll_s=0.001,
    )


def test_asked_again_a_roster_routes_and_neither_enrols_nor_leaves_out():
    enrolled = Roster.of({1: ["a"], 2: ["b"]}).over(["a", "b", "c"])
    grid = GridInMemory({1: lambda _: [], 2: names("b"), 3: names("c"), 4: names("new")})
    roster = again(grid, enrolled)
    assert (roster.device_ids, roster.node_ids) == (("a", "b", "c"), (1, 2, 3))


def test_nobody_takes_over_the_device_of_a_node_that_sleeps():
    enrolled = Roster.of({1: ["a"], 2: ["b"]})
    grid = GridInMemory({2: names("b", "a")})
    roster = again(grid, enrolled)
    assert (roster.node_ids, roster.refused) == ((None, 2), ((1, TWICE), (2, TWICE)))
    bound = ClaimRule.of({"a": 1, "b": 2})
    assert again(grid, enrolled, bound).node_ids == (1, 2)


def test_a_node_that_names_everybody_stops_nobody_who_is_here():
    enrolled = Roster.of({1: ["a"], 2: ["b"]})
    grid = GridInMemory({1: names("a"), 2: names("b"), 7: names("a", "b")})
    roster = again(grid, enrolled)
    assert roster.node_ids == (1, 2)
    contested = ClaimRefusal.CONTESTED
    assert roster.refused == ((1, contested), (2, contested), (7, TWICE))
    assert again(grid, roster).node_ids == (1, 2)


def test_a_device_that_moved_is_behind_the_node_that_names_it_now():
    enrolled = Roster.of({1: ["a"], 2: ["b"]})
    grid = GridInMemory({1: names("a", "b"), 2: names("other")})
    assert again(grid, enrolled).node_ids == (1, 1)


def test_too_few_nodes_or_no_device_is_one_clear_error():
    grid = GridInMemory({1: lambda _: ["misconfigured"]})
    stop = threading.Event()
    with pytest.raises(RoundsError, match=r"1 of 2 nodes came within 0\.05 s"):
        ask_for_devices(grid, num_nodes=2, deadline_s=0.05, stop=stop, poll_s=0.01)
    with pytest.raises(RoundsError, match=r"no node named a device.*: misconfigured"):
        ask_for_devices(grid, num_nodes=1, deadline_s=0.5, stop=stop, poll_s=0.01)
