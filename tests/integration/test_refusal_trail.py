"""Why replies were refused, on disk: one line each, bounded, without a word of what they held."""

import json
import threading
from collections import Counter
from datetime import UTC, datetime

from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from server.engine.aggregation import ReplyRefusal
from server.engine.flower_messages import ask_for_devices
from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder
from server.runs.refusal_trail import (
    FULL_TRAIL_FILE,
    TRAIL_FILE,
    NodeNames,
    RefusalTrail,
    read_trail,
)
from simulations.fault_study import config_of
from simulations.fleet_faults import FaultPlan
from simulations.hostile_fleet import FleetAtWork, FleetGrid
from simulations.quality_study import QualityPlan
from simulations.seeded_streams import SeededKeys
from tests.support.small_fleet import SmallFleet

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def trail_in(folder, **limits):
    return RefusalTrail(folder, NodeNames(b"key of a stream"), lambda: NOW, **limits)


def test_a_line_says_when_which_round_which_node_and_why(tmp_path):
    trail = trail_in(tmp_path)
    trail.note(3, 17, ReplyRefusal.BEYOND_BOUND)
    trail.note(3, None, ReplyRefusal.UNASKED)
    trail.end_round(3)
    first, second = (tmp_path / TRAIL_FILE).read_text().splitlines()
    assert json.loads(first) == {
        "at": "2026-03-01T00:00:00+00:00",
        "round": 3,
        "node": NodeNames(b"key of a stream").name(17),
        "reason": "beyond_bound",
    }
    assert json.loads(second)["node"] == "nobody"
    assert "17" not in json.loads(first)["node"] or len(json.loads(first)["node"]) == 16


def test_a_node_that_lies_again_shows_in_one_stream_and_not_across_streams():
    names, others = NodeNames(b"one stream"), NodeNames(b"another stream")
    assert names.name(17) == names.name(17)
    assert names.name(17) != names.name(18)
    assert names.name(17) != others.name(17)


def test_lines_are_appended_and_never_changed(tmp_path):
    trail = trail_in(tmp_path)
    trail.note(0, 1, ReplyRefusal.LATE)
    trail.end_round(0)
    before = (tmp_path / TRAIL_FILE).read_bytes()
    again = trail_in(tmp_path)
    again.note(1, 1, ReplyRefusal.LATE)
    again.end_round(1)
    assert (tmp_path / TRAIL_FILE).read_bytes().startswith(before)
    assert [line["round"] for line in read_trail(tmp_path)] == [0, 1]


def test_a_round_without_refusals_writes_nothing(tmp_path):
    trail_in(tmp_path).end_round(0)
    assert list(tmp_path.iterdir()) == []


def test_a_fleet_that_always_lies_cannot_fill_the_disk(tmp_path):
    trail = trail_in(tmp_path, most_bytes=3000, most_a_round=5)
    for index in range(100):
        for node_id in range(50):
            trail.note(index, node_id, ReplyRefusal.NOT_FINITE)
        trail.end_round(index)
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {TRAIL_FILE, FULL_TRAIL_FILE}
    assert kept <= 6000
    last = [line for line in read_trail(tmp_path) if line["round"] == 99]
    assert len(last) == 6
    assert last[-1]["more"] == {"not_finite": 45}


def test_a_torn_last_line_is_left_out(tmp_path):
    trail = trail_in(tmp_path)
    trail.note(0, 1, ReplyRefusal.LATE)
    trail.end_round(0)
    with (tmp_path / TRAIL_FILE).open("ab") as file:
        file.write(b'{"at":"2026-03')
    assert [line["round"] for line in read_trail(tmp_path)] == [0]


def test_a_disk_that_refuses_does_not_stop_the_run(tmp_path, caplog):
    trail = trail_in(tmp_path / "gone")
    trail.note(0, 1, ReplyRefusal.LATE)
    trail.end_round(0)
    assert "could not be kept" in caplog.text


def test_a_run_leaves_a_line_for_every_refused_reply(tmp_path):
    fleet, stop = SmallFleet(16, 30), threading.Event()
    recipe = LocalRecipe(least_rows=20)
    plan = QualityPlan(num_rounds=3, cohort_size=8, local=recipe)
    run = PlannedRun(
        config=config_of(plan, seed=1),
        folder=RunFolder(tmp_path / "run"),
        start=new_flat_weights(seed=1),
        keys=SeededKeys(1),
    )
    grid = FleetGrid(FleetAtWork(fleet, FaultPlan(seed=1, hostile_replies=0.6), 1))
    roster = ask_for_devices(grid, num_nodes=16, deadline_s=5.0, stop=stop)
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: NOW)
    lines = list(read_trail(tmp_path / "run"))
    for record in run.report["rounds"]:
        noted = [line["reason"] for line in lines if line["round"] == record["index"]]
        assert Counter(noted) == record["refused"]
    assert len(lines) > 3
    assert {tuple(sorted(line)) for line in lines} == {("at", "node", "reason", "round")}
