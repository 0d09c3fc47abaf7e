"""What an ending of a SuperNode means, and how long the node waits after it."""

from random import Random

import pytest

from edge_client.errors import NodeRefusedError
from edge_client.rounds_node.endings import (
    LONGEST_SESSION_WAIT_S,
    LONGEST_WAIT_S,
    REFUSED_FOR_S,
    SESSION_LIFE_S,
    WORDS,
    Ending,
    Patience,
    ending_of,
    told_ending,
)


@pytest.fixture
def patience():
    return Patience(superlink="fleet:9443", jitter=Random(3))


def test_flowers_codes_are_told_apart():
    assert ending_of(told_ending(2004), exit_code=1) is Ending.OLD_SESSION
    assert ending_of(told_ending(2003), exit_code=1) is Ending.LOST
    assert ending_of(None, exit_code=0) is Ending.NOT_AUTHENTICATED
    assert ending_of(None, exit_code=-9) is Ending.LOST
    assert ending_of(Ending.STUCK, exit_code=0) is Ending.STUCK
    assert set(WORDS) == set(Ending), "each is told in words"


def test_an_old_session_is_waited_out_and_the_node_is_back_soon_after(patience):
    elapsed_s, waits = 0.0, []
    while elapsed_s <= SESSION_LIFE_S:
        waits.append(patience.wait_after(Ending.OLD_SESSION, elapsed_s=elapsed_s))
        elapsed_s += waits[-1]

    assert elapsed_s <= SESSION_LIFE_S + LONGEST_SESSION_WAIT_S
    assert all(0 < wait <= LONGEST_SESSION_WAIT_S for wait in waits)
    assert waits[0] < 2.1, "a session that is just ending costs little"


def test_who_is_refused_for_longer_than_any_session_lives_is_refused_for_its_key(patience):
    patience.wait_after(Ending.OLD_SESSION, elapsed_s=0.0)
    patience.wait_after(Ending.OLD_SESSION, elapsed_s=REFUSED_FOR_S - 1)

    with pytest.raises(NodeRefusedError, match="does not know this device's key") as raised:
        patience.wait_after(Ending.OLD_SESSION, elapsed_s=REFUSED_FOR_S)
    assert raised.value.exit_code == 5


def test_whoever_was_let_in_meanwhile_is_not(patience):
    patience.wait_after(Ending.OLD_SESSION, elapsed_s=0.0)
    patience.connected(10.0)

    assert patience.wait_after(Ending.OLD_SESSION, elapsed_s=REFUSED_FOR_S + 5) > 0


def test_a_superlink_that_is_away_is_asked_ever_less_often_and_for_ever(patience):
    waits = [patience.wait_after(Ending.UNREACHABLE, elapsed_s=1000.0 * turn) for turn in range(50)]

    assert waits[0] <= 2.0
    assert LONGEST_WAIT_S / 2 <= waits[-1] <= LONGEST_WAIT_S
    assert len(set(waits)) == len(waits), "two nodes must not ask in step"


def test_a_node_that_ran_for_long_begins_with_short_waits_again(patience):
    for turn in range(9):
        patience.wait_after(Ending.LOST, elapsed_s=float(turn))
    patience.connected(100.0)

    assert patience.wait_after(Ending.LOST, elapsed_s=1000.0) <= 2.0


def test_a_node_that_is_lost_again_at_once_does_not(patience):
    for turn in range(9):
        patience.connected(float(turn))
        wait_s = patience.wait_after(Ending.LOST, elapsed_s=float(turn) + 0.5)

    assert wait_s > 60
