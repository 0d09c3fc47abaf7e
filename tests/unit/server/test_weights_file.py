"""A file of weights is read whole, or refused in one way however it was damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from server.engine.rounds import RoundsError
from server.engine.run_configuration import starting_weights
from server.runs.verification import Verdict, verify_record
from server.runs.weights_file import read_weights, write_weights

YESTERDAY = Path(__file__).parents[2] / "golden" / "run_report_v2"
WEIGHTS = np.arange(500, dtype=np.float32)
DAMAGES = {
    "torn": lambda content: content[: len(content) // 2],
    "bit": lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
    "empty": lambda _content: b"",
    "other": lambda _content: b"no archive",
}


@pytest.fixture(params=DAMAGES)
def damaged(request, tmp_path):
    path = tmp_path / "start.npz"
    write_weights(path, WEIGHTS)
    path.write_bytes(DAMAGES[request.param](path.read_bytes()))
    return path


def test_weights_come_back_bit_by_bit(tmp_path):
    write_weights(tmp_path / "weights.npz", WEIGHTS)
    found = read_weights(tmp_path / "weights.npz")
    assert found.dtype == np.float32
    assert found.tobytes() == WEIGHTS.tobytes()


def test_an_archive_without_weights_is_refused_and_a_missing_file_is_named_so(tmp_path):
    np.savez(tmp_path / "other.npz", other=WEIGHTS)
    with pytest.raises(ValueError, match="weights"):
        read_weights(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "missing.npz")


def test_damaged_weights_are_refused_whatever_the_damage(damaged):
    with pytest.raises(ValueError):
        read_weights(damaged)
    with pytest.raises(RoundsError, match="holds no weights"):
        starting_weights({"start-weights": str(damaged)})


def test_a_replay_names_damaged_weights_as_what_differs(damaged):
    report = json.loads((YESTERDAY / "run.json").read_text(encoding="utf-8"))
    checks = verify_record(damaged.parent, report, home=damaged.parent, fleet_sha256=None)
    (start,) = (check for check in checks if check.name == "start weights")
    assert (start.verdict, start.found) == (Verdict.DIFFERS, "None")
