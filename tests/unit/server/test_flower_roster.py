"""Which devices the nodes name, and what is said when they name none."""

import threading

import pytest
from flwr.app import ConfigRecord, RecordDict

from models.wire.rounds import (
    DEVICES_RECORD,
)
from server.engine.flower_messages import Roster, ask_for_devices
from server.engine.rounds import RoundsError
from tests.support.flower_grid import GridInMemory


def test_roster_counts_a_device_once_whoever_claims_it():
    roster = Roster.of({7: ["b", "a"], 3: ["c", "a"]})
    assert roster == Roster(device_ids=("a", "b", "c"), node_ids=(3, 7, 3))


def test_nodes_are_asked_for_their_devices():
    def node(message):
        assert message.metadata.message_type == "query"
        number = message.metadata.dst_node_id
        return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": [f"d{number}"]})})]

    roster = ask_for_devices(
        GridInMemory({1: node, 2: node, 3: lambda _: ["asleep"], 4: lambda _: [RecordDict()]}),
        num_nodes=4,
        deadline_s=1.0,
        stop=threading.Event(),
    )
    assert roster.device_ids == ("d1", "d2")


def test_too_few_nodes_or_no_device_is_one_clear_error():
    grid = GridInMemory({1: lambda _: ["misconfigured"]})
    stop = threading.Event()
    with pytest.raises(RoundsError, match=r"1 of 2 nodes came within 0\.05 s"):
        ask_for_devices(grid, num_nodes=2, deadline_s=0.05, stop=stop, poll_s=0.01)
    with pytest.raises(RoundsError, match=r"no node named a device.*: misconfigured"):
        ask_for_devices(grid, num_nodes=1, deadline_s=0.5, stop=stop, poll_s=0.01)
