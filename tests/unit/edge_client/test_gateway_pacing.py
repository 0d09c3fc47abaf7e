"""Whom a gateway asks when, on a clock of paper."""

import pytest

from edge_client.gateway.block import budget_s
from edge_client.gateway.collecting import Heard
from edge_client.gateway.pacing import PARTS_AT_ONCE, REMINDERS, Pace

DEVICES = tuple(f"d-{number}" for number in range(1_000))


def pace(devices=DEVICES, *, budget=60.0, num_parts=4):
    return Pace(devices, 0.0, budget, num_parts)


def test_no_more_devices_are_asked_than_a_broker_holds_parts_for():
    found = pace()
    first = found.offers(0.0, answered=(), heard={})

    assert len(first) == PARTS_AT_ONCE // 4
    assert found.offers(0.1, answered=(), heard={}) == []
    assert found.offers(0.2, answered=set(first[:3]), heard={}) == list(DEVICES[80:83])


def test_silent_devices_give_way_so_that_all_are_asked_in_a_quarter_of_the_time():
    found, asked = pace(), []
    for turn in range(160):
        asked += found.offers(turn / 10, answered=(), heard={})

    assert asked == list(DEVICES)


def test_devices_that_were_silent_are_asked_twice_more_and_no_others():
    found = pace(DEVICES[:3])
    answered, heard = {"d-0"}, {"d-1": Heard((1,), 1.0, 4)}
    assert len(found.offers(0.0, answered=(), heard={})) == 3
    for share in REMINDERS:
        assert found.offers(share * 60 - 1, answered=answered, heard=heard) == []
        assert found.offers(share * 60 + 1, answered=answered, heard=heard) == ["d-2"]
    assert found.offers(59.0, answered=answered, heard=heard) == []


def test_missing_parts_are_asked_for_after_a_silence_that_grows():
    found = pace(DEVICES[:1])
    found.offers(0.0, answered=(), heard={})
    heard = {"d-0": Heard((2, 3), 1.0, 4)}
    times = [
        turn / 10
        for turn in range(200)
        if found.missing(turn / 10, answered=(), heard=heard) == [("d-0", (2, 3))]
    ]

    assert times == [pytest.approx(at) for at in (3.0, 7.0, 15.0)]
    assert found.missing(60.0, answered={"d-0"}, heard=heard) == []


def test_where_nothing_could_be_kept_all_parts_are_asked_for():
    found = pace(DEVICES[:1])

    assert found.missing(9.0, answered=(), heard={"d-0": Heard((0, 1), 1.0, 2)}) == [("d-0", ())]


def test_a_broker_that_forgot_is_told_everything_again():
    found = pace(DEVICES[:2])
    found.offers(0.0, answered=(), heard={})
    found.begin_again()

    assert found.offers(5.0, answered={"d-0"}, heard={}) == ["d-1"]


@pytest.mark.parametrize(
    ("deadline", "waited", "expected"),
    [
        (60.0, 0.0, 51.0),
        (60.0, 6.0, 45.0),
        (600.0, 0.0, 570.0),
        (600.0, -900.0, 570.0),
        (600.0, 9e9, 270.0),
        (6.0, 0.0, 2.0),
        (4.0, 2.0, 0.4),
    ],
)
def test_the_sum_is_back_in_time_whatever_the_clocks_say(deadline, waited, expected):
    assert budget_s(deadline, waited_s=waited) == pytest.approx(expected)
