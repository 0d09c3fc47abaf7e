"""What operators do with a run: watch, pause, resume, cancel, look back, explain, replay."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from privacy import read_ledger
from server.runs.status import RunState, read_status
from server.runs.verification import Verdict
from simulations.run_replay import replay_seeded
from tests.support import watched_run
from tests.support.command_line import fedcell

ROUNDS = 4


def until(condition, *, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def state_of(run):
    status = read_status(run)
    return None if status is None else status.state


def done(run):
    status = read_status(run)
    return 0 if status is None else status.rounds_done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with real noise whose second round nobody answered and whose replies came twice."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    watched_run.carry(watched_run.planned(folder, ROUNDS), line=watched_run.EchoingLine())
    return folder


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seeded"
    watched_run.carry(watched_run.planned(folder, ROUNDS, seed=5))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run's files, to be spoilt."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in finished.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def change_report(folder, change):
    path = folder / "run.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def words_until(watcher, word):
    """What a watcher says up to a word; it is ended where it does not say it."""
    too_long = threading.Timer(60.0, watcher.kill)
    too_long.start()
    words = set()
    try:
        for line in watcher.stdout:
            words.add(json.loads(line)["word"])
            if word in words:
                break
    finally:
        too_long.cancel()
    return words


@pytest.mark.slow
def test_a_run_is_watched_paused_resumed_and_killed_and_then_cancelled(tmp_path):
    run = tmp_path / "run"
    watcher = subprocess.Popen(
        [Path(sys.executable).with_name("fedcell"), "rounds", "watch", run, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    first = json.loads(watcher.stdout.readline())
    process = watched_run.Walker.of(run)
    try:
        assert until(lambda: done(run) >= 2)
        assert fedcell("rounds", "watch", run, "--once").code == 0

        paused = fedcell("rounds", "pause", run, "--reason", "maintenance", "--json").json()
        assert until(lambda: state_of(run) is RunState.PAUSED)
        held = done(run)
        assert "@" in paused["asked_by"]
        shown = fedcell("rounds", "watch", run, "--once").out
        assert "paused by" in shown
        assert "maintenance" in shown
        time.sleep(0.5)
        assert (done(run), read_status(run).invited) == (held, 0)

        assert fedcell("rounds", "resume", run).code == 0
        assert until(lambda: done(run) > held)

        process.kill()
        gone = fedcell("rounds", "watch", run, "--once")
        assert gone.code == 6
        assert "its process is gone" in gone.out
        assert "fedcell rounds resume" in " ".join(gone.out.split())

        words = words_until(watcher, "process_gone")
        asked_back = fedcell("rounds", "cancel", run)
        assert asked_back.is_refused(2, "--yes")
        released = len(read_ledger((run / "ledger.jsonl").read_text()))
        cancelled = fedcell("rounds", "cancel", run, "--yes", "--json").json()
        assert cancelled["released"]["rounds"] <= released
        assert cancelled["released"]["delta"] == 1e-6
        assert "whole life" in cancelled["released"]["unit"]
        assert not (run / "stream.key").exists()
        assert json.loads((run / "run.json").read_text())["status"] == "cancelled"
        assert len(read_ledger((run / "ledger.jsonl").read_text())) == released

        assert watcher.wait(timeout=20) == 1
        words |= words_until(watcher, "cancelled")
        assert first["word"] == "absent"
        assert {"running", "paused", "process_gone", "cancelled"} <= words
        assert fedcell("rounds", "pause", run).is_refused(1, "cancelled", "nothing to pause")
        assert fedcell("rounds", "resume", run).is_refused(1, "cancelled", "nothing to resume")
    finally:
        process.kill()
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()


@pytest.mark.slow
def test_a_running_process_ends_at_a_cancel_without_another_charge(tmp_path):
    run = tmp_path / "run"
    process = watched_run.Walker.of(run, seconds=0.2)
    try:
        assert until(lambda: done(run) >= 1)
        cancelled = fedcell("rounds", "cancel", run, "--yes", "--reason", "wrong fleet")
        assert cancelled.code == 0
        assert "the stream's key is destroyed" in cancelled.out
        assert process.wait() == 1
    finally:
        process.kill()
    entries = read_ledger((run / "ledger.jsonl").read_text())
    report = json.loads((run / "run.json").read_text())
    assert (report["status"], len(report["rounds"])) == ("cancelled", len(entries))
    assert not (run / "stream.key").exists()
    assert not (run / "aggregate.bin").exists()
    asked = [one for one in log_of(run) if one["event"] == "cancel_asked"]
    assert [one["reason"] for one in asked] == ["wrong fleet"]
    assert "@" in asked[0]["asked_by"]


def log_of(run):
    return [json.loads(line) for line in (run / "engine.jsonl").read_text().splitlines()]


def test_history_tells_each_round_and_draws_it(finished, tmp_path):
    told = fedcell("rounds", "history", finished, "--plot", tmp_path / "h.svg", "--json").json()
    shown = fedcell("rounds", "history", finished).out
    drawn = (tmp_path / "h.svg").read_text()

    assert [one["noise_only"] for one in told["rounds"]] == [False, True, False, False]
    assert told["runs"][0]["state"] == "finished"
    assert told["runs"][0]["replied"] == 12
    assert told["runs"][0]["refused"] > 0
    lines = [
        line.split() for line in shown.splitlines() if " loss " in line and "WORSE" not in line
    ]
    assert [("mean" in words, "noise" in words) for words in lines] == [
        (True, False),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert "WORSE        than what it started from: loss" in shown
    assert "NOISE        only 75% of the rounds had the least replies" in shown
    assert "ε at δ = 1e-06; its unit: one device" in shown
    assert "ε_release at δ = 1e-06" in drawn
    assert "noise alone" in drawn


def test_history_of_a_folder_lists_its_runs(finished):
    table = fedcell("rounds", "history", finished.parent).out

    assert "finished" in table
    assert "4/4" in table


def test_a_round_is_explained_in_plain_words(finished):
    answer = fedcell("rounds", "explain", 3, finished)
    said = " ".join(answer.out.split())

    assert answer.code == 0
    for part in (
        "4 of 12 enrolled devices",
        "Nothing that a device reports decides it",
        "duplicate (a second reply to the same task)",
        "by node, under the name that it bears in this stream alone",
        ": 1 duplicate",
        "refusals.jsonl",
        "not noise alone",
        "at δ = 1e-06, by the ledger",
        "one device, its whole life",
        "contributions replaced by zero",
        "chain verified",
        "round 4 was released",
    ):
        assert part in said
    silent = " ".join(fedcell("rounds", "explain", 2, finished).out.split())
    assert "noise alone: not one good reply came by the deadline" in silent
    assert "stays charged to whom it invited" in silent


def test_an_explanation_is_what_the_ledger_derives(finished):
    found = [fedcell("rounds", "explain", n, finished, "--json").json() for n in (1, 2, 3, "last")]
    rounds = json.loads((finished / "run.json").read_text())["rounds"]
    hashes = [entry.hash for entry in read_ledger((finished / "ledger.jsonl").read_text())]

    assert [one["epsilon"]["after"] for one in found] == pytest.approx(
        [one["epsilon_release"] for one in rounds]
    )
    assert found[0]["epsilon"]["before"] == 0.0
    assert [one["ledger"]["entry"]["hash"] for one in found] == hashes
    assert all(one["ledger"]["agrees"] for one in found)
    assert found[-1]["checkpoint"]["agrees"] is True
    sigma = found[0]["release"]["noise_multiplier"]
    assert found[0]["cost"]["mu_squared_of_each_invited"] == pytest.approx(sigma**-2)


def test_a_changed_ledger_is_told_and_ends_with_five(copied):
    ledger = copied / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"noise_only":true', '"noise_only":false'))

    answer = fedcell("rounds", "explain", 1, copied)

    assert answer.code == 5
    assert "BROKEN" in answer.out


def test_what_is_not_there_is_said_in_one_line(finished, tmp_path):
    assert fedcell("rounds", "explain", 9, finished).is_refused(3, "round 9", "rounds 1 to 4")
    assert fedcell("rounds", "explain", "x", finished).is_refused(2, "'x'", "'last'")
    assert fedcell("rounds", "history", tmp_path).is_refused(4, "there is no run here")
    assert fedcell("rounds", "pause", tmp_path).is_refused(4, "there is no run here")
    assert fedcell("rounds", "pause", finished).is_refused(1, "finished")
    absent = fedcell("rounds", "watch", tmp_path / "none", "--patience", 0)
    assert (absent.code, "no run here yet" in absent.out) == (4, True)
    plot = fedcell("rounds", "history", finished, "--plot", tmp_path / "h.gif")
    assert plot.is_refused(2, ".svg or .png")


def test_a_real_run_is_verified_as_far_as_it_goes_without_its_key(finished, tmp_path):
    answer = fedcell("rounds", "replay", finished, "--fleet", tmp_path / "none", "--json").json()

    assert answer["same"] is True
    assert answer["is_run_anew"] is False
    assert any("key of their noise" in one for one in answer["not_verifiable"])
    assert any("against the ledger" in one for one in answer["not_verifiable"])
    same = {one["name"] for one in answer["checks"] if one["verdict"] == "same"}
    assert {"ledger chain", "policy", "start weights", "round 4: ledger entry"} <= same
    assert "weights that leave: those of round 4" in same


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda r: r["rounds"][2].update(ledger_hash="0" * 64), "round 3: ledger entry"),
        (lambda r: r["rounds"][1].update(epsilon_release=0.1), "round 2: ε at δ"),
        (lambda r: r["record"].update(start_sha256="0" * 64), "start weights"),
        (lambda r: r["config"].update(deadline_s=9.0), "configuration"),
        (lambda r: r["rounds"].pop(1), "order of rounds"),
        (lambda r: r["privacy"]["policy"].update(num_rounds=5), "policy"),
    ],
)
def test_the_first_difference_of_a_record_is_named(copied, spoil, named):
    change_report(copied, spoil)

    answer = fedcell("rounds", "replay", copied, "--fleet", copied, "--json")

    assert answer.code == 1
    assert answer.json()["first_difference"]["name"].startswith(named)


def replayed(run, scratch, report=None):
    """Run a seeded run anew, over messages in this process."""
    return replay_seeded(
        run,
        report or json.loads((run / "run.json").read_text()),
        SimpleNamespace(held_out=()),
        scratch=scratch,
        clock=lambda: watched_run.datetime.now(watched_run.UTC),
        carry=lambda runs, _rows, **_: watched_run.carry(look_alike(runs[0])),
    )


def look_alike(run):
    run.evaluate = lambda weights: {"loss": float(abs(weights).sum()), "auc": None}
    return run


def test_a_seeded_run_repeats_to_the_last_digest(seeded, tmp_path):
    checks = replayed(seeded, tmp_path / "anew")

    assert {check.verdict for check in checks} == {Verdict.SAME}
    assert [check.name for check in checks][-2:] == ["round 4: weights", "round 4: ledger entry"]


def test_a_replay_ends_at_the_first_round_that_differs(seeded, tmp_path):
    report = json.loads((seeded / "run.json").read_text())
    report["rounds"][2]["weights_sha256"] = "f" * 64

    checks = replayed(seeded, tmp_path / "anew", report)

    assert [c.name for c in checks if c.verdict is Verdict.DIFFERS] == ["round 3: weights"]
    assert not any(check.name.startswith("round 4") for check in checks)


def test_the_weights_that_a_run_started_from_are_kept(finished):
    with np.load(finished / "start.npz", allow_pickle=False) as arrays:
        kept = arrays["weights"]
    assert np.array_equal(kept, watched_run.new_flat_weights(seed=watched_run.SEED))


def test_log_and_metrics_name_no_device(finished):
    said = (finished / "engine.jsonl").read_text() + (finished / "metrics.prom").read_text()
    said += (finished / "status.json").read_text()

    assert "secret" not in said
    events = [one["event"] for one in log_of(finished)]
    assert (events[0], events[-1]) == ("run_starts", "run_ends")
    assert events.count("round_released") == ROUNDS
    refused = [one["refused"] for one in log_of(finished) if one["event"] == "replies_refused"]
    reported = json.loads((finished / "run.json").read_text())["rounds"]
    assert sum(one["duplicate"] for one in refused) == sum(
        one["refused"].get("duplicate", 0) for one in reported
    )


def test_a_run_of_yesterday_is_still_told(tmp_path):
    report = {
        "schema_version": 1,
        "status": "running",
        "started_at": "2026-03-01T00:00:00+00:00",
        "seconds": 4.0,
        "config": {"stream": "old", "num_rounds": 3, "epsilon": 2.0, "cohort_size": 2},
        "privacy": {
            "epsilon_release": 1.0,
            "epsilon_release_unbounded": False,
            "delta": 1e-8,
            "unit_of_privacy": "one device",
            "entry_kind": "stream",
        },
        "start_metrics": None,
        "rounds": [
            {
                "index": 0,
                "invited": 2,
                "replied": 2,
                "refused": {},
                "epsilon_release": 1.0,
                "metrics": None,
                "seconds": 1.0,
                "most_participations": 1,
            }
        ],
    }
    (tmp_path / "run.json").write_text(json.dumps(report))

    gone = fedcell("rounds", "watch", tmp_path, "--once")
    history = fedcell("rounds", "history", tmp_path)

    assert (gone.code, "its process is gone" in gone.out) == (6, True)
    assert (history.code, "process_gone" in history.out) == (0, True)


def test_shell_completes_the_commands_of_rounds():
    answer = subprocess.run(
        [Path(sys.executable).with_name("fedcell")],
        env=os.environ
        | {
            "_FEDCELL_COMPLETE": "complete_bash",
            "COMP_WORDS": "fedcell rounds re",
            "COMP_CWORD": "2",
        },
        check=True,
        capture_output=True,
        text=True,
    )

    assert set(answer.stdout.split()) == {"resume", "replay"}
