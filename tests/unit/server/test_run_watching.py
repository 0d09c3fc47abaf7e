"""Status, requests, log and metrics of a run: values in, values out."""

import json
import os
import subprocess
import threading
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.engine.aggregation import ReplyRefusal
from server.engine.rounds import RoundRecord, RoundsConfig
from server.runs.control import (
    CANCEL_FILE,
    PAUSE_FILE,
    Request,
    RequestWatch,
    RunCancelledError,
    Wish,
    ask_cancel,
    ask_pause,
    lift_pause,
    read_requests,
)
from server.runs.desk import MetricsPortError, Watching, open_desk
from server.runs.log import BACKUPS, FIELDS, LOG_FILE, EngineLog
from server.runs.metrics import RunMetrics
from server.runs.reading import Look, look_at
from server.runs.round_explanation import REFUSALS
from server.runs.status import (
    METRICS_FILE,
    QUIET_S,
    EnginePhase,
    ProcessMark,
    RunState,
    RunStatus,
    StepProgress,
    eta_after,
    is_gone,
    read_status,
    write_status,
)
from server.runs.watch_words import headline, line_of, rows_of
from tests.support.system_parts import REPOSITORY

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BY_ANNA = Request(asked_by="anna@host", asked_at=NOW, reason="maintenance")
BY_BERT = Request(asked_by="bert@host", asked_at=NOW + timedelta(minutes=1))


def status_of(**changes):
    values = {
        "run": "run-1",
        "state": RunState.RUNNING,
        "phase": EnginePhase.COLLECTING,
        "num_rounds": 10,
        "rounds_done": 2,
        "epsilon_planned": 2.0,
        "epsilon_release": 0.5,
        "delta": 1e-8,
        "unit_of_privacy": "one device, its whole life",
        "started_at": NOW,
        "heartbeat_at": NOW,
        "process": ProcessMark.here(),
        "index": 2,
        "invited": 40,
        "replied": 30,
        "refused": {"malformed": 2, "late": 1},
        "deadline_at": NOW + timedelta(seconds=90),
        "quality": {"average_precision": 0.5, "auc": None},
        "quality_index": 1,
        "eta_at": NOW + timedelta(hours=3),
    }
    return RunStatus(**(values | changes))


def record_of(index=0, **changes):
    values = {
        "index": index,
        "invited": 4,
        "replied": 3,
        "refused": {"malformed": 1},
        "most_participations": 1,
        "epsilon_release": 0.7,
        "metrics": None,
        "seconds": 1.5,
    }
    return RoundRecord(**(values | changes))


def config_of():
    return RoundsConfig(
        stream="run-1", num_rounds=10, cohort_size=4, clipping_norm=1.0, epsilon=2.0, delta=1e-8
    )


@pytest.fixture
def desk(tmp_path):
    desk = open_desk(
        tmp_path,
        config=config_of(),
        clock=lambda: NOW,
        stop=threading.Event(),
        watching=Watching(),
    )
    yield desk
    desk.log.close()


def at(index, phase, **counts):
    return StepProgress(index=index, phase=phase, **counts)


def test_a_status_reads_back_as_it_was_written(tmp_path):
    for durably in (True, False):
        write_status(tmp_path, status_of(), durably=durably)
        assert read_status(tmp_path) == status_of()


def test_a_status_of_a_later_version_is_read_without_what_is_new(tmp_path):
    fields = status_of().to_json() | {"mood": "good"}
    assert RunStatus.from_json(fields) == status_of()


def test_a_torn_status_is_none(tmp_path):
    (tmp_path / "status.json").write_text('{"run": "x"')
    assert read_status(tmp_path) is None
    assert look_at(tmp_path, now=NOW).word == "absent"


