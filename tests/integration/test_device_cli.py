"""`fedcell-device` with a model behind it: report, reasons, update, outbox, inbox."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from datetime import timedelta

import pytest

from edge_client.cli import main
from edge_client.commands.connection import (
    BUTTONS,
    BUTTONS_THAT_ANSWER,
    SAYABLE,
    _tell_notice,
)
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.notice_receiver import ANSWERS, NoticeReceiver
from edge_client.model_store import ModelStore
from edge_client.notices import render_notice
from edge_client.store.mailbox import Purpose
from edge_client.wording import LANGUAGES, load_wording
from models.wire.codec import encode
from models.wire.envelope import SigningKey, sign_payload, trusted_keys
from models.wire.messages import NoticeState
from tests.support import line_bundle
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.unit.edge_client.test_notices import a_notice

AT_NOW = ["--now", NOW.isoformat()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return line_bundle.write_line_bundle(tmp_path_factory.mktemp("bundle") / "line.zip")


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({k: v.hex() for k, v in line_bundle.trusted_keys().items()}))
    return path


@pytest.fixture
def device(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
        yield store


@pytest.fixture
def run(device, bundle, keys, capsys):
    """Run a command on the device above with the test's bundle; returns code, answer, error."""

    def call(*arguments):
        settings = ["--store", str(device.path), "--bundle", str(bundle), "--trusted-keys"]
        code = main([*arguments, *settings, str(keys)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_report_is_short_and_whole(run):
    code, out, err = run("predict", *AT_NOW)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "device-1 · Meter 3 · 2026-06-01 12:00 UTC",
        "battery health      82 % (2452 of 3000 mAh)",
        "days to failure     9 (80 % between 5 and 19)",
        "failure in 30 days  95 %",
        "confidence          60 %",
        "likely cause        capacity fade",
        "recommended         schedule replacement (urgency high)",
        f"model               {line_bundle.line_bundle().version}",
    ]


def test_report_explains_itself_in_the_language_asked_for(run):
    lines = run("predict", "--explain", "--language", "de", *AT_NOW)[1].splitlines()
    assert (
        "why                 Innerhalb eines Monats verlor der Akku 4 % seiner Kapazität im"
        " Neuzustand; das spricht für einen Ausfall." in lines
    )


def test_cause_and_action_are_said_in_the_language_asked_for(run):
    lines = run("predict", "--explain", "--language", "de", *AT_NOW)[1].splitlines()
    assert "recommended         Ersatz einplanen (Dringlichkeit hoch)" in lines


def test_language_without_texts_is_wrong_usage(run):
    code, out, err = run("predict", "--explain", "--language", "fr", *AT_NOW)
    assert (code, out) == (2, "")
    assert "--language: must be one of en, de, got 'fr'" in err


def test_report_as_json(run):
    report = json.loads(run("predict", "--explain", "--json", *AT_NOW)[1])
    assert report["status"] == "ok"
    assert report["as_of"] == "2026-06-01T12:00:00+00:00"
    assert report["recommended_action"] == "schedule_replacement"
    assert report["reasons"] == [{"code": "capacity_trend.raises", "share": 1.0}]
    assert report["sentences"] == [
        "Within a month the battery lost 4 % of its capacity when new; that speaks for a failure."
    ]
    assert report["figures"]["capacity_mah"] == pytest.approx(2452, abs=1)


def test_report_without_a_prediction_says_why(run):
    code, out, _ = run("predict", "--now", "2026-03-01")
    assert code == 0
    assert "insufficient history" in out
    assert "28 days of readings" in out


def test_default_bundle_predicts(run, device):
    code = main(["predict", *AT_NOW, "--store", str(device.path), "--bundle", "default"])
    assert code == 0


def test_bundle_of_a_stranger_is_refused(device, bundle, capsys):
    code = main(["predict", *AT_NOW, "--store", str(device.path), "--bundle", str(bundle)])
    assert code == 5
    assert "unknown key" in capsys.readouterr().err


def test_update_is_verified_and_runs_from_then_on(device, bundle, keys, capsys):
    store = ["--store", str(device.path)]
    assert main(["update", str(bundle), "--trusted-keys", str(keys), *store]) == 0
    assert "signed by test" in capsys.readouterr().out
    assert main(["predict", "--json", *AT_NOW, *store]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model_version"] == line_bundle.line_bundle().version

    damaged = device.path.with_name("damaged.zip")
    damaged.write_bytes(bundle.read_bytes()[:500])
    assert main(["update", str(damaged), "--trusted-keys", str(keys), *store]) == 5
    installed = ModelStore.beside(device.path).installed()
    assert installed.version == line_bundle.line_bundle().version


def test_outbox_shows_what_would_leave_and_counts_nothing(run, device):
    assert "no summary would leave" in run("outbox", *AT_NOW)[1]
    device.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
    told = json.loads(run("outbox", "--json", *AT_NOW)[1])
    assert told["waiting"] == []
    fields = {field["name"]: field for field in told["next_summary"]}
    assert fields["days_band"]["value"] == "7_to_30"
    assert fields["days_band"]["consent"] == "summaries"
    assert fields["language"]["consent"] == "notices"
    assert device.fact("summary_sequence") is None
    assert "days_band" in run("outbox", *AT_NOW)[1]


def receive_a_notice(device):
    server = SigningKey.from_bytes(bytes(range(32)))
    device.set_consent(Purpose.NOTICES, granted=True, now=NOW)
    receive = NoticeReceiver(
        Listener(
            path=device.path,
            device_id="device-1",
            trusted=trusted_keys(server.verify_key),
            clock=lambda: NOW,
            counters=AgentCounters(),
        ),
        wake=lambda: None,
    )
    receive("topic", sign_payload(encode(a_notice()), server))


def test_inbox_is_listed_and_answered(run, device):
    assert "no notice came yet" in run("notices", *AT_NOW)[1]
    receive_a_notice(device)
    (listed,) = json.loads(run("notices", "--json", *AT_NOW)[1])["notices"]
    assert listed["state"] == "received"
    assert "2452 mAh" in listed["text"]
    assert run("answer", listed["id"], "decline", *AT_NOW)[0] == 0
    assert device.notice(listed["id"]).state is NoticeState.DECLINED
    assert len(device.outbox()) == 2
    code, _, err = run("answer", "f" * 32, "accept")
    assert code == 3
    assert "no such notice" in err


@pytest.mark.parametrize("word", ["request_replacement", "book_appointment"])
def test_buttons_that_ask_for_a_replacement_accept(run, device, word):
    receive_a_notice(device)
    code, out, _ = run("answer", "a" * 32, word, *AT_NOW)
    assert code == 0
    assert "accepted" in out
    assert device.notice("a" * 32).state is NoticeState.ACCEPTED


def test_button_for_next_week_puts_the_notice_off(run, device):
    receive_a_notice(device)
    assert run("answer", "a" * 32, "remind_next_week", *AT_NOW)[0] == 0
    assert device.notice("a" * 32).state is NoticeState.SNOOZED


def test_buttons_that_show_something_answer_nothing(run, device):
    receive_a_notice(device)
    details = run("answer", "a" * 32, "view_details", *AT_NOW)
    assert details == run("predict", "--explain", *AT_NOW)
    assert "0800 123 456" in run("answer", "a" * 32, "talk_to_a_person")[1]
    assert device.notice("a" * 32).state is NoticeState.RECEIVED
    assert run("answer", "f" * 32, "view_details", *AT_NOW)[0] == 3


def test_every_button_of_every_notice_can_be_pressed():
    for language in LANGUAGES:
        for notice in load_wording(language).notices.values():
            assert set(notice["actions"]) <= set(BUTTONS)
    assert set(ANSWERS) == {*SAYABLE, *BUTTONS_THAT_ANSWER}


def test_notice_is_printed_with_the_words_that_answer_it(capsys):
    shown = render_notice(a_notice(), {}, load_wording("en"))
    _tell_notice(Namespace(json=False, answer=None), "a" * 32, shown)
    words = "request_replacement|book_appointment|view_details|talk_to_a_person|decline"
    assert f"answer with: fedcell-device answer {'a' * 32} {words}\n" in capsys.readouterr().out
    _tell_notice(Namespace(json=False, answer="accept"), "a" * 32, shown)
    assert "answer with" not in capsys.readouterr().out


def test_notices_whose_time_is_over_are_not_listed(run, device):
    receive_a_notice(device)
    last, over = (a_notice().expires + timedelta(days=1, seconds=s) for s in (0, 1))
    assert len(json.loads(run("notices", "--json", "--now", last.isoformat())[1])["notices"]) == 1
    assert json.loads(run("notices", "--json", "--now", over.isoformat())[1]) == {
        "over": 1,
        "notices": [],
    }
    assert run("notices", "--now", over.isoformat())[1] == (
        "not shown any more (time over, or battery replaced): 1\n"
    )


def test_agent_needs_a_key_once_notices_are_wanted(run, device):
    device.set_consent(Purpose.NOTICES, granted=True, now=NOW)
    code, _, err = run("run", "--once")
    assert code == 2
    assert "--server-key" in err


def in_a_process(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "edge_client.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | variables,
    )


def test_process_ends_with_its_code_after_saying_everything(device, bundle, keys):
    settings = {
        "FEDCELL_DEVICE_STORE": str(device.path),
        "FEDCELL_DEVICE_BUNDLE": str(bundle),
        "FEDCELL_DEVICE_TRUSTED_KEYS": str(keys),
    }
    done = in_a_process("predict", "--json", *AT_NOW, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "ok"

    refused = in_a_process("predict", "--store", str(bundle))
    assert refused.returncode == 3
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert in_a_process("predict", "--colour").returncode == 2
    assert "record" in in_a_process("--help").stdout


def test_reader_that_leaves_early_is_no_error(device):
    command = f"{sys.executable} -m edge_client.cli export --store {device.path} | head -c 10"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{")
    assert done.stderr == ""
