"""SIGKILL at every kind of moment of updating and switching: always one model that works."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.system_parts import REPOSITORY


def kill_again_and_again(folder, *, points, seed):
    program = [sys.executable, "-m", "tests.support.update_power_cut"]
    ended = subprocess.run(
        [*program, str(folder), str(points), str(seed)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def judge(found, *, points):
    assert len(found) == points
    for state in found:
        assert state["known"], state
        # What was said to be committed is, or what was installed since and not said yet.
        assert state["committed"] in state["possible"], state
        assert len(state["files"]) <= 3, state
    assert len({state["committed"] for state in found}) > 2
    assert sum(state["steps"] for state in found) > points


def test_killed_updates_leave_a_model_that_works(tmp_path):
    judge(kill_again_and_again(tmp_path, points=10, seed=1), points=10)


@pytest.mark.soak
def test_killed_updates_leave_a_model_that_works_a_hundred_times(tmp_path):
    judge(kill_again_and_again(tmp_path, points=100, seed=2), points=100)
