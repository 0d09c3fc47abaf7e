"""What is left of a run that a disk or a hand has spoilt is told, and ends nothing."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from server.runs.control import (
    CANCEL_FILE,
    PAUSE_FILE,
    Request,
    RequestUnclearError,
    RequestWatch,
    Wish,
    ask_cancel,
    ask_pause,
    lift_pause,
    read_requests,
)
from server.runs.log import LOG_FILE, EngineLog
from server.runs.reading import UNREADABLE, look_at, run_rows
from server.runs.status import (
    EnginePhase,
    ProcessMark,
    RunState,
    RunStatus,
    read_status,
    write_status,
)
from server.runs.watch_words import line_of, rows_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BY_ANNA = Request(asked_by="anna@host", asked_at=NOW, reason="maintenance")
SPOILT = (None, "x", -1, [], {}, 1e400, True, [1], {"a": 1}, {"a": "b"}, 2**70, "2026-01-01")


def status_of():
    return RunStatus(
        run="run-1",
        state=RunState.RUNNING,
        phase=EnginePhase.COLLECTING,
        num_rounds=10,
        rounds_done=2,
        epsilon_planned=2.0,
        epsilon_release=0.5,
        delta=1e-8,
        unit_of_privacy="one device, its whole life",
        started_at=NOW,
        heartbeat_at=NOW,
        process=ProcessMark.here(),
        index=2,
        invited=40,
        replied=30,
        refused={"late": 1},
        deadline_at=NOW + timedelta(seconds=90),
        quality={"average_precision": 0.5, "auc": None},
        quality_index=1,
        eta_at=NOW + timedelta(hours=3),
    )


def told(folder):
    look = look_at(folder, now=NOW)
    json.dumps(look.to_json())
    return line_of(look), rows_of(look)


@pytest.mark.parametrize("name", [*status_of().to_json(), "pid", "host", "started_ticks"])
def test_a_status_with_any_field_spoilt_is_looked_at_without_a_fall(tmp_path, name):
    for value in SPOILT:
        fields = status_of().to_json()
        part = fields["process"] if name in fields["process"] else fields
        part[name] = value
        (tmp_path / "status.json").write_text(json.dumps(fields))
        line, rows = told(tmp_path)
        assert line
        assert rows["run"]


def test_a_status_that_is_whole_is_read_in_full(tmp_path):
    write_status(tmp_path, status_of(), durably=False)
    assert read_status(tmp_path) == status_of()


def test_an_unreadable_cancel_is_named_where_a_pause_is_lifted(tmp_path):
    (tmp_path / CANCEL_FILE).write_text("")
    with pytest.raises(RequestUnclearError, match=CANCEL_FILE):
        lift_pause(tmp_path, BY_ANNA)
    assert read_requests(tmp_path).wish is Wish.HOLD
    ask_cancel(tmp_path, BY_ANNA)
    assert read_requests(tmp_path).wish is Wish.CANCEL


def test_an_unreadable_pause_is_lifted(tmp_path):
    (tmp_path / PAUSE_FILE).write_bytes(b"\xff")
    assert lift_pause(tmp_path, BY_ANNA)
    assert read_requests(tmp_path).wish is Wish.GO


def test_a_pause_that_leads_in_a_circle_holds_the_run(tmp_path):
    (tmp_path / PAUSE_FILE).symlink_to(tmp_path / PAUSE_FILE)
    assert RequestWatch(tmp_path).look().wish is Wish.HOLD


def test_a_pause_is_asked_over_what_nobody_can_read(tmp_path):
    (tmp_path / PAUSE_FILE).write_text("[1]")
    ask_pause(tmp_path, BY_ANNA)
    assert read_requests(tmp_path).pause == BY_ANNA


def test_a_log_on_a_full_disk_warns_once_and_ends_nothing(tmp_path, capsys, caplog):
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    log = EngineLog(tmp_path, run="run-1", clock=lambda: NOW)
    for index in range(3):
        log.say("info", "round_released", index=index)
    log.close()
    assert [
        record.message.endswith("lines of the engine's log are lost") for record in caplog.records
    ] == [True]
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_report_hides_no_other_run(tmp_path):
    for name, text in (("torn", "{"), ("list", "[]"), ("other", '{"config": [], "rounds": 3}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "run.json").write_text('{"rounds": []}')
    rows = run_rows([tmp_path / one for one in ("torn", "list", "other", "good")], now=NOW)
    assert [row["state"] == UNREADABLE for row in rows] == [True, True, True, False]
    assert all("run.json" in row["message"] for row in rows[:3])
