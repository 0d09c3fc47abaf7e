"""SIGKILL at every step of a stream: nothing that left is uncounted, no noise meets two sums."""

import json
import subprocess
import sys

import pytest

from tests.support.system_parts import REPOSITORY

STEPS_OF_TWO_ROUNDS = 9


def killed_again_and_again(folder, *, rounds, seed, timeout_s):
    """Let another process kill a stream at every step, and return what it found."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.stream_crashes", str(folder), str(rounds), str(seed)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


def assert_held(found, *, rounds):
    assert found["rounds"] == rounds
    assert found["kills"] >= STEPS_OF_TWO_ROUNDS * rounds // 2
    assert rounds // 2 <= found["noise_only"] < rounds
    assert found["refused_past_the_end"]
    assert found["is_bit_identical"]


def test_killed_stream_counts_all_that_left_and_ends_as_if_never_killed(tmp_path):
    found = killed_again_and_again(tmp_path, rounds=20, seed=1, timeout_s=60)
    assert_held(found, rounds=20)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_stream_of_two_hundred_rounds_counts_all_that_left(tmp_path, seed):
    found = killed_again_and_again(tmp_path, rounds=200, seed=seed, timeout_s=1800)
    assert_held(found, rounds=200)