def test_a_process_is_gone_where_it_is_dead_or_long_silent_elsewhere():
    late = NOW + timedelta(seconds=QUIET_S + 1)
    assert is_gone(status_of(), now=NOW, alive=False)
    assert not is_gone(status_of(), now=late, alive=True)
    assert is_gone(status_of(), now=late, alive=None)
    assert not is_gone(status_of(), now=NOW, alive=None)
    assert not is_gone(status_of(state=RunState.FINISHED), now=late, alive=False)


def test_a_process_of_the_same_number_that_started_later_is_another():
    mine = ProcessMark.here()
    assert mine.is_alive() is True
    assert replace(mine, started_ticks=1).is_alive() is False
    assert replace(mine, host="elsewhere").is_alive() is None


def test_a_process_that_has_ended_is_dead_before_its_parent_has_noticed():
    done = subprocess.Popen(["true"])
    mark = replace(ProcessMark.here(), pid=done.pid, started_ticks=None)
    end = time.monotonic() + 10
    while mark.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert mark.is_alive() is False
    done.wait()
    assert mark.is_alive() is False


def test_the_eta_is_the_median_of_the_last_rounds_for_each_that_is_left():
    assert eta_after(NOW, [1.0, 100.0, 3.0], rounds_left=4) == NOW + timedelta(seconds=12)
    assert eta_after(NOW, [], rounds_left=4) is None
    assert eta_after(NOW, [1.0], rounds_left=0) is None


def test_a_cancel_outweighs_a_pause_and_neither_is_taken_over_by_a_second_one(tmp_path):
    assert read_requests(tmp_path).wish is Wish.GO
    ask_pause(tmp_path, BY_ANNA)
    ask_pause(tmp_path, BY_BERT)
    assert read_requests(tmp_path).pause == BY_ANNA
    assert read_requests(tmp_path).wish is Wish.HOLD
    ask_cancel(tmp_path, BY_BERT)
    ask_cancel(tmp_path, BY_ANNA)
    assert read_requests(tmp_path).cancel == BY_BERT
    assert read_requests(tmp_path).wish is Wish.CANCEL


