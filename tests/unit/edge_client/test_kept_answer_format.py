"""A kept answer as a named value: what was written loads for ever, and numbers come back whole."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.privacy.kept_answer import KeptAnswer

WRITTEN = {
    "stream": "s",
    "index": 3,
    "digest": "d" * 64,
    "entry": "e" * 64,
    "total": "eAFj/MfAwPAfHTPCxQCHowf6",
}


def answer(total):
    return KeptAnswer(stream="s", index=3, digest="d" * 64, entry="e" * 64, total=total)


def test_answer_of_the_first_version_loads():
    kept = KeptAnswer.from_json(WRITTEN)
    assert (kept.stream, kept.index, kept.digest, kept.entry) == ("s", 3, "d" * 64, "e" * 64)
    assert kept.total.tolist() == [1, -2, 2**40, 0]
    assert kept.total.dtype == np.int64


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_numbers_come_back_whole(numbers):
    told = json.loads(json.dumps(answer(np.array(numbers, np.int64)).to_json()))
    assert KeptAnswer.from_json(told).total.tolist() == numbers


def test_zeros_are_kept_as_nothing():
    assert KeptAnswer.from_json(answer(None).to_json()).total is None


@pytest.mark.parametrize("value", [None, [], "x", {}, {"stream": "s", "index": 3}])
def test_what_is_no_answer_is_none(value):
    assert KeptAnswer.from_json(value) is None
