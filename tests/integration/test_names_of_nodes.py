"""Whose name stands in the trail of refused replies: found out with the stream's key alone."""

import threading
from datetime import UTC, datetime

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from models.wire.rounds import DEVICES_RECORD
from server.engine.device_claims import ClaimRule
from server.engine.enrolment import Enrolment
from server.engine.flower_messages import ask_for_devices
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.enrolment_record import EnrolmentSource
from server.runs.folder import RunFolder
from server.runs.refusal_trail import read_trail
from server.streams.stream_key import read_operator_key
from tests.support.command_line import fedcell
from tests.support.federated_rounds import NUM_WEIGHTS, config_of, honest
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file

LIAR = 2**63 + 17
NODES = {1: ["BT-1"], 2: ["BT-2"], LIAR: ["BT-1", "BT-2"]}


def node(own):
    def answer(message):
        if message.metadata.message_type == "query":
            return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": own})})]
        return honest(message) if message.metadata.message_type == "train" else [RecordDict()]

    return answer


def run_until_round(last, folder, key):
    """A run of two rounds over nodes of which one names devices that are bound to others."""
    bound = {own[0]: number for number, own in NODES.items() if number != LIAR}
    rule = ClaimRule.of(bound)
    stop = threading.Event()
    run = PlannedRun(
        config=config_of(epsilon=2.0, num_rounds=2, cohort_size=2, deadline_s=0.05),
        folder=RunFolder(folder),
        start=np.zeros(NUM_WEIGHTS, np.float32),
        enrolment=Enrolment(bound, EnrolmentSource.FILE),
        claims=rule,
        operator=read_operator_key(key),
        on_round=lambda record: stop.set() if record.index + 1 == last else None,
    )
    grid = GridInMemory({number: node(own) for number, own in NODES.items()})
    roster = ask_for_devices(grid, num_nodes=1, deadline_s=0.05, stop=threading.Event(), rule=rule)
    now = datetime(2026, 5, 1, tzinfo=UTC)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: now)
    return folder


def test_a_node_of_the_trail_is_found_by_its_number_while_the_key_is_there(tmp_path):
    key = tmp_path / "stream.operator"
    make_stream_key_file(key)
    run = run_until_round(1, tmp_path / "run", key)
    asked = ("rounds", "explain", 1, run, "--node", 1, "--node", LIAR)

    answer = fedcell(*asked, "--stream-key-file", key, "--json").json()
    names = answer["nodes"]
    assert set(names) == {"1", str(LIAR)}
    assert {line["node"] for line in read_trail(run)} == {names[str(LIAR)]}
    assert names[str(LIAR)] in answer["trail"]["by_node"]
    assert names["1"] not in answer["trail"]["by_node"]

    said = " ".join(fedcell(*asked, "--stream-key-file", key).out.split())
    assert f"{LIAR} is {names[str(LIAR)]} (1 in the trail)" in said
    assert f"1 is {names['1']};" in said
    assert fedcell(*asked).is_refused(3, "stream.key", "is sealed", "--stream-key-file")
    plain = fedcell("rounds", "explain", 1, run, "--json").json()
    assert "nodes" not in plain


def test_names_of_a_stream_that_has_ended_lead_to_nobody(tmp_path):
    key = tmp_path / "stream.operator"
    make_stream_key_file(key)
    run = run_until_round(2, tmp_path / "run", key)

    refused = fedcell("rounds", "explain", 1, run, "--node", LIAR, "--stream-key-file", key)

    assert refused.is_refused(3, "stream.key", "its names lead to no node any more")
