"""A run whose record names no parts is told, explained and verified for ever.

Made by `make_run_report_v2.py` beside this file; never made anew.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from server.runs.folder import config_of
from server.runs.run_parts import parts_of
from tests.support.command_line import fedcell

RUN = Path(__file__).parent / "run_report_v2"
REPORT = json.loads((RUN / "run.json").read_text())


def test_its_one_process_is_its_one_part():
    (only,) = parts_of(REPORT)

    assert (only.from_round, only.started_at) == (1, datetime(2026, 3, 1, tzinfo=UTC))
    assert only.versions == REPORT["versions"]
    assert only.platform == REPORT["record"]["platform"]
    assert config_of(REPORT).num_rounds == 3


def test_it_is_shown_and_its_record_holds():
    assert fedcell("rounds", "history", RUN).code == 0
    assert fedcell("rounds", "explain", 2, RUN).code == 0
    answer = fedcell("rounds", "replay", RUN, "--fleet", RUN / "none", "--json").json()
    verdicts = {check["name"]: check["verdict"] for check in answer["checks"]}

    assert answer["same"] is True
    assert verdicts["configuration"] == "same"
    assert verdicts["start weights"] == "same"
    assert verdicts["weights at the end"] == "same"
