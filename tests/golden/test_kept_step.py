"""A step that a store kept once is read for ever; one that nobody can read is no step."""

import json

import pytest

from edge_client.site_rounds.kept_step import STEP_FACT, KeptStep, kept_step
from tests.golden.make_kept_step import FILE, STEPS
from tests.support.edge_devices import new_store

KEPT = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", KEPT)
def test_kept_step_of_yesterday_means_what_it_meant(name):
    assert KeptStep.from_plain(KEPT[name]) == STEPS[name]


@pytest.mark.parametrize(
    "value",
    [
        {},
        {**KEPT["offered"], "state": "of a later version"},
        {**KEPT["offered"], "offer": '{"type":"of a later version"}'},
        {**KEPT["offered"], "offer": 7},
        {**KEPT["offered"], "received": {}},
        {**KEPT["answered"], "parts": ["=="]},
        "noise",
    ],
)
def test_what_cannot_be_read_is_no_step(tmp_path, value):
    with new_store(tmp_path) as store:
        store.keep_fact(STEP_FACT, value)
        assert kept_step(store) is None
