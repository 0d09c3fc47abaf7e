"""What an ε means is said once: device, server and plan bring the same relation."""

from pathlib import Path

import pytest

from privacy import statement
from privacy.statement import NEIGHBORING_RELATION, OF_DEVICE, OF_PLAN, OF_RELEASES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("said", [OF_DEVICE, OF_PLAN, OF_RELEASES])
def test_every_statement_brings_unit_relation_and_assumptions(said):
    assert said.neighboring_relation == NEIGHBORING_RELATION
    assert said.to_json() == {
        "unit_of_privacy": said.unit,
        "neighboring_relation": NEIGHBORING_RELATION,
        "assumptions": list(said.assumptions),
    }
    assert [said.unit in line for line in said.to_lines()].count(True) == 1
    assert all(any(one in line for line in said.to_lines()) for one in said.assumptions)
    assert said.unit in said.to_line()
    assert NEIGHBORING_RELATION in said.to_line()


def test_more_assumptions_are_added_to_a_copy():
    more = OF_RELEASES.and_assumes(*statement.CORRELATED)
    assert more.assumptions == OF_RELEASES.assumptions + statement.CORRELATED
    assert OF_RELEASES.assumptions == more.assumptions[:3]


def test_server_writes_no_statement_of_its_own():
    for path in (ROOT / "server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "one device's contributions replaced by zero" not in text, path
        assert "one training row (one device and day)" not in text, path
