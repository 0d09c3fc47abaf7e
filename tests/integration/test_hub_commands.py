"""`fedcell server …` as an operator types it: answers, refusals and exit codes."""

import json

import pytest

from server.broker import free_port
from server.cli import main
from server.storage.database import open_database
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import ack, healthy_summary, summary


def fedcell(capsys, *arguments):
    """Run a command, and return its exit code and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(["server", *arguments])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.fixture
def url(tmp_path):
    made = f"sqlite:///{tmp_path / 'hub.db'}"
    with open_database(made) as database:
        paper = HubOnPaper(database)
        paper.hear(summary())
        paper.hear(healthy_summary(device="device-2"))
        paper.hub.tick()
        paper.hear(ack(correlation=paper.sent[0].id))
        paper.hub.receive("elsewhere", b"")
    return made


def test_status_counts_for_machines(capsys, url):
    code, out, _ = fedcell(capsys, "status", "--db", url, "--json")

    assert code == 0
    assert json.loads(out) == {
        "devices": 2,
        "sent": 1,
        "acknowledged": 1,
        "waiting": 0,
        "notices": {"received": 1},
        "suppressed": {"not_due": 1},
        "dead_letters": {"bad_topic": 1},
        "configurations": {},
        "refused_models": {},
        "devices_without_key": None,
    }


def test_status_counts_for_people(capsys, url, monkeypatch):
    monkeypatch.setenv("FEDCELL_SERVER_DB", url)
    code, out, _ = fedcell(capsys, "status")

    assert code == 0
    assert out.splitlines() == [
        "devices       2",
        "notices sent  1",
        "acknowledged  1",
        "waiting       0",
        "notices:",
        "  received             1",
        "suppressed:",
        "  not_due              1",
        "dead letters:",
        "  bad_topic            1",
    ]


def test_a_key_is_made_once(capsys, tmp_path):
    path = tmp_path / "hub.pem"
    code, out, _ = fedcell(capsys, "key", "--out", str(path), "--json")
    again, _, line = fedcell(capsys, "key", "--out", str(path))
    made = json.loads(out)

    assert (code, again) == (0, 5)
    assert made["key_id"] in json.loads((tmp_path / "hub.pem.public.json").read_text())
    assert made["public"] == f"{path}.public.json"
    assert line == f"fedcell: {path}: is there already; name another file, or move it away\n"


def test_a_broker_that_is_not_there_is_one_line(capsys, tmp_path, url):
    port = free_port()
    fedcell(capsys, "key", "--out", str(tmp_path / "hub.pem"))
    options = ["--key", str(tmp_path / "hub.pem"), "--broker", f"127.0.0.1:{port}"]
    code, out, line = fedcell(capsys, "run", "--db", url, *options)

    assert (code, out) == (6, "")
    assert line == (
        f"fedcell: MQTT broker 127.0.0.1:{port}: connection refused; start one with "
        "'fedcell server broker', or name the right host and port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["status", "--db", "sqlite:////nowhere/hub.db"], 4, "there is no such file"),
        (["status", "--db", "nonsense"], 3, "is no database URL"),
        (["run", "--key", "/nowhere/hub.pem"], 4, "fedcell server key --out /nowhere/hub.pem"),
        (["run", "--broker", "localhost"], 2, "is no address"),
        (["run", "--clock", "soon"], 2, "is no time"),
        (["run", "--clock", "2026-01-01T00:00Z", "--clock-file", "c"], 2, "is given twice"),
        (["run", "--clock-file", "/nowhere/clock"], 2, "cannot be read"),
        (["run", "--config", "/nowhere/hub.toml"], 4, "there is no file"),
        (["broker", "--kind", "pigeon"], 2, "choose mosquitto or embedded"),
        (["broker", "--port", "0"], 2, "range"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_documented_code(capsys, arguments, code, what):
    ended, out, line = fedcell(capsys, *arguments)

    assert (ended, out) == (code, "")
    assert what in line
    assert line.count("\n") == 1
