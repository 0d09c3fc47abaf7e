"""One rule says whether a run ever began, and how a process may enter its folder."""

import json

import pytest

from server.runs.beginning import Traces, WayIn

NOTHING = Traces(names=(), has_command=False, has_report=False, rounds=None, has_charged=False)
WHOLE = ("ledger.jsonl", "run.json", "stream.key", "step.json", "checkpoint.npz")


def traces(*names, command=True, rounds=None, report=False, charged=False):
    return Traces(
        names=names,
        has_command=command,
        has_report=report or rounds is not None,
        rounds=rounds,
        has_charged=charged,
    )


@pytest.mark.parametrize(
    ("found", "has_begun"),
    [
        (NOTHING, False),
        (traces("stream.key", "checkpoint.npz"), False),
        (traces("run.json", "checkpoint.npz", rounds=0), False),
        (traces("run.json", rounds=1), True),
        (traces("run.json", report=True), True),
        (traces("step.json"), True),
        (traces("ledger.jsonl", charged=True), True),
    ],
)
def test_run_has_begun_once_anybody_may_have_been_invited(found, has_begun):
    assert found.has_begun is has_begun


@pytest.mark.parametrize(
    ("found", "started", "resumed"),
    [
        (NOTHING, WayIn.BEGIN, WayIn.HOLDS_NOTHING),
        (traces(), WayIn.BEGIN, WayIn.BEGIN_ANEW),
        (traces("stream.key"), WayIn.IS_TAKEN, WayIn.BEGIN_ANEW),
        (traces("run.json", "checkpoint.npz", rounds=0), WayIn.IS_TAKEN, WayIn.GO_ON),
        (traces("run.json", rounds=0), WayIn.IS_TAKEN, WayIn.HOLDS_NOTHING),
        (traces(*WHOLE, rounds=3, charged=True), WayIn.IS_TAKEN, WayIn.GO_ON),
        (traces("step.json"), WayIn.IS_TAKEN, WayIn.HOLDS_NOTHING),
    ],
)
def test_way_into_a_folder_follows_from_what_is_there(found, started, resumed):
    assert found.way_in(is_resumed=False) is started
    assert found.way_in(is_resumed=True) is resumed


@pytest.mark.parametrize(
    ("content", "rounds"),
    [("", None), ("{", None), ("{}", None), ("[]", None), (json.dumps({"rounds": [{}]}), 1)],
)
def test_report_that_nobody_can_read_may_tell_of_rounds(tmp_path, content, rounds):
    (tmp_path / "run.json").write_text(content)
    found = Traces.of(tmp_path)
    assert found.rounds == rounds
    assert found.has_begun is bool(content)
