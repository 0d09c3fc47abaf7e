"""A run gives signs of life while it looks at weights or asks for counts."""

import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from server.flower_app import PlannedRun, carry_out
from server.runs import desk as desk_of_runs
from server.runs.folder import RunFolder
from server.runs.heartbeat import beating
from server.runs.status import QUIET_S, is_gone, read_status
from tests.support.federated_rounds import config_of, honest, roster_of
from tests.support.flower_grid import GridInMemory

START = datetime(2026, 3, 1, tzinfo=UTC)


def test_signs_come_until_the_block_ends_and_none_after():
    beats, enough = [], threading.Event()

    def beat():
        beats.append(time.monotonic())
        if len(beats) == 3:
            enough.set()

    with beating(beat, every_s=0.01):
        assert enough.wait(5.0)
    told = len(beats)
    time.sleep(0.05)
    assert len(beats) == told >= 3


def test_error_of_what_goes_on_comes_through_and_the_signs_end():
    beats = []
    with pytest.raises(KeyError), beating(lambda: beats.append(1), every_s=0.01):
        raise KeyError
    told = len(beats)
    time.sleep(0.05)
    assert len(beats) == told


def test_look_that_lasts_longer_than_the_silence_leaves_the_run_alive(tmp_path, monkeypatch):
    now, seen = [START], []
    monkeypatch.setattr(desk_of_runs, "beating", lambda beat: beating(beat, every_s=0.01))

    def look(_weights):
        status = read_status(tmp_path)
        if status is not None:
            now[0] += timedelta(seconds=QUIET_S + 5)
            end = time.monotonic() + 5.0
            while is_gone(status, now=now[0], alive=None) and time.monotonic() < end:
                time.sleep(0.01)
                status = read_status(tmp_path)
            seen.append(is_gone(status, now=now[0], alive=None))
        return {"loss": 1.0}

    run = PlannedRun(
        config=config_of(stream="test", epsilon=2.0, num_rounds=2),
        folder=RunFolder(tmp_path),
        start=np.zeros(3, np.float32),
        evaluate=look,
    )
    grid = GridInMemory({1: honest, 2: honest})
    carry_out(run, grid, roster=roster_of([1, 2]), stop=threading.Event(), clock=lambda: now[0])
    assert seen == [False, False]
