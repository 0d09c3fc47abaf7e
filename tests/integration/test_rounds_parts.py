"""A run that goes on stays what it began as: fleet, moment, and who made which rounds."""

import json
import os
import threading
from datetime import timedelta

import numpy as np
import pytest

from server.flower_app import PlannedRun, carry_out
from server.runs.folder import RunFolder, RunFolderError
from tests.support.federated_rounds import NOW, config_of, honest, roster_of
from tests.support.flower_grid import GridInMemory

FLEET = {"seed": None, "fleet_sha256": "aa" * 32, "started_from": "none"}


class Killed(BaseException):
    """Stands for the end of the process."""


def carried(folder, *, facts, at=NOW, is_resumed=False, dies_after=None):
    """Carry a run of four rounds out, up to the death of its process."""
    held = RunFolder(folder, is_resumed=is_resumed, command={})
    run = PlannedRun(
        config=held.config()
        if held.is_resumed
        else config_of(stream="test", epsilon=2.0, num_rounds=4),
        folder=held,
        start=np.zeros(3, np.float32),
        is_resumed=held.is_resumed,
        facts=facts,
    )

    def on_round(record):
        if record.index == dies_after:
            raise Killed

    run.on_round = on_round
    grid = GridInMemory({1: honest, 2: honest})
    carry_out(run, grid, roster=roster_of([1, 2]), stop=threading.Event(), clock=lambda: at)


def report_in(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def killed(tmp_path):
    """A run whose process was ended after its second round."""
    with pytest.raises(Killed):
        carried(tmp_path / "run", facts=FLEET, dies_after=1)
    return tmp_path / "run"


def test_run_that_went_on_tells_both_parts_and_when_it_began(killed, monkeypatch):
    versions = report_in(killed)["versions"]
    monkeypatch.setattr(
        "server.runs.report_writer.versions_here", lambda: versions | {"flwr": "99.0"}
    )
    carried(killed, facts=FLEET, at=NOW + timedelta(days=1), is_resumed=True)
    report = report_in(killed)

    assert report["status"] == "finished"
    assert report["started_at"] == NOW.isoformat()
    assert [one["from_round"] for one in report["parts"]] == [1, 3]
    assert report["parts"][0]["versions"] == versions
    assert report["parts"][1]["versions"]["flwr"] == "99.0"
    assert report["parts"][1]["started_at"] == (NOW + timedelta(days=1)).isoformat()
    total = sum(one["seconds"] for one in report["parts"])
    assert report["seconds"] == pytest.approx(total, abs=0.01)
    assert report["seconds"] >= sum(one["seconds"] for one in report["rounds"]) - 0.01


def test_run_does_not_go_on_over_another_fleet(killed):
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    with pytest.raises(RunFolderError, match="fleet dataset of SHA-256 aaaa") as caught:
        carried(killed, facts=FLEET | {"fleet_sha256": "bb" * 32}, is_resumed=True)
    assert caught.value.exit_code == 3
    assert "name what it began with" in str(caught.value)
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == before

    carried(killed, facts=FLEET, is_resumed=True)
    assert report_in(killed)["record"]["fleet_sha256"] == "aa" * 32


def test_run_of_yesterday_goes_on_and_its_first_part_is_made_of_its_own_words(killed):
    report = report_in(killed)
    del report["parts"], report["record"]["fleet_sha256"]
    (killed / "run.json").write_text(json.dumps(report))
    os.utime(killed / "run.json")
    carried(killed, facts=FLEET, at=NOW + timedelta(days=1), is_resumed=True)
    told = report_in(killed)

    assert [one["from_round"] for one in told["parts"]] == [1, 3]
    assert told["parts"][0]["started_at"] == NOW.isoformat()
    assert told["parts"][0]["versions"] == report["versions"]
    assert told["record"]["fleet_sha256"] is None
