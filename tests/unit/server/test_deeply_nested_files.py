"""A file of a run that nests beyond what can be parsed is one that cannot be read: one line."""

from datetime import UTC, datetime

import pytest

from server.engine.proposal import PROPOSAL_FILE, read_proposal
from server.engine.step_facts import STEP_FACTS_FILE, read_facts
from server.runs.beginning import Traces, WayIn
from server.runs.export_note import EXPORT_FILE, was_fitted_on
from server.runs.folder import RunFolderError, command_of
from server.runs.reading import look_at
from server.runs.refusal_trail import TRAIL_FILE, read_trail
from server.runs.run_files import COMMAND_FILE, REPORT_FILE
from tests.support.command_line import fedcell

DEEP = "[" * 100_000


@pytest.mark.parametrize("command", [("history",), ("explain", 1)])
def test_a_report_that_nests_too_deep_is_told_in_one_line(tmp_path, command):
    (tmp_path / REPORT_FILE).write_text(DEEP)
    answer = fedcell("rounds", *command, tmp_path)
    assert answer.is_refused(3, "run.json", "cannot be read")


def test_other_files_of_a_run_that_nest_too_deep_are_as_good_as_none(tmp_path):
    names = (REPORT_FILE, STEP_FACTS_FILE, PROPOSAL_FILE, EXPORT_FILE, TRAIL_FILE, COMMAND_FILE)
    for name in names:
        (tmp_path / name).write_text(DEEP)
    assert read_facts(tmp_path, index=0) is None
    assert read_proposal(tmp_path, None) is None
    assert was_fitted_on(tmp_path, "ef" * 32) is False
    assert list(read_trail(tmp_path)) == []
    assert look_at(tmp_path, now=datetime(2026, 3, 1, tzinfo=UTC)).status is None
    assert Traces.of(tmp_path).way_in(is_resumed=False) is WayIn.IS_TAKEN
    with pytest.raises(RunFolderError, match="does not say how the run was started"):
        command_of(tmp_path)
