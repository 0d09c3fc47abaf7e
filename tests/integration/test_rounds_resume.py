"""`fedcell rounds resume`: a run goes on from its folder alone, with the options it was started."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from server.engine.early_stop import REFERENCE_QUALITY
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.privacy_errors import HomeUnavailableError
from server.runs.folder import RunFolder, RunFolderError, command_of
from server.runs.run_files import COMMAND_FILE
from server.streams.stream_files import lock_stream
from simulations.commands.rounds_carrying import command_record, options_from
from tests.support.command_line import fedcell
from tests.support.federated_rounds import NOW, config_of, honest, roster_of
from tests.support.flower_grid import GridInMemory
from tests.support.stream_policies import stream_policy

FEDCELL = str(Path(sys.executable).with_name("fedcell"))
OPTIONS = {
    "fleet": "fleet",
    "out": "run",
    "bundle": "none",
    "cohort": 5,
    "rounds": 3,
    "seed": 3,
    "privacy_home": None,
    "owners": Path("owners.csv"),
    "resume": False,
    "as_json": True,
    "workers": 2,
    "patience": 4,
}


def test_options_come_back_with_absolute_paths_and_those_of_today(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle.zip").touch()
    policy = stream_policy()
    record = json.loads(json.dumps(command_record(OPTIONS, policy=policy)))
    assert record["options"]["owners"] == str(tmp_path / "owners.csv")
    options, plan = options_from(record, out=Path("moved"), workers=1, as_json=False)
    assert plan == policy
    assert (options["cohort"], options["patience"], options["seed"]) == (5, 4, 3)
    assert (options["out"], options["workers"], options["as_json"]) == (Path("moved"), 1, False)
    assert options["delta"] == 1e-8

    named = command_record(OPTIONS | {"bundle": "bundle.zip"}, policy=None)
    assert named["options"]["bundle"] == str(tmp_path / "bundle.zip")
    assert named["policy"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"command": "rounds end"},
        {"options": {"a_later_option": 1}},
        {"options": None},
        {"policy": {"schema_version": 99}},
    ],
)
def test_command_of_another_version_is_refused(change):
    record = command_record(OPTIONS, policy=None) | change
    with pytest.raises(RunFolderError, match=COMMAND_FILE):
        options_from(record, out=Path("run"), workers=None, as_json=False)


def said_by(*words):
    """Run `fedcell` in a process of its own."""
    return subprocess.run(
        [FEDCELL, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_folder_without_a_run_is_no_run_to_go_on_with(tmp_path):
    ran = fedcell("rounds", "resume", tmp_path)
    assert ran.is_refused(3, "command.json does not say how the run was started")


def test_run_that_is_finished_is_told_once_more(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "rounds": []}))
    (tmp_path / "bundle.zip").touch()
    ran = fedcell("rounds", "resume", tmp_path, "--json")
    assert ran.code == 0
    assert ran.json()["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replies", 70, "--dropout", 0.3, "--cohort", 99], "take a cohort of 100, not 99"),
        (["--dropout", 0.3], "say --replies N as well"),
    ],
)
def test_replies_and_cohort_that_contradict_each_other_are_refused(tmp_path, words, said):
    ran = fedcell("rounds", "start", "--fleet", tmp_path, "--out", tmp_path / "run", *words)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("held", [(), ("stream.key",), ("checkpoint.npz", "ledger.jsonl")])
def test_run_that_was_killed_before_it_began_begins_anew(tmp_path, held):
    RunFolder(tmp_path, command={"seed": 1})
    for name in held:
        (tmp_path / name).touch()
    (tmp_path / "run.json").touch()
    folder = RunFolder(tmp_path, is_resumed=True)
    assert not folder.is_resumed
    assert command_of(tmp_path) == {"seed": 1}
    assert not (tmp_path / "stream.key").exists()
    assert not (tmp_path / "checkpoint.npz").exists()


def test_run_that_is_about_to_begin_in_another_process_is_left_alone(tmp_path):
    RunFolder(tmp_path, command={})
    (tmp_path / "stream.key").touch()
    lock = lock_stream(tmp_path)
    try:
        with pytest.raises(HomeUnavailableError, match="run by another process"):
            RunFolder(tmp_path, is_resumed=True)
    finally:
        os.close(lock)
    assert (tmp_path / "stream.key").exists()
    assert (tmp_path / "participations.db").exists()


@pytest.mark.parametrize(("name", "content"), [("ledger.jsonl", "{}"), ("step.json", "{}")])
def test_run_that_may_have_asked_somebody_never_begins_anew(tmp_path, name, content):
    RunFolder(tmp_path, command={})
    (tmp_path / name).write_text(content)
    with pytest.raises(RunFolderError, match="holds no stream that could go on"):
        RunFolder(tmp_path, is_resumed=True)
    assert (tmp_path / name).read_text() == content


def test_folder_that_holds_nothing_never_becomes_a_run_by_resuming(tmp_path):
    with pytest.raises(RunFolderError, match="holds no stream"):
        RunFolder(tmp_path / "typed wrongly", is_resumed=True)
    assert not (tmp_path / "typed wrongly").exists()


class Killed(BaseException):
    """Stands for the end of the process."""


def stopping_run(folder, *, is_resumed=False):
    """A run that public data ends after its second round, over one node."""
    held = RunFolder(folder, is_resumed=is_resumed, command={})
    config = config_of(stream="test", epsilon=2.0, num_rounds=9, patience=2)
    run = PlannedRun(
        config=held.config() if held.is_resumed else config,
        folder=held,
        start=np.zeros(3, np.float32),
        is_resumed=held.is_resumed,
        evaluate=lambda _: {REFERENCE_QUALITY: 0.5},
    )
    grid = GridInMemory({1: honest, 2: honest})
    carry_out(run, grid, roster=roster_of([1, 2]), stop=threading.Event(), clock=lambda: NOW)
    return run, grid


def test_run_that_stopped_early_and_was_killed_before_its_report_is_finished_without_asking(
    tmp_path, monkeypatch
):
    def dies(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_weights", dies)
        with pytest.raises(Killed):
            stopping_run(tmp_path)
    assert not (tmp_path / "stream.key").exists()
    assert not (tmp_path / "weights.npz").exists()

    run, grid = stopping_run(tmp_path, is_resumed=True)
    assert grid.pushed == []
    assert run.report["status"] == "finished"
    assert [one["index"] for one in run.report["rounds"]] == [0, 1]
    assert run.report["privacy"]["noise_mechanism"] == "banded_matrix_factorisation"
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2
    with np.load(tmp_path / "weights.npz") as arrays:
        assert arrays["weights"].tolist() == run.result().tolist()


def left_by(folder):
    with np.load(folder / "weights.npz") as arrays:
        weights = arrays["weights"].tobytes()
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    ledger = [json.loads(line)["event"] for line in lines]
    with sqlite3.connect(folder / "participations.db") as counts:
        invited = counts.execute("SELECT * FROM invitations ORDER BY 1, 2, 3").fetchall()
    rounds = json.loads((folder / "run.json").read_text())["rounds"]
    return weights, ledger, invited, [(one["index"], one["metrics"]) for one in rounds]


@pytest.mark.soak
def test_flower_run_that_is_killed_once_ends_as_one_that_nobody_touched(tmp_path):
    fleet = tmp_path / "fleet"
    made = said_by("simulate", "fleet", "--devices", 40, "--days", 400, "--seed", 7, "--out", fleet)
    assert made.returncode == 0, made.stderr
    words = ["rounds", "start", "--fleet", fleet, "--rounds", 40, "--cohort", 10, "--seed", 3]
    words += ["--workers", 1]
    whole = said_by(*words, "--out", tmp_path / "unbroken")
    assert whole.returncode == 0, whole.stderr

    killed = tmp_path / "killed"
    started = subprocess.Popen(
        [FEDCELL, *map(str, words), "--out", str(killed)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end, rounds = time.monotonic() + 300, 0
    while rounds < 5 and time.monotonic() < end and started.poll() is None:
        time.sleep(0.01)
        if (killed / "run.json").exists():
            rounds = len(json.loads((killed / "run.json").read_text())["rounds"])
    os.killpg(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert 5 <= rounds < 40

    resumed = said_by("rounds", "resume", killed, "--workers", 1, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert left_by(killed) == left_by(tmp_path / "unbroken")
    assert (killed / "bundle.zip").exists()
