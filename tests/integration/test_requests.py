"""Requests over an open device, standard input and a Unix socket, with clients that misbehave."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client import EdgeClient, requests
from edge_client.errors import ServiceError
from edge_client.link.configuration import CONFIGURATION_FACT
from edge_client.request_server import MAX_CLIENTS, RequestServer
from edge_client.requests import REQUESTS, answer_line
from models.wire.codec import encode
from models.wire.messages import NoticeState
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.system_parts import REPOSITORY
from tests.unit.edge_client.test_notices import a_notice

PAGE = (REPOSITORY / "docs" / "reference" / "requests.md").read_text()
PROGRAM = [sys.executable, "-m", "edge_client.cli"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    with new_store(folder) as store:
        store.record_many(fading_life(), now=NOW)
    return folder / "device.db"


@pytest.fixture
def ask(tmp_path):
    """Ask a new device; returns the answer as an object."""
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:

        def asked(line=None, **body):
            content = json.dumps(body).encode() if line is None else line
            answer = answer_line(client, content, now=lambda: NOW, counts=asked.counts)
            assert answer.endswith(b"\n")
            assert answer.count(b"\n") == 1
            return json.loads(answer)

        asked.counts = {}
        asked.client = client
        yield asked


def test_hello_names_the_protocol_and_every_request(ask):
    answer = ask(do="hello", id="x")

    assert (answer["id"], answer["ok"], answer["result"]["protocol"]) == ("x", True, 1)
    assert answer["result"]["requests"] == list(REQUESTS)


def test_every_request_and_error_code_is_documented():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    source = "".join(
        (REPOSITORY / "edge_client" / name).read_text()
        for name in ("requests.py", "request_server.py")
    )
    codes = set(re.findall(r'(?:code"?: ?|RequestError\(|Error: )\\?"(\w+)\\?"', source))

    assert set(REQUESTS) <= set(rows)
    assert {"bad_json", "too_long", "store_busy", "no_such_notice", "internal"} <= codes
    assert codes <= set(rows)


def test_readings_are_stored_one_or_many_and_refusals_are_counted(ask):
    one = ask(do="record", reading={"full_charge_capacity_mah": 2700})
    many = ask(
        do="record",
        readings=[
            {"at": "2026-06-01T06:00:00Z", "usage_hours": 1},
            {"at": "2026-06-01T06:00:00Z", "usage_hours": -1},
            {"at": "2026-06-01T06:00:00", "usage_hours": 1},
        ],
    )
    bad = ask(do="record", reading={"usage_hours": -1})

    assert one["result"] == {"stored": 1, "refused": {}}
    assert many["result"] == {
        "stored": 1,
        "refused": {"out_of_range:usage_hours": 1, "naive_time": 1},
    }
    assert bad["error"]["code"] == "reading_refused"
    assert bad["error"]["reason"] == "out_of_range:usage_hours"
    assert bad["error"]["exit_code"] == 3
    status = ask(do="status")["result"]
    assert status["readings"] == 2
    assert status["refusals"] == {"naive_time": 1, "out_of_range:usage_hours": 2}


def test_report_explanation_outbox_and_export_are_those_of_the_commands(ask):
    ask.client.record_many(fading_life(), now=NOW)
    report = ask(do="predict")["result"]
    bare = ask(do="predict", reasons=False)["result"]
    explained = ask(do="explain", language="de")["result"]
    ask(do="consent", purpose="summaries", granted=True)

    assert report["status"] == "ok"
    assert len(report["reasons"]) == 3
    assert bare | {"reasons": report["reasons"]} == report
    assert len(explained["sentences"]) == 3
    assert explained["figures"]["capacity_mah"] == pytest.approx(2445, abs=20)
    assert ask(do="outbox")["result"]["next_summary"]
    assert len(ask(do="export")["result"]["readings"]) == 480
    assert ask(do="predict", now="2026-09-01")["result"]["status"] == "stale"


def test_explanation_is_for_one_of_three_audiences(ask):
    empty = ask(do="explain")["result"]
    ask.client.record_many(fading_life(), now=NOW)
    owner, support, compliance = (
        ask(do="explain", audience=name)["result"] for name in ("owner", "support", "compliance")
    )

    assert empty["status"] == "insufficient_history"
    assert owner["explanation"]["confidence"]
    assert set(support) > set(owner)
    assert set(compliance) == {"record"}
    assert ask(do="explain", audience="press")["error"]["code"] == "bad_request"


def test_notice_is_shown_and_answered(ask):
    ask.client.record_many(fading_life(), now=NOW)
    notice = replace(a_notice(), issued=NOW, expires=NOW + timedelta(days=14))
    ask.client.store.keep_notice(
        notice.id, sequence=1, version=2, body=encode(notice).decode(), now=NOW
    )
    ask(do="consent", purpose="notices", granted=True)
    (shown,) = ask(do="notices")["result"]["notices"]
    answer = ask(do="answer", notice=notice.id, word="accept")

    assert shown["id"] == notice.id
    assert shown["subject"]
    assert answer["result"] == {"id": notice.id, "state": "accepted"}
    assert ask.client.store.notice(notice.id).state is NoticeState.ACCEPTED
    assert ask(do="status")["result"]["notices"] == {"accepted": 1}


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"do": "reboot"}, "unknown_request", "do must be one of hello, record"),
        ({}, "unknown_request", "do must be one of"),
        ({"do": ["predict"]}, "unknown_request", "do must be one of"),
        ({"do": "predict", "protocol": 2}, "unsupported_protocol", "speaks protocol 1, not 2"),
        ({"do": "predict", "explain": True}, "bad_request", "no field 'explain'"),
        ({"do": "predict", "reasons": "no"}, "bad_request", "reasons must be true or false"),
        ({"do": "predict", "now": "noon"}, "bad_request", "now must be a time"),
        ({"do": "predict", "id": 1.5}, "bad_request", "id must be a text"),
        ({"do": "predict", "id": "x" * 65}, "bad_request", "id must be a text"),
        ({"do": "record"}, "bad_request", "either reading or readings"),
        ({"do": "record", "readings": [1]}, "bad_request", "at most 500 objects"),
        ({"do": "record", "readings": [{}] * 501}, "bad_request", "at most 500 objects"),
        ({"do": "record", "reading": {"volts": 1}}, "bad_request", "unknown field volts"),
        ({"do": "consent", "purpose": "all"}, "bad_request", "granted is missing"),
        ({"do": "consent", "purpose": "x", "granted": True}, "bad_request", "must be one of"),
        ({"do": "answer", "notice": "n", "word": "perhaps"}, "bad_request", "word must be one of"),
        ({"do": "answer", "notice": "n", "word": "accept"}, "no_such_notice", "no notice 'n'"),
    ],
)
def test_wrong_request_is_answered_with_a_code_and_a_line(ask, body, code, says):
    answer = ask(**body)

    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert says in answer["error"]["message"]
    assert ask.counts == {code: 1}


def test_configuration_that_stops_predictions_stops_these_too(ask):
    ask.client.record_many(fading_life(), now=NOW)
    ask(do="consent", purpose="summaries", granted=True)
    ask.client.store.keep_fact(CONFIGURATION_FACT, {"sequence": 1, "prediction": False})

    assert [ask(do=name)["error"]["code"] for name in ("predict", "explain")] == 2 * ["stopped"]
    assert ask(do="outbox")["result"]["next_summary"] == []


@pytest.mark.parametrize(
    "line", [b"predict", b"[]", b"\xff", b'{"do": "hello", "do": "hello"}', b"[" * 60_000]
)
def test_line_that_is_no_object_is_named(ask, line):
    assert ask(line)["error"]["code"] == "bad_json"


def test_defect_is_answered_and_the_next_request_too(ask, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setitem(REQUESTS, "hello", requests.Request({}, "", broken))
    answer = ask(do="hello")

    assert answer["error"] == {"code": "internal", "message": "RuntimeError", "exit_code": 1}
    assert "a request failed" in caplog.text
    assert ask(do="status")["ok"] is True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(
                ["do", "id", "now", "reading", "readings", "purpose", "granted", "word"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(max_size=10) | st.integers(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=8), inner, max_size=3)
                ),
                max_leaves=6,
            )
            | st.sampled_from(sorted(REQUESTS)),
        ).map(lambda body: json.dumps(body).encode()),
    )
)
def test_whatever_comes_is_answered_with_one_object(ask, line):
    answer = ask(line.replace(b"\n", b" "))

    assert set(answer) in ({"id", "ok", "result"}, {"id", "ok", "error"})
    assert answer.get("error", {}).get("code") != "internal"


# Standard input


def served(store, text, *arguments):
    return subprocess.run(
        [*PROGRAM, "--store", str(store), "serve", "--now", NOW.isoformat(), *arguments],
        input=text,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_lines_of_standard_input_are_answered_in_order_and_its_end_is_the_end(filled):
    ran = served(filled, b'{"id":1,"do":"hello"}\n\nnonsense\n{"id":2,"do":"status"}')
    answers = [json.loads(line) for line in ran.stdout.splitlines()]

    assert ran.returncode == 0
    assert [(answer["id"], answer["ok"]) for answer in answers] == [
        (1, True),
        (None, False),
        (2, True),
    ]


def test_overlong_line_is_named_and_the_next_is_answered(filled):
    ran = served(filled, b"x" * 200_000 + b'\n{"id":1,"do":"hello"}\n')
    first, second = (json.loads(line) for line in ran.stdout.splitlines())

    assert first["error"]["code"] == "too_long"
    assert second["ok"] is True


def test_file_is_a_standard_input_too(filled, tmp_path):
    file = tmp_path / "requests"
    file.write_bytes(b'{"id":1,"do":"hello"}\n')
    with file.open("rb") as stream:
        ran = subprocess.run(
            [*PROGRAM, "--store", str(filled), "serve"],
            stdin=stream,
            capture_output=True,
            check=False,
            timeout=60,
        )

    assert (ran.returncode, json.loads(ran.stdout)["id"]) == (0, 1)


# Unix socket


@pytest.fixture
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "device.sock"


def is_listened_on(place):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


@contextmanager
def listening(place, answer=lambda line: line[:10] + b"\n", **choices):
    """A server in a thread; ends in order."""
    counts = {}
    server = RequestServer(answer, counts=counts, turn_s=0.05, **choices)
    thread = threading.Thread(target=server.serve_socket, args=(place,))
    thread.start()
    while not is_listened_on(place):
        assert thread.is_alive()
        time.sleep(0.005)
    server.counts = counts
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
        server.close()


def connected(place):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(place))
    client.settimeout(10)
    return client


def line_from(client):
    return client.makefile("rb").readline()


def test_socket_has_its_mode_serves_several_and_is_removed_at_the_end(place):
    with listening(place):
        mode = place.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        with connected(place) as one, connected(place) as two:
            two.sendall(b"two\n")
            one.sendall(b"one\n")
            assert (line_from(one), line_from(two)) == (b"one\n", b"two\n")
    assert not place.exists()


def test_half_closed_client_gets_all_its_answers(place):
    with listening(place) as server, connected(place) as client:
        client.sendall(b"a\nb\nc")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b"a\nb\nc\n"
        assert server.answered == 3


def test_client_that_does_not_read_or_ends_no_line_holds_up_nobody(place):
    large = b"x" * 2_000_000 + b"\n"
    with (
        listening(place, lambda line: large if line == b"much" else line + b"\n"),
        connected(place) as slow,
        connected(place) as endless,
        connected(place) as other,
    ):
        slow.sendall(b"much\n" * 50)
        endless.sendall(b"y" * 60_000)
        for number in range(20):
            other.sendall(b"%d\n" % number)
            assert line_from(other) == b"%d\n" % number
        assert len(line_from(slow)) == len(large)


def test_client_that_takes_no_answer_is_let_go(place):
    now = [0.0]
    with (
        listening(place, lambda _: b"x" * 4_000_000, clock_s=lambda: now[0]) as server,
        connected(place) as slow,
    ):
        slow.sendall(b"much\n")
        until = time.monotonic() + 10
        while not server.counts.get("stalled_client"):
            assert time.monotonic() < until
            time.sleep(0.02)
            now[0] += 1.0
        now[0] += 1.0
        assert len(slow.makefile("rb").read()) < 4_000_000


def test_client_that_goes_away_in_the_middle_costs_nothing(place):
    with listening(place, lambda _: b"x" * 1_000_000 + b"\n") as server:
        for _ in range(30):
            gone = connected(place)
            gone.sendall(b"a\nb\nc")
            gone.close()
        with connected(place) as client:
            client.sendall(b"z\n")
            assert len(line_from(client)) == 1_000_001
        until = time.monotonic() + 10
        while server._clients and time.monotonic() < until:
            time.sleep(0.01)
        assert server._clients == []


def test_ninth_client_is_refused_until_one_has_been_silent_for_a_minute(place):
    now = [0.0]
    with listening(place, clock_s=lambda: now[0]):
        clients = [connected(place) for _ in range(MAX_CLIENTS)]
        for client in clients:
            client.sendall(b"here\n")
            assert line_from(client) == b"here\n"
        with connected(place) as ninth:
            refusal = json.loads(line_from(ninth))
            assert refusal["error"]["code"] == "too_many_clients"
        now[0] = 61.0
        with connected(place) as ninth:
            ninth.sendall(b"now\n")
            assert line_from(ninth) == b"now\n"
        assert clients[0].recv(10) == b""
        for client in clients:
            client.close()


def test_socket_that_nobody_listens_on_is_replaced(place):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    with listening(place), connected(place) as client:
        client.sendall(b"a\n")
        assert line_from(client) == b"a\n"


def start_of(place):
    server = RequestServer(lambda line: line, counts={})
    try:
        server.serve_socket(place)
    finally:
        server.close()


def test_socket_that_somebody_listens_on_stays(place):
    with listening(place), pytest.raises(ServiceError, match="another server holds it"):
        start_of(place)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(place))
        foreign.listen()
        with pytest.raises(ServiceError, match="somebody listens there; stop that one"):
            start_of(place)
    assert place.exists()


def test_place_that_is_no_socket_or_cannot_be_written_is_refused(place, tmp_path):
    place.write_text("mine")
    with pytest.raises(ServiceError, match="is no socket, and stays"):
        start_of(place)
    assert place.read_text() == "mine"
    with pytest.raises(ServiceError, match="cannot be used"):
        start_of(tmp_path / "nowhere" / "device.sock")
    with pytest.raises(ServiceError, match="cannot be used"):
        start_of(tmp_path / ("x" * 150))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_service_in_order(filled, place, tmp_path, number):
    notify = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(notify))
        supervisor.settimeout(30)
        service = subprocess.Popen(
            [*PROGRAM, "--store", str(filled), "serve", "--socket", str(place)],
            env=os.environ | {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "400000"},
            stderr=subprocess.PIPE,
        )
        assert supervisor.recv(100) == b"READY=1"
        assert [supervisor.recv(100) for _ in range(3)] == 3 * [b"WATCHDOG=1"]
        with connected(place) as client:
            client.sendall(b'{"id":1,"do":"predict","now":"2026-06-01T12:00:00Z"}\n')
            assert json.loads(line_from(client))["result"]["status"] == "ok"
            service.send_signal(number)
            assert client.recv(10) == b""
        _, said = service.communicate(timeout=30)

    assert (service.returncode, said) == (0, b"")
    assert not place.exists()
    assert Path(f"{place}.lock").exists()
