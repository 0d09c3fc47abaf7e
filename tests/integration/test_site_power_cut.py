"""SIGKILL between any two steps from an offer to its answer: one answer, debited before it left."""

import json
import subprocess
import sys

import pytest

from tests.support.system_parts import REPOSITORY


def lines_of(points, folder):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.site_power_cut", points, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def require_one_answer(lines):
    for line in lines:
        assert line["is_whole"], line
        # One whole, whatever came twice, of the same bytes in both lives.
        (is_update,) = line["answers"]
        assert line["in_the_end"] == {"debited": [0], "waiting": 0}, line
        was_debited = line["after_kill"]["debited"] == [0]
        was_put_out = bool(line["said"] or line["after_kill"]["waiting"])
        # Nothing was there to leave before the debit, and what was debited is not made again.
        assert was_debited or not was_put_out, line
        assert is_update == (was_put_out or not was_debited), line


def test_device_that_is_killed_on_the_way_to_its_answer_gives_one(tmp_path):
    lines = lines_of("3:8", tmp_path)
    assert sum(line["killed"] for line in lines) >= 7
    require_one_answer(lines)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1, 600, 50))
def test_device_that_is_killed_at_each_of_its_steps_gives_one_answer(first, tmp_path):
    """Fifty steps each, so that an interrupted soak can go on with the rest."""
    require_one_answer(lines_of(f"{first}-{first + 49}", tmp_path))
