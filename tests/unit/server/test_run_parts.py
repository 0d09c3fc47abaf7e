"""The parts of a run: who carried it on, from which round, with what."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.runs.replay_record import facts_of, first_other_fact, platform_here, versions_here
from server.runs.run_parts import RunPart, parts_of, with_part
from server.runs.verification import Verdict, verify_record, version_notes

YESTERDAY = Path(__file__).parents[2] / "golden" / "run_report_v1"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def part(from_round, *, seconds=2.0, versions=None):
    return RunPart(
        from_round=from_round,
        started_at=NOW + timedelta(hours=from_round),
        seconds=seconds,
        versions=versions_here() if versions is None else versions,
        platform=platform_here(),
    )


def test_part_reads_back_from_plain_fields():
    assert RunPart.from_json(json.loads(json.dumps(part(3).to_json()))) == part(3)


def test_process_that_came_to_no_round_gives_way_and_its_time_counts():
    parts = with_part(with_part((part(1), part(5)), part(9, seconds=0.5)), part(9, seconds=0.0))
    assert [one.from_round for one in parts] == [1, 5, 9]
    assert [one.seconds for one in parts] == [2.0, 2.0, 0.5]
    assert with_part((), part(1)) == (part(1),)


def test_report_of_yesterday_is_one_part():
    report = json.loads((YESTERDAY / "run.json").read_text())
    (only,) = parts_of(report)
    assert (only.from_round, only.started_at) == (1, NOW)
    assert only.versions == report["versions"]
    assert only.platform == {}


def report_with(*parts):
    report = json.loads((YESTERDAY / "run.json").read_text())
    return report | {"parts": [one.to_json() for one in parts]}


def test_notes_say_which_rounds_ran_with_what():
    other = {**versions_here(), "flwr": "0.9.0"}
    notes = version_notes(report_with(part(1), part(3, versions=other)))
    (note,) = notes
    assert note.startswith("flwr 0.9.0 then (rounds 3 to 3), ")
    assert version_notes(report_with(part(1))) == []


@pytest.mark.parametrize("begins", [(2,), (1, 3, 2), (1, 9), (1, 1)])
def test_parts_that_leave_rounds_to_nobody_differ(begins):
    report = report_with(*map(part, begins))
    checks = verify_record(YESTERDAY, report, home=YESTERDAY, fleet_sha256=None)
    (found,) = [check for check in checks if check.name == "parts of the run"]
    assert found.verdict is Verdict.DIFFERS


@pytest.mark.parametrize("begins", [(1,), (1, 2), (1, 2, 4)])
def test_parts_in_order_differ_from_nothing(begins):
    report = report_with(*map(part, begins))
    checks = verify_record(YESTERDAY, report, home=YESTERDAY, fleet_sha256=None)
    assert "parts of the run" not in {check.name for check in checks}


def test_parts_that_nobody_can_read_differ():
    report = report_with() | {"parts": [{"from_round": 1}]}
    checks = verify_record(YESTERDAY, report, home=YESTERDAY, fleet_sha256=None)
    assert Verdict.DIFFERS in {c.verdict for c in checks if c.name == "parts of the run"}
    assert version_notes(report) == []


def test_what_a_run_began_with_outweighs_what_is_told_now():
    found = {"record": {"seed": None, "fleet_sha256": "aa", "started_from": "none"}}
    told = {"seed": 3, "fleet_sha256": "bb", "started_from": "none"}
    kept = facts_of(found, told)
    assert (kept["seed"], kept["fleet_sha256"], kept["started_from"]) == (None, "aa", "none")
    assert facts_of(None, told)["fleet_sha256"] == "bb"
    assert first_other_fact(found, told) == "fleet_sha256"
    assert first_other_fact(found, told | {"fleet_sha256": None}) is None
    assert first_other_fact({}, told) is None
