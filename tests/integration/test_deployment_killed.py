"""SIGKILL all over a deployment while it carries a run: the run finishes, and ε is right."""

import json
import subprocess
import sys

import pytest

from tests.support.system_parts import NGINX, REPOSITORY

TOLERANCE = 1e-9


def killed_deployment(folder, *, rounds, kills, seed, timeout_s):
    """Have another process bring a deployment up, kill its parts, and say how all of it ended."""
    words = [str(folder), str(rounds), str(kills), str(seed)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_deployment", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    return json.loads(ran.stdout)


@pytest.mark.soak
@pytest.mark.skipif(NGINX.find() is None, reason=NGINX.is_missing_line())
def test_a_run_of_ten_rounds_finishes_though_thirty_processes_are_killed(tmp_path):
    found = killed_deployment(tmp_path, rounds=10, kills=30, seed=5, timeout_s=5400)
    print(json.dumps(found))

    assert (found["status"], found["ended_because"]) == ("finished", "all_rounds")
    assert len(found["kills"]) == 30
    assert len(found["replied"]) == found["entries"] == 10
    assert abs(found["epsilon_told"] - found["epsilon_of_ledger"]) < TOLERANCE
    assert found["epsilon_told"] <= 2.0
    answered = sum(found["replied"])
    debited = 0
    for account in found["devices"].values():
        steps = [tuple(step) for step in account["steps"]]
        assert account["is_sound"]
        assert account["receipts_that_differ"] == 0
        assert len(steps) == len(set(steps)) == account["participations"] <= 10
        assert account["epsilon"] <= found["epsilon_told"] + TOLERANCE
        debited += account["participations"]
    assert 0 < answered <= debited, "nothing was counted that no device had debited"