def test_a_lifted_pause_says_who_lifted_it(tmp_path):
    assert not lift_pause(tmp_path, BY_BERT)
    ask_pause(tmp_path, BY_ANNA)
    assert lift_pause(tmp_path, BY_BERT)
    found = read_requests(tmp_path)
    assert (found.wish, found.pause.asked_by, found.pause.is_lifted) == (
        Wish.GO,
        "bert@host",
        True,
    )


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
@pytest.mark.parametrize("name", [PAUSE_FILE, CANCEL_FILE])
def test_a_request_that_cannot_be_read_holds_and_destroys_nothing(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_requests(tmp_path).wish is Wish.HOLD
    assert "cannot be read" in read_requests(tmp_path).holder


def test_a_watch_sees_a_request_when_its_file_changes(tmp_path):
    watch = RequestWatch(tmp_path)
    assert watch.look().wish is Wish.GO
    ask_pause(tmp_path, BY_ANNA)
    assert watch.look().wish is Wish.HOLD
    lift_pause(tmp_path, BY_BERT)
    assert watch.look().wish is Wish.GO


def test_a_cancel_ends_a_step_only_before_its_sum_is_committed(desk):
    desk.take(at(0, EnginePhase.BETWEEN))
    ask_cancel(desk.folder, BY_ANNA)
    desk.take(at(0, EnginePhase.COMMITTED))
    desk.take(at(0, EnginePhase.KEPT))
    with pytest.raises(RunCancelledError, match="anna@host"):
        desk.take(at(1, EnginePhase.COLLECTING, invited=4))


def test_a_pause_holds_before_an_invitation_and_never_while_replies_come(desk):
    ask_pause(desk.folder, BY_ANNA)
    desk.take(at(0, EnginePhase.COLLECTING, invited=4))
    assert desk.status.held_by.startswith("anna@host")
    assert desk.status.state is RunState.RUNNING
    threading.Timer(0.3, lift_pause, (desk.folder, BY_BERT)).start()
    desk.take(at(1, EnginePhase.BETWEEN))
    assert (desk.status.state, desk.status.held_by) == (RunState.RUNNING, "")
    said = [json.loads(line) for line in (desk.folder / LOG_FILE).read_text().splitlines()]
    asked = [(one["event"], one.get("asked_by")) for one in said]
    assert asked == [("pause_asked", "anna@host"), ("holding", None), ("pause_lifted", "bert@host")]


def test_a_paused_run_tells_no_time_left_until_it_goes_on(desk):
    desk.round_done(record_of(index=0))
    assert desk.status.eta_at is not None
    ask_pause(desk.folder, BY_ANNA)
    looks = []

    def look_and_lift():
        looks.append(look_at(desk.folder, now=NOW))
        lift_pause(desk.folder, BY_BERT)

    threading.Timer(0.3, look_and_lift).start()
    desk.take(at(1, EnginePhase.BETWEEN))
    (paused,) = looks
    assert (paused.status.state, paused.status.eta_at) == (RunState.PAUSED, None)
    assert "the last may end" not in rows_of(paused)["rounds"]
    assert desk.status.eta_at is not None


def test_a_stop_ends_a_pause(desk):
    ask_pause(desk.folder, BY_ANNA)
    desk.stop.set()
    desk.take(at(0, EnginePhase.BETWEEN))
    assert desk.status.state is RunState.PAUSED


def test_a_new_run_forgets_requests_and_one_that_goes_on_keeps_them(tmp_path):
    for is_resumed, wish in ((True, Wish.HOLD), (False, Wish.GO)):
        ask_pause(tmp_path, BY_ANNA)
        open_desk(
            tmp_path,
            config=config_of(),
            clock=lambda: NOW,
            stop=threading.Event(),
            watching=Watching(),
            is_resumed=is_resumed,
        )
        assert read_requests(tmp_path).wish is wish


def test_a_run_that_ends_says_how(tmp_path, desk):
    for error, state in (
        (RunCancelledError(BY_ANNA), RunState.CANCELLED),
        (ValueError("what"), RunState.FAILED),
        (KeyboardInterrupt(), RunState.INTERRUPTED),
    ):
        with pytest.raises(type(error)), desk.attend():
            raise error
        assert read_status(tmp_path).state is state
    with desk.attend():
        desk.has_finished = True
    assert read_status(tmp_path).state is RunState.FINISHED


def test_a_folder_that_refuses_a_status_does_not_end_the_run(desk, tmp_path):
    (tmp_path / "status.json").mkdir()
    (tmp_path / "status.json" / "taken").touch()
    desk.take(at(0, EnginePhase.COMMITTED))
    assert desk.status.phase is EnginePhase.COMMITTED


def test_the_log_takes_its_own_fields_and_its_own_levels_alone(tmp_path):
    log = EngineLog(tmp_path, run="r", clock=lambda: NOW, level="warning")
    log.say("info", "unheard", index=1)
    log.say("warning", "heard", index=1, reason=None)
    with pytest.raises(ValueError, match="device"):
        log.say("warning", "leaks", device="d1")
    log.close()
    (line,) = [json.loads(one) for one in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert line == {
        "at": NOW.isoformat(),
        "level": "warning",
        "event": "heard",
        "run": "r",
        "index": 1,
    }
    assert set(line) <= FIELDS
    with pytest.raises(ValueError, match="loud"):
        EngineLog(tmp_path, run="r", clock=lambda: NOW, level="loud")


def test_the_log_is_bounded(tmp_path):
    log = EngineLog(tmp_path, run="r", clock=lambda: NOW, most_bytes=2_000)
    for index in range(300):
        log.say("info", "round_released", index=index)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == BACKUPS + 1
    assert sum(file.stat().st_size for file in files) <= 2_000 * (BACKUPS + 1)
    assert json.loads((tmp_path / LOG_FILE).read_text().splitlines()[-1])["index"] == 299


def metrics_text(metrics, tmp_path):
    metrics.write(tmp_path)
    return (tmp_path / METRICS_FILE).read_text()


def test_metrics_count_rounds_replies_and_refusals(tmp_path):
    metrics = RunMetrics(status_of(), [record_of(0)])
    metrics.add(record_of(1, noise_only=True, replied=0, refused={"late": 2}, seconds=7.0))
    lines = metrics_text(metrics, tmp_path).splitlines()
    for line in (
        'fedcell_rounds_planned{run="run-1"} 10.0',
        'fedcell_rounds_invited_devices_total{run="run-1"} 8.0',
        'fedcell_rounds_replied_devices_total{run="run-1"} 3.0',
        'fedcell_rounds_noise_only_total{run="run-1"} 1.0',
        'fedcell_rounds_refused_replies_total{reason="late",run="run-1"} 2.0',
        'fedcell_rounds_epsilon_release{delta="1e-08",run="run-1"} 0.5',
        'fedcell_rounds_quality{metric="average_precision",run="run-1"} 0.5',
        'fedcell_rounds_state{run="run-1",state="running"} 1.0',
        'fedcell_rounds_duration_seconds_bucket{le="2.0",run="run-1"} 1.0',
        'fedcell_rounds_duration_seconds_count{run="run-1"} 2.0',
        'fedcell_rounds_duration_seconds_sum{run="run-1"} 8.5',
    ):
        assert line in lines


def test_an_unbounded_epsilon_is_above_every_alarm(tmp_path):
    text = metrics_text(RunMetrics(status_of(epsilon_release=None)), tmp_path)
    assert 'fedcell_rounds_epsilon_release{delta="1e-08",run="run-1"} +Inf' in text


def test_metrics_are_served_on_a_port_and_a_taken_one_is_refused(tmp_path):
    metrics = RunMetrics(status_of())
    port = metrics.serve(host="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"fedcell_rounds_planned" in answer.read()
        with pytest.raises(MetricsPortError, match=f"127.0.0.1:{port}.*--metrics-port"):
            open_desk(
                tmp_path,
                config=config_of(),
                clock=lambda: NOW,
                stop=threading.Event(),
                watching=Watching(metrics_port=port),
            )
    finally:
        metrics.close()


def test_every_metric_and_every_field_is_documented(tmp_path):
    page = (REPOSITORY / "docs/reference/rounds-metrics.md").read_text()
    text = metrics_text(RunMetrics(status_of(), [record_of()]), tmp_path)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
    assert [field for field in sorted(FIELDS) if f"`{field}`" not in page] == []
    fields = RunStatus.__dataclass_fields__
    assert [field for field in fields if f"`{field}`" not in page] == []


def test_words_of_a_look_name_what_operators_ask_first():
    look = Look(status=status_of(held_by="anna@host"), is_gone=False, at=NOW)
    assert headline(look) == (
        "waits for replies, 90 s to the deadline; holds after this round, asked by anna@host"
    )
    rows = rows_of(look)
    assert rows["round 3"] == "invited 40, replied 30 (75%), refused 3 (1 late, 2 malformed)"
    assert rows["ε_release"] == "0.500 of 2 at δ = 1e-08"
    assert rows["quality"] == "average precision 0.5000 (after round 2)"
    assert "in 3.0 h, at 2026-03-01 15:00 UTC" in rows["rounds"]
    assert str(os.getpid()) in rows["process"]


def test_a_dead_process_is_said_with_the_command_to_go_on():
    go_on = "fedcell rounds resume run"
    look = Look(status=status_of(go_on=go_on), is_gone=True, at=NOW + timedelta(minutes=5))
    assert headline(look) == "its process is gone, the last sign of life came 5 min ago"
    assert rows_of(look)["go on"] == go_on
    assert line_of(look).endswith(f"go on with: {go_on}")


def test_every_reason_for_a_refusal_is_said_in_words():
    assert {str(reason) for reason in ReplyRefusal} <= set(REFUSALS)
