"""A run that left no status and no record is told, explained and verified for ever."""

import json
from datetime import UTC, datetime
from pathlib import Path

from server.engine.rounds import RoundRecord
from server.runs.folder import config_of
from server.runs.reading import look_at
from tests.support.command_line import fedcell

RUN = Path(__file__).parent / "run_report_v1"
REPORT = json.loads((RUN / "run.json").read_text())


def test_its_records_and_its_configuration_load():
    records = [RoundRecord(**record) for record in REPORT["rounds"]]

    assert [(r.index, r.noise_only, r.weights_sha256) for r in records] == [
        (0, False, ""),
        (1, True, ""),
        (2, False, ""),
    ]
    assert config_of(REPORT).stream == "run-of-yesterday"


def test_it_is_shown_as_finished():
    look = look_at(RUN, now=datetime(2026, 3, 2, tzinfo=UTC))

    assert (look.word, look.status.rounds_done, look.status.noise_only_rounds) == ("finished", 3, 1)
    assert fedcell("rounds", "watch", RUN, "--once").code == 0
    assert fedcell("rounds", "history", RUN).code == 0


def test_a_round_of_it_is_explained_by_its_ledger():
    found = fedcell("rounds", "explain", 2, RUN, "--json").json()

    assert found["release"]["noise_only"] is True
    assert found["ledger"]["chain"] == "verified"
    assert found["ledger"]["entry"]["index"] == 1
    assert found["ledger"]["agrees"] is None
    assert found["epsilon"]["after"] == REPORT["rounds"][1]["epsilon_release"]


def test_what_it_did_not_note_is_not_verifiable_and_nothing_else_differs():
    answer = fedcell("rounds", "replay", RUN, "--fleet", RUN / "none", "--json").json()
    verdicts = {check["name"]: check["verdict"] for check in answer["checks"]}

    assert answer["same"] is True
    assert verdicts["configuration"] == "not_verifiable"
    assert verdicts["start weights"] == "not_verifiable"
    assert verdicts["ledger entries of the run"] == "same"
