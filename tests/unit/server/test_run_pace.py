"""Rounds of a run keep their distance in time, over restarts too, and can be steered meanwhile."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from server.engine.rounds import RoundsConfig
from server.runs.control import Request, RunCancelledError, ask_cancel
from server.runs.desk import Watching, open_desk
from server.runs.log import LOG_FILE
from server.runs.pace import Pace, last_release, seconds_between_rounds
from server.runs.reading import look_at
from server.runs.status import EnginePhase, RunStatus, StepProgress, read_status
from server.runs.watch_words import headline
from tests.support.federated_rounds import config_of, honest, rounds_over
from tests.support.flower_grid import GridInMemory

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
WEEK_S = 7 * 86_400.0
BETWEEN = StepProgress(index=1, phase=EnginePhase.BETWEEN)


class Calendar:
    """A clock that a wait moves on, as a stop event does."""

    def __init__(self):
        self.now, self.waits, self.on_wait = BEGAN, 0, lambda: None

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.waits += 1
        self.now += timedelta(seconds=seconds)
        self.on_wait()
        return False

    def is_set(self):
        return False


def pace_over(tmp_path, *, every_s=WEEK_S, **changes):
    calendar = Calendar()
    config = RoundsConfig(
        stream="run", num_rounds=10, cohort_size=4, clipping_norm=1.0, epsilon=2.0, delta=1e-8
    )
    desk = open_desk(tmp_path, config=config, clock=calendar, stop=calendar, watching=Watching())
    return Pace(desk=desk, every_s=every_s, look_s=86_400.0 / 2, **changes), calendar


def test_a_round_waits_for_its_turn_and_status_says_until_when(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN)
    shown = []
    calendar.on_wait = lambda: shown.append(read_status(tmp_path))
    pace.take(BETWEEN)
    assert calendar.now == BEGAN + timedelta(seconds=WEEK_S)
    assert {status.next_round_at for status in shown[1:]} == {calendar.now}
    assert pace.desk.status.next_round_at is None
    pace.desk.log.close()


@pytest.mark.parametrize("changes", [{"every_s": 0.0, "released_at": BEGAN}, {"released_at": None}])
def test_nothing_waits_without_a_pace_or_before_the_first_round(tmp_path, changes):
    pace, calendar = pace_over(tmp_path, **changes)
    pace.take(BETWEEN)
    assert calendar.waits == 0
    pace.desk.log.close()


def test_a_run_that_is_taken_up_waits_only_for_what_is_left(tmp_path):
    six_days = BEGAN - timedelta(days=6)
    pace, calendar = pace_over(tmp_path, released_at=six_days)
    pace.take(BETWEEN)
    assert calendar.now == BEGAN + timedelta(days=1)
    pace.take(BETWEEN)
    assert calendar.now == BEGAN + timedelta(days=1)
    pace.desk.log.close()


def test_a_clock_that_once_ran_ahead_costs_one_period_at_most(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN + timedelta(days=365))
    pace.take(BETWEEN)
    assert calendar.now == BEGAN + timedelta(seconds=WEEK_S)
    pace.desk.log.close()
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["clock_was_ahead", "waits_for_its_turn"]


def test_a_clock_put_right_in_mid_wait_costs_one_period_more_at_most(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN)

    def put_right():
        if calendar.waits == 1:
            calendar.now -= timedelta(days=365)

    calendar.on_wait = put_right
    pace.take(BETWEEN)
    back = BEGAN + timedelta(days=0.5) - timedelta(days=365)
    assert calendar.now == back + timedelta(seconds=WEEK_S)
    pace.desk.log.close()


def test_a_run_that_waits_can_be_cancelled(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN)
    asked = Request(asked_by="op", asked_at=BEGAN)
    calendar.on_wait = lambda: (ask_cancel(tmp_path, asked), forget_the_look(pace.desk))
    with pytest.raises(RunCancelledError):
        pace.take(BETWEEN)
    assert calendar.now < BEGAN + timedelta(seconds=WEEK_S)
    pace.desk.log.close()


def forget_the_look(desk):
    desk._looked = float("-inf")


def test_watch_says_that_a_run_waits_for_its_turn(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN)
    said = []
    calendar.on_wait = lambda: (
        forget_the_look(pace.desk),
        said.append(headline(look_at(tmp_path, now=calendar.now))),
    )
    pace.take(BETWEEN)
    assert any("waits for the next round's turn, in" in line for line in said)
    pace.desk.log.close()


def test_when_the_last_round_was_released_stands_in_the_ledger(tmp_path):
    rounds = rounds_over([1, 2], tmp_path, config=config_of(epsilon=2.0))
    assert last_release(rounds.stream.home.entries, "test") is None
    assert rounds.run(GridInMemory({1: honest, 2: honest}))
    entries = rounds.stream.home.entries
    assert last_release(entries, "test") == entries[-1].at
    assert last_release(entries, "another") is None


def test_status_of_yesterday_waits_for_nothing(tmp_path):
    pace, _ = pace_over(tmp_path)
    fields = pace.desk.status.to_json()
    del fields["next_round_at"]
    assert RunStatus.from_json(fields).next_round_at is None
    pace.desk.log.close()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_time_between_rounds_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="round-every-s"):
        seconds_between_rounds(value)


def test_stop_ends_the_wait(tmp_path):
    pace, calendar = pace_over(tmp_path, released_at=BEGAN)
    calendar.is_set = lambda: calendar.waits > 0
    pace.take(BETWEEN)
    assert calendar.waits == 1
    pace.desk.log.close()
