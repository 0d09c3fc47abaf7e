"""Which runs a deployment takes up again, and how often."""

from datetime import UTC, datetime

import pytest

from server.deployment.control_api import FlowerRun
from server.deployment.taking_up import Tries, has_lost_its_process
from server.runs.reading import Look
from server.runs.status import EnginePhase, ProcessMark, RunState, RunStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OVER = FlowerRun(7, "finished", "failed", "")
RUNNING = FlowerRun(7, "running", "", "")


def look(state, *, is_gone=False):
    status = RunStatus(
        run="run-1",
        state=state,
        phase=EnginePhase.BETWEEN,
        num_rounds=3,
        rounds_done=1,
        epsilon_planned=2.0,
        delta=1e-8,
        unit_of_privacy="one device",
        started_at=NOW,
        heartbeat_at=NOW,
        process=ProcessMark(pid=1, host="h", started_ticks=None),
    )
    return Look(status=status, is_gone=is_gone, at=NOW)


@pytest.mark.parametrize(
    ("state", "is_gone"),
    [(RunState.INTERRUPTED, False), (RunState.RUNNING, True), (RunState.PAUSED, True)],
)
def test_run_whose_process_was_ended_is_taken_up(state, is_gone):
    assert has_lost_its_process(look(state, is_gone=is_gone), is_cancelled=False, flower=OVER)


@pytest.mark.parametrize(
    ("state", "is_gone"),
    [
        (RunState.RUNNING, False),
        (RunState.PAUSED, False),
        (RunState.FINISHED, False),
        (RunState.CANCELLED, False),
        (RunState.FAILED, False),
        (RunState.FAILED, True),
    ],
)
def test_run_that_goes_on_or_ended_by_itself_is_left_alone(state, is_gone):
    assert not has_lost_its_process(look(state, is_gone=is_gone), is_cancelled=False, flower=OVER)


def test_run_that_an_operator_ended_or_that_flower_still_runs_is_left_alone():
    stopped = look(RunState.INTERRUPTED)

    assert not has_lost_its_process(stopped, is_cancelled=True, flower=OVER)
    assert not has_lost_its_process(stopped, is_cancelled=False, flower=RUNNING)
    assert not has_lost_its_process(
        Look(status=None, is_gone=False, at=NOW), is_cancelled=False, flower=OVER
    )


def test_tries_are_counted_anew_once_a_run_gets_on():
    tries = Tries().again(1).again(1)

    assert (tries.number, tries.again(1).number, tries.again(2).number) == (2, 3, 1)
