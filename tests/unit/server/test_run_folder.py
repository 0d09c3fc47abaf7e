"""A run's folder is used once, and its report is whole."""

import json

import pytest

from server.engine.rounds import RoundsError
from server.privacy_home.ledger_file import LEDGER_FILE
from server.runs.folder import RunFolder
from tests.support.federated_rounds import (
    honest,
    rounds_over,
)
from tests.support.flower_grid import GridInMemory


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    rounds = rounds_over([1, 2], tmp_path)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    before = (tmp_path / "run" / LEDGER_FILE).read_bytes()
    with pytest.raises(RoundsError, match="already holds a run"):
        RunFolder(tmp_path / "run")
    assert (tmp_path / "run" / LEDGER_FILE).read_bytes() == before


def test_a_report_is_whole_json_or_the_one_before(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.save_report({"status": "running"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.save_report({"status": float("nan")})
    assert json.loads((folder.path / "run.json").read_text()) == {"status": "running"}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "home.json",
        "home.lock",
        LEDGER_FILE,
        "participations.db",
        "run.json",
        "stream.lock",
    ]
