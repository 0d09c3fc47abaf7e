"""SIGKILL between any two steps of a participation: never under-counted, never answered twice."""

import json
import subprocess
import sys

import pytest

from tests.support.system_parts import REPOSITORY

SAYS = {"take_part": "update", "count": "answer", "keep_receipt": "receipt", "enrol": "consent"}


def lines_of(scenarios, points, folder):
    program = [sys.executable, "-m", "tests.support.ledger_power_cut"]
    done = subprocess.run(
        [*program, ",".join(scenarios), points, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def a_tenth(tmp_path_factory):
    """Lines of all scenarios in one program: most of the time is what it imports."""
    return lines_of([*SAYS, "race"], "7", tmp_path_factory.mktemp("cut"))


def require_right(scenario, lines):
    kind = SAYS[scenario.removesuffix("_sealed")]
    for line in lines:
        assert line["killed"], line
        after, end = line["after_kill"], line["in_the_end"]
        said = [
            [index for what, index in line[life] if what == kind] for life in ("first", "second")
        ]
        if scenario.startswith("take_part"):
            require_one_answer(line)
            continue
        assert end["state"] == "sound", line
        if scenario == "enrol":
            assert after["state"] in {"sound", "never_enrolled"}, line
            assert said[1] == [0], line
        elif scenario == "keep_receipt":
            assert end["receipt"] == ["matches"], line
            assert after["update"] == end["update"] == [0], line
        else:
            assert after["state"] == "sound", line
            # What left was debited before; what was debited is never answered again.
            assert set(said[0]) <= set(after[kind]), line
            assert said[1] == ([1] if after[kind] else [0, 1]), line
            assert end[kind] == [0, 1], line


def require_one_answer(line):
    """At most one vector leaves for a step, and once, however often it is asked; debited before."""
    after, end = line["after_kill"], line["in_the_end"]
    assert (after["state"], end["state"]) == ("sound", "sound"), line
    first, second = ([vector for _, vector in line[life]] for life in ("first", "second"))
    assert {vector[0] for vector in first} <= set(after["update"]), line
    # What was debited never leaves again, and is never made anew, whether it has left or not.
    assert [vector[0] for vector in second] == ([1] if after["update"] else [0, 1]), line
    assert end["update"] == [0, 1], line


@pytest.mark.parametrize("scenario", SAYS)
def test_device_that_is_killed_on_the_way_counts_right(scenario, a_tenth):
    lines = [line for line in a_tenth if line["scenario"] == scenario]
    assert len(lines) >= 5
    require_right(scenario, lines)


def test_two_processes_never_both_answer_a_step(a_tenth):
    (line,) = (line for line in a_tenth if line["scenario"] == "race")
    for both in zip(*line["answered"], strict=True):
        # One of them debits; the other has come too late.
        assert sum(update is not None for update in both) == 1
    assert line["debited"] == list(range(9))


@pytest.mark.soak
@pytest.mark.parametrize("scenario", [*SAYS, "take_part_sealed"])
def test_device_that_is_killed_at_each_of_its_steps_counts_right(scenario, tmp_path):
    lines = lines_of([scenario], "all", tmp_path)
    require_right(scenario, lines)
    assert [line["at"] for line in lines] == list(range(1, lines[0]["steps"] + 1))
    if scenario not in {"enrol", "keep_receipt"}:
        # Steps before the debit, and between debit and answer, were among them.
        kind = SAYS[scenario.removesuffix("_sealed")]
        seen = {(bool(line["after_kill"][kind]), bool(line["first"])) for line in lines}
        assert seen >= {(False, False), (True, False)}
