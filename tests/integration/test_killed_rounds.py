"""SIGKILL anywhere in a run of rounds: weights and ledger end as if nobody had touched it."""

import json
import subprocess
import sys

import pytest

from tests.support.stream_crashes import Death, Journal
from tests.support.system_parts import REPOSITORY


def killed_again_and_again(folder, *, rounds, kills, seed, timeout_s):
    """Let another process kill runs, hold each against an unbroken one, and say what it saw."""
    words = [str(folder), str(rounds), str(kills), str(seed)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_rounds", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


def test_process_that_came_to_its_end_is_killed_no_more(tmp_path, monkeypatch):
    killed = []
    monkeypatch.setattr("os.kill", lambda *asked: killed.append(asked))
    death = Death(-1, "", 0, Journal(tmp_path / "journal"))
    death._left = 2
    death._count()
    death.disarm()
    for _ in range(3):
        death._count()
    assert killed == []


def assert_told(found, *, rounds, kills):
    assert found["kills"] == kills
    assert found["entries"] == rounds
    assert 1 <= found["noise_only"] < rounds
    assert min(found["replied"]) < 6


def test_killed_runs_end_bit_for_bit_as_the_unbroken_one(tmp_path):
    found = killed_again_and_again(tmp_path, rounds=6, kills=5, seed=1, timeout_s=120)
    assert_told(found, rounds=6, kills=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_runs_killed_at_fifty_points_end_bit_for_bit_as_the_unbroken_one(tmp_path, seed):
    found = killed_again_and_again(tmp_path, rounds=12, kills=50, seed=seed, timeout_s=1800)
    assert_told(found, rounds=12, kills=50)
    assert found["runs"] >= 5
