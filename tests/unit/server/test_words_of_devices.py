"""What devices say of their ledgers: nobody's words end a run, most devices' words do."""

import json

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("said", "counted", "shows"),
    [
        ([], [], False),
        ([5, 5, 5], [1, 1, 1], False),
        ([2, 3, 2], [2, 3, 2], False),
        ([9, 2, 2], [2, 2, 2], False),
        ([9, 9, 2], [2, 2, 2], True),
        ([9, 9, 2, 9], [1, 1, 2, 2], False),
        ([3], [2], True),
    ],
)
def test_most_of_the_known_devices_must_say_more_than_the_home_counted(said, counted, shows):
    words = {f"device-{number}": (count, 0.1) for number, count in enumerate(said)}
    assert shows_forgotten_releases(words, np.array(counted, np.int64)) is shows
