"""What devices say of their ledgers: nobody's words end a run, most devices' words do."""

import json

import pytest

from server.privacy_home.device_words import Standing
from server.streams.receipts import said_by_devices, shows_forgotten_releases

PSEUDONYM = "a" * 32


def line_of(**changes):
    receipt = {
        "head": "0" * 64,
        "mu_squared": 0.1,
        "participations": 1,
        "pseudonym": PSEUDONYM,
    }
    return json.dumps(receipt | changes)


@pytest.mark.parametrize(
    "line",
    [
        line_of().replace('"mu_squared": 0.1', '"mu_squared": 1' + "0" * 400),
        line_of().replace('"participations": 1', '"participations": 1' + "0" * 400),
        line_of().replace('"participations": 1', '"participations": 1' + "0" * 5000),
        line_of(mu_squared=float("inf")),
        line_of(participations=-1),
        line_of(participations=2**63),
        "[" * 100_000,
        "",
    ],
)
def test_line_that_no_ledger_writes_says_nothing(line):
    assert said_by_devices([line], device_of={PSEUDONYM: "device"}) == {}
    said = said_by_devices([line, line_of()], device_of={PSEUDONYM: "device"})
    assert said == {"device": (1, 0.1)}


FIRST = None


@pytest.mark.parametrize(
    ("said", "counted", "before", "shows"),
    [
        ([], [], [], False),
        ([5, 5, 5], [1, 1, 1], [FIRST, FIRST, FIRST], False),
        ([2, 3, 2], [2, 3, 2], [0, 0, 0], False),
        ([9, 2, 2], [2, 2, 2], [0, 0, 0], False),
        ([9, 9, 2], [2, 2, 2], [0, 0, 0], True),
        ([9, 9, 2, 2], [2, 2, 2, 2], [0, 0, 0, 0], False),
        # One device among many that speak for the first time, or a fleet of one: no majority.
        ([9, 1, 1, 1], [2, 1, 1, 1], [0, FIRST, FIRST, FIRST], False),
        ([3], [2], [0], False),
        # Ahead since before this home, and no further: these trained elsewhere once.
        ([9, 9, 9], [2, 2, 2], [7, 7, 7], False),
        ([10, 10, 9], [2, 2, 2], [7, 7, 7], True),
    ],
)
def test_most_of_those_who_speak_must_be_further_ahead_than_ever(said, counted, before, shows):
    words = {f"device-{number}": (count, 0.1) for number, count in enumerate(said)}
    standings = dict(zip(words, map(Standing, counted, before), strict=True))
    assert shows_forgotten_releases(words, standings) is shows


def test_one_liar_among_two_thousand_newcomers_shows_nothing():
    words = {f"device-{number}": (1, 0.005) for number in range(1999)}
    standings = dict.fromkeys(words, Standing(1, FIRST)) | {"liar": Standing(2, 0)}
    assert not shows_forgotten_releases(words | {"liar": (10**6, 0.1)}, standings)
