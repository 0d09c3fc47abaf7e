"""The features of the first specification stay what they were when models were trained on them.

Made by `make_features.py` beside this file; another value needs another specification.
"""

import json
from pathlib import Path

import pytest

from models.feature_spec import digest
from tests.golden.features.make_features import ROWS, recorded_rows

RECORDED = json.loads(Path(__file__).with_name("features_v1.json").read_text())


def test_features_are_those_that_were_recorded():
    assert RECORDED["feature_spec_digest"] == digest()
    found = recorded_rows()
    assert len(found) == len(RECORDED["rows"]) == len(ROWS)
    for row, expected in zip(found, RECORDED["rows"], strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if value is None:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
