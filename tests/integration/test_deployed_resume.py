"""A deployed run that goes on is what it began as: its keys, its bindings, its pace, its fleet."""

import json
import sqlite3
import tomllib

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app.user_config import UserConfig

from models.wire.rounds import DEVICES_RECORD, RECEIPT_MESSAGE
from server import flower_app
from server.deployed_run import deployed_run
from server.engine.rounds import RoundsError
from server.privacy_home.home_files import COUNTS_FILE
from server.runs.status import RunState, read_status
from server.signer import make_key_file
from tests.support.federated_rounds import contribution, task_of
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file
from tests.support.system_parts import REPOSITORY

DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]
FLEET = {1: "1-b", 2: "2-b", 3: "d-2"}
LIAR = 9


def node(own):
    def answer(message):
        if message.metadata.message_type == "query":
            return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": own})})]
        if message.metadata.message_type == RECEIPT_MESSAGE:
            return [RecordDict()]
        task = task_of(message)
        facts = {"stream": task.stream, "index": task.index, "num_devices": len(task.device_ids)}
        return [contribution(np.zeros(3, np.int64), **facts)]

    return answer


def fleet(**more):
    nodes = {number: node([device]) for number, device in FLEET.items()}
    return GridInMemory(nodes | {int(key.removeprefix("n")): one for key, one in more.items()})


def keys_in(folder):
    np.savez(folder / "start.npz", weights=np.zeros(3, np.float32))
    make_key_file(folder / "policy.pem")
    make_stream_key_file(folder / "stream.operator")
    lines = ["device_id,node_id", *(f"{device},{number}" for number, device in FLEET.items())]
    (folder / "enrolled.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DECLARED | {
        "stream-key-file": str(folder / "stream.operator"),
        "policy-key": str(folder / "policy.pem"),
        "privacy-home": str(folder / "home"),
        "start-weights": str(folder / "start.npz"),
        "out": str(folder / "run"),
        "delta": 1e-6,
    }


def carry(run_config, grid):
    context = Context(
        run_id=1, node_id=1, node_config=UserConfig(), state=RecordDict(), run_config=run_config
    )
    flower_app.app(grid=grid, context=context)


def report_of(base):
    return json.loads((base / "run" / "run.json").read_text(encoding="utf-8"))


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run of three rounds that was interrupted after its first, and its places."""
    places = keys_in(tmp_path)
    said = {"rounds": 3, "cohort": 1, "deadline-s": 2.0, "epsilon": 1.5, "round-every-s": 1e-3}
    said["enrolment"] = str(tmp_path / "enrolled.csv")
    real = flower_app.carry_out

    def interrupted(run, grid, *, stop, **more):
        run.on_round = lambda _record: stop.set()
        real(run, grid, stop=stop, **more)

    monkeypatch.setattr(flower_app, "carry_out", interrupted)
    carry(places | said, fleet())
    monkeypatch.setattr(flower_app, "carry_out", real)
    assert (report_of(tmp_path)["status"], len(report_of(tmp_path)["rounds"])) == ("interrupted", 1)
    return tmp_path, places | {"resume": 1}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rounds", 500, "rounds is 500, and the run began with 3; leave rounds out"),
        ("cohort", 2, "cohort is 2, and the run began with 1"),
        ("replies", 2, "cohort is 2, and the run began with 1"),
        ("epsilon", 0.5, "epsilon is 0.5, and the run began with 1.5"),
        ("deadline-s", 1.0, "deadline-s is 1, and the run began with 2"),
        ("optimizer", "fedadam", "optimizer is fedadam, and the run began with fedavg;"),
        ("local-rate", 0.5, "local-rate is 0.5, and the run began with 0.1"),
        ("round-every-s", 60.0, "round-every-s is 60, and the run began with 0.001"),
    ],
)
def test_a_key_that_contradicts_what_a_run_began_with_is_refused_with_both_values(
    begun, key, value, words
):
    base, places = begun
    before = (base / "run" / "run.json").read_bytes()
    with pytest.raises(RoundsError, match=words) as refused:
        carry(places | {key: value}, fleet())
    assert refused.value.exit_code == 2
    assert (base / "run" / "run.json").read_bytes() == before
    carry(places | {"rounds": 3, "epsilon": 1.5, "cohort": 1}, fleet())
    assert report_of(base)["status"] == "finished"


def test_without_the_keys_a_run_keeps_its_pace_and_which_node_each_device_is_bound_to(begun):
    base, places = begun
    run = deployed_run(places)
    assert run.watching.round_every_s == 1e-3
    assert run.claims.bound == {device: number for number, device in FLEET.items()}
    run.folder.close()

    grid = fleet(n9=node(list(FLEET.values())))
    carry(places, grid)
    trained = {m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == "train"}
    assert LIAR not in trained
    assert len(trained) == 2
    assert report_of(base)["status"] == "finished"


def test_a_file_binds_anew_takes_out_and_lets_nobody_loose(begun):
    base, places = begun
    lines = ["device_id,node_id", "1-b,7", "2-b,", "new,8"]
    (base / "enrolled.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    run = deployed_run(places | {"enrolment": str(base / "enrolled.csv")})

    assert run.claims.bound == {"1-b": 7, "2-b": 2, "new": 8}
    run.folder.close()


def test_a_run_of_yesterday_that_kept_neither_goes_on_as_it_is_told(begun):
    base, places = begun
    with sqlite3.connect(base / "home" / COUNTS_FILE) as counts:
        counts.execute("DELETE FROM facts WHERE name LIKE 'enrolment bindings of %'")
    report = report_of(base)
    del report["round_every_s"]
    (base / "run" / "run.json").write_text(json.dumps(report), encoding="utf-8")

    run = deployed_run(places | {"round-every-s": 5.0})

    assert run.watching.round_every_s == 5.0
    assert run.claims.bound == dict.fromkeys(FLEET.values())
    run.folder.close()


def test_a_run_goes_on_while_no_node_is_here_and_asks_them_once_they_are(begun):
    base, places = begun
    first_look = []

    class Empty(GridInMemory):
        def get_node_ids(self):
            status = read_status(base / "run")
            if status is not None and status.state is RunState.RUNNING and not self.nodes:
                first_look.append(status.rounds_done)
                self.nodes.update(fleet().nodes)
            return super().get_node_ids()

    grid = Empty({})
    carry(places, grid)

    report = report_of(base)
    assert (report["status"], len(report["rounds"])) == ("finished", 3)
    assert first_look == [1]
    assert [record["replied"] for record in report["rounds"]] == [1, 1, 1]


def test_a_run_that_begins_needs_its_nodes_and_leaves_the_folder_free(tmp_path, monkeypatch):
    monkeypatch.setattr(flower_app, "NODES_DEADLINE_S", 0.05)
    places = keys_in(tmp_path) | {"rounds": 1, "cohort": 1, "deadline-s": 2.0}
    with pytest.raises(RoundsError, match="0 of 1 nodes came"):
        carry(places, GridInMemory({}))
    carry(places, fleet())
    assert report_of(tmp_path)["status"] == "finished"
