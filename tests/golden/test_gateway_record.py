"""What a gateway of version 1 remembered is read for ever: no step may be answered again."""

from edge_client.gateway.record import read_answered, read_status
from tests.golden.make_gateway_record import FOLDER


def test_steps_that_version_1_answered_stay_answered():
    found = read_answered(FOLDER)

    assert found.has_answered("update/run-0123456789abcdef", 4)
    assert not found.has_answered("update/run-0123456789abcdef", 5)
    assert found.has_answered("count/evaluation/0123456789abcdef", 0)
    assert (found.stream, found.index) == ("run-0123456789abcdef", 4)
    assert found.offered_to == ("meter-1", "meter-2")
    assert found.retained_parts == 3


def test_what_version_1_told_of_its_steps_is_told():
    (step,) = read_status(FOLDER)["steps"]

    assert (step["answered"], step["invited"], step["silent"]) == (1, 2, ["meter-2"])
