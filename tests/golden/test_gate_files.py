"""What yesterday's gate, export and counts left is read for ever.

Made by `make_gate_files.py` beside this file; never made anew.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from server.counts.run_counts import kept_counts
from server.engine.proposal import read_proposal
from server.errors import RegistryError
from server.releases.admission import require_held_against, require_passed
from server.runs.export_note import was_fitted_on

RUN = Path(__file__).parent / "gate_v1"
CANDIDATE = SimpleNamespace(version="rounds-1", digest="c0" * 32)
DEFAULT = SimpleNamespace(version="default-1", digest="de" * 32)


def test_its_proposal_says_what_passed_and_beside_which_model():
    told = read_proposal(RUN, CANDIDATE)

    assert told["passed"] is True
    assert [check["figure"] for check in told["checks"]] == ["average_precision", "f1"]
    assert told["current"] == {"version": "default-1", "digest": "de" * 32}
    assert "sha256" not in told


def test_its_proposal_admits_only_beside_the_model_that_it_names():
    require_passed(RUN, CANDIDATE)
    require_held_against(RUN, CANDIDATE, in_use=DEFAULT)
    newer = SimpleNamespace(version="rounds-0", digest="00" * 32)
    with pytest.raises(RegistryError, match="judged beside default-1, and devices have rounds-0"):
        require_held_against(RUN, CANDIDATE, in_use=newer)


def test_its_note_and_its_counts():
    assert was_fitted_on(RUN, "ef" * 32)
    assert not was_fitted_on(RUN, "aa" * 32)
    (release,) = kept_counts(RUN)
    assert release.no_way is None
    assert release.found.cohort_size == 900
