"""A cancel ends a run whatever became of its process, its report and its status meanwhile."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from server.runs.control import CANCEL_FILE, Request, ask_cancel
from server.runs.ending import end_run_of_no_process
from server.runs.reading import RunOverError
from server.runs.status import RunState, read_status, write_status
from server.streams.stream_files import lock_stream
from tests.support import watched_run
from tests.support.command_line import fedcell

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BY_ANNA = Request(asked_by="anna@host", asked_at=NOW)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run whose process was killed after its first rounds."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    process = watched_run.Walker.of(folder, seconds=0.0)
    try:
        wait_for_rounds(folder, 1)
    finally:
        process.kill()
    return folder


@pytest.fixture
def run(killed, tmp_path):
    """The killed run's files, to be spoilt and ended."""
    folder = tmp_path / "run"
    folder.mkdir()
    for path in killed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def wait_for_rounds(folder, count):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        status = read_status(folder)
        if status is not None and status.rounds_done >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the run released nothing")


def test_a_damaged_report_keeps_nobody_from_destroying_the_key(run):
    (run / "run.json").write_text("{")

    answer = fedcell("rounds", "cancel", run, "--yes")

    assert answer.is_refused(3, "run.json", "cancelled all the same", "key destroyed")
    assert not (run / "stream.key").exists()
    assert read_status(run).state is RunState.CANCELLED
    assert read_status(run).ended_because == "cancelled"


def test_a_run_of_which_nothing_can_be_read_is_ended_too(run):
    (run / "run.json").write_text("{")
    (run / "status.json").write_text("[]")

    assert fedcell("rounds", "cancel", run, "--yes").code == 3
    assert not (run / "stream.key").exists()


def test_a_cancelled_run_says_so_in_its_report(run):
    assert fedcell("rounds", "cancel", run, "--yes").code == 0
    report = json.loads((run / "run.json").read_text())
    assert (report["status"], report["ended_because"]) == ("cancelled", "cancelled")


def test_a_living_process_is_asked_and_nothing_is_taken_from_under_it(run):
    (run / "status.json").write_text('{"state": 3}')
    held = lock_stream(run)
    try:
        assert not end_run_of_no_process(run, BY_ANNA, now=NOW)
    finally:
        os.close(held)
    assert (run / "stream.key").exists()
    assert not (run / CANCEL_FILE).exists()


def test_a_run_that_finishes_before_it_reads_the_cancel_is_told_as_finished(run):
    ask_cancel(run, BY_ANNA)
    held = lock_stream(run)
    try:
        assert not end_run_of_no_process(run, BY_ANNA, now=NOW)
        write_status(run, replace(read_status(run), state=RunState.FINISHED), durably=True)
        with pytest.raises(RunOverError, match="finished"):
            end_run_of_no_process(run, BY_ANNA, now=NOW)
    finally:
        os.close(held)
    assert not (run / CANCEL_FILE).exists()


@pytest.mark.slow
def test_a_process_that_dies_while_a_cancel_waits_is_ended_for_it(tmp_path):
    run = tmp_path / "run"
    process = watched_run.Walker.of(run, seconds=0.05)
    try:
        wait_for_rounds(run, 1)
        os.kill(process.pid, signal.SIGSTOP)
        threading.Timer(2.0, process.kill).start()
        started = time.monotonic()
        answer = fedcell("rounds", "cancel", run, "--yes")
    finally:
        process.kill()
    assert answer.code == 0
    assert time.monotonic() - started < 20
    assert not (run / "stream.key").exists()
    assert read_status(run).state is RunState.CANCELLED
